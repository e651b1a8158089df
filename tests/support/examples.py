"""pyfuse3's own example filesystems, from its source release: kept in a cache."""

from __future__ import annotations

import functools
import importlib.metadata
import os
import subprocess
import sys
import tarfile
from pathlib import Path

from support.skipping import cannot


def _cache() -> Path:
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(home) / "inopt-tests"


@functools.cache
def _directory() -> Path | str:
    """Where the examples of the installed version lie, or why they cannot be had."""
    version = importlib.metadata.version("pyfuse3")
    cache = _cache()
    examples = cache / f"pyfuse3-{version}" / "examples"
    if not examples.is_dir():
        archive = cache / "sdist" / f"pyfuse3-{version}.tar.gz"
        try:
            if not archive.exists():
                subprocess.run(
                    [
                        sys.executable, "-m", "pip", "download", "--quiet", "--no-binary", ":all:",
                        "--no-deps", "--dest", str(archive.parent), f"pyfuse3=={version}",
                    ],
                    check=True, capture_output=True, text=True, timeout=240,
                )  # fmt: skip
            with tarfile.open(archive) as release:
                release.extractall(cache, filter="data")
        except subprocess.CalledProcessError as error:
            lines = error.stderr.strip().splitlines() or ["pip failed"]
            return f"pyfuse3's source release cannot be fetched: {lines[-1]}"
        except (OSError, subprocess.TimeoutExpired, tarfile.TarError) as error:
            return f"pyfuse3's source release cannot be had: {error}"
    return examples if examples.is_dir() else f"there is no {examples}"


def examples_directory() -> Path:
    """The directory of the examples. Skips without it, but fails in CI."""
    found = _directory()
    if not isinstance(found, Path):
        cannot(found)
    return found

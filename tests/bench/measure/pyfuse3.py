"""pyfuse3's own example, from its source release: kept in a cache, never in the repository."""

from __future__ import annotations

import os
import sys
import tarfile
from pathlib import Path

from bench.measure.programs import BenchError, run


def cache_directory() -> Path:
    """Where the source release and a virtual environment for it are kept."""
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(cache) / "inopt-bench"


def passthroughfs() -> list[str]:
    """The command that runs passthroughfs.py. Raises `BenchError` if it cannot be had."""
    cache = cache_directory()
    archive = _source_release(cache / "sdist")
    version = archive.name.removeprefix("pyfuse3-").removesuffix(".tar.gz")
    unpacked = cache / f"pyfuse3-{version}"
    if not unpacked.is_dir():
        with tarfile.open(archive) as release:
            release.extractall(cache, filter="data")
    program = unpacked / "examples" / "passthroughfs.py"
    if not program.exists():
        raise BenchError(f"{archive.name} has no examples/passthroughfs.py")
    return [str(_interpreter(cache / f"venv-{version}", version)), str(program)]


def _source_release(directory: Path) -> Path:
    found = sorted(directory.glob("pyfuse3-*.tar.gz"))
    if not found:
        # pip builds the metadata of a source release to download it, which takes minutes.
        print("fetching pyfuse3's source release (takes minutes, once) …", file=sys.stderr)
        pip = [sys.executable, "-m", "pip", "download", "--no-binary", ":all:", "--no-deps"]
        run([*pip, "--dest", str(directory), "pyfuse3"], seconds=1200)
        found = sorted(directory.glob("pyfuse3-*.tar.gz"))
    if not found:
        raise BenchError("pip downloaded no source release of pyfuse3")
    return found[-1]


def _interpreter(environment: Path, version: str) -> Path:
    python = environment / "bin" / "python"
    try:
        run([str(python), "-c", "import pyfuse3"])
    except BenchError:
        run([sys.executable, "-m", "venv", "--clear", str(environment)])
        run([str(python), "-m", "pip", "install", "--quiet", f"pyfuse3=={version}"], seconds=1200)
    return python

"""Options of mount(8) on layers."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.mounting import in_place
from support.overlays import Layers, mounted_by_kernel, mounted_by_us

from inopt import syscalls

pytestmark = pytest.mark.host

TIERS = os.environ.get("INOPT_TEST_TIERS", "none rw").split()
EARLY = 1000  # an access time that relatime moves, as it is before the modification time


@pytest.fixture
def layers(host: None) -> Iterator[Layers]:
    with in_place("options") as place:
        made = Layers.made(place, 1)
        for layer in (made.lowers[0], made.upper):
            (layer / layer.name).write_text("read")
            os.utime(layer / layer.name, (EARLY, 2 * EARLY))
        yield made


@pytest.mark.parametrize("tier", TIERS)
@pytest.mark.parametrize("options", ["", "noatime"])
def test_access_times(layers: Layers, tier: str, options: str) -> None:
    """Those of lower layers never move, as over the kernel's overlayfs."""
    place = layers.upper.parent
    with mounted_by_us(layers, place / "mnt", "--tier", tier, "-o", options) as mount:
        for layer in (layers.lowers[0], layers.upper):
            assert (mount.path / layer.name).read_text() == "read"
            moved = (layer / layer.name).stat().st_atime != EARLY
            assert moved == (layer is layers.upper and not options)
        assert mount.complaints() == []


def test_there_are_no_file_handles(layers: Layers) -> None:
    """As over the kernel's overlayfs without nfs_export."""
    place = layers.upper.parent
    with mounted_by_kernel(layers, place / "mnt") as tree:
        assert handle_error(tree / "upper") == errno.EOPNOTSUPP
    with mounted_by_us(layers, place / "mnt") as mount:
        assert handle_error(mount.path / "upper") == errno.EOPNOTSUPP


def handle_error(path: Path) -> int:
    descriptor = os.open(path, os.O_PATH)
    try:
        syscalls.name_to_handle(descriptor)
    except OSError as error:
        return error.errno or 0
    finally:
        os.close(descriptor)
    return 0

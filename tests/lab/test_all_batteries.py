"""All batteries of `tests/host` and its random sequences, on every kernel at each of its tiers.

Only with ``INOPT_STRESS=1``, since it takes hours where the processor is emulated; the usual run
has a part of it in `test_kernels.py` and `test_inode_tier.py`.
"""

from __future__ import annotations

from typing import Final

import pytest
from lab.booting import PATIENCE, Boot, Boots, with_pytest

pytestmark = [pytest.mark.lab, pytest.mark.timeout(PATIENCE + 120)]

TIERS: Final = {
    "ino2": ("inode", "rw", "none"),
    "ino1": ("inode", "rw", "none"),
    "android": ("rw", "none"),
    "v7": ("rw", "none"),
    "mainline": ("rw", "none"),
}
# Where the kernel itself reads attributes from the backing inode, the filesystem's kind matters.
KINDS: Final = {"ino2": ("ext4", "xfs", "btrfs")}
BOOTS: Final = {
    f"{abi}-{kind}-{tier}": with_pytest(
        abi, "test_battery_*.py", "test_random.py", tier=tier, kind=kind
    )
    for abi, tiers in TIERS.items()
    for kind in KINDS.get(abi, ("ext4",))
    for tier in tiers
}


@pytest.mark.parametrize(
    "boot",
    [pytest.param(boot, id=name, marks=pytest.mark.boot(boot)) for name, boot in BOOTS.items()],
)
def test_nobody_can_tell(boots: Boots, boot: Boot) -> None:
    """The same operations on the bare tree and through the mount."""
    print(boots.output_of(boot))

"""What tier inode is worth: stat, find, git status and chmod, beside the bare tree.

    .venv/bin/python tests/bench/inode_tier.py [--files N] [--json FILE] [--svg FILE]

Runs on the lab's kernel (``INOPT_LAB``), which has the tier, in one boot: on a bare tree and on
mounts of it at tiers inode, rw and none. Where the lab emulates the processor, its seconds are
instructions (`tests/lab/counting`): what else the host does is not in them, nor what memory and
caches cost. Only ratios within one run count.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bench.lab.driver import main

if __name__ == "__main__":
    sys.exit(main())

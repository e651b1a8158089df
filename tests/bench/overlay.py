"""How fast layers are: inopt beside the kernel's overlayfs and fuse-overlayfs, on equal layers.

    .venv/bin/python tests/bench/overlay.py [--json FILE] [--svg FILE] [--only NAME …] [--quick]
                                       [--lab]

Each measurement has a fresh mount over the same lower layer and a new upper one. Contenders take
turns within each round; ratios are taken within a round, so that a machine that is slower for a
minute is so for all of them, and what is shown is the median over the rounds. With ``--lab`` it is
done on the lab's kernel (`bench.lab.machine`), where processor seconds are instructions.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bench.layers.driver import main

if __name__ == "__main__":
    sys.exit(main())

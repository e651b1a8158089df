"""How fast inopt is, beside the bare tree and its peers.

    .venv/bin/python tests/bench/run.py [--json FILE] [--only NAME …] [--quick]

Every measurement has a fresh mount over the same warm source tree, a server process and a client
process. Contenders take turns within each workload and round, so noise meets all of them; the
numbers shown are medians over the rounds (bandwidth: the best of them), and only ratios within
one run mean anything.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bench.measure.driver import main

if __name__ == "__main__":
    sys.exit(main())

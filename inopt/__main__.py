"""``python -m inopt``."""

from __future__ import annotations

from inopt.cli.main import main

if __name__ == "__main__":
    main()

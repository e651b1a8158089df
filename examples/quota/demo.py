"""`python examples/quota/demo.py`: fill a directory up to its limits, and make room again."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from stage import mounted, require, say, show, stage

HERE = Path(__file__).resolve().parent


def main() -> None:
    """Run the demo."""
    with stage() as on:
        alpha = on.source / "team" / "alpha"
        alpha.mkdir(parents=True)
        (alpha / "old").write_bytes(b"x" * 300_000)
        (on.source / "scratch").mkdir()
        with mounted(on, HERE / "quota.yaml", QUOTA_LIMITS=str(HERE / "limits.toml")) as mnt:
            show(HERE, "cat limits.toml")
            show(mnt, "df -k --output=size,used,avail team/alpha | tail -1")
            told = show(mnt, "dd if=/dev/zero of=team/alpha/new bs=64K count=100 2>&1 | head -1")
            require("quota exceeded" in told, "no more than fits")
            show(mnt, "stat -c '%n %s' team/alpha/*; df -k --output=avail team/alpha | tail -1")
            require((alpha / "old").stat().st_size + (alpha / "new").stat().st_size == 1 << 20,
                    "to the byte")  # fmt: skip
            say("removing makes room; files are limited, too:")
            show(mnt, "rm team/alpha/new && cd team/alpha && touch 2 3 4 5 6")
            show(mnt, "echo free > scratch/a && mv scratch/a team/ && ls team")
            say("who served what:", on.served("CREATE", "READ", "WRITE"))


if __name__ == "__main__":
    main()

"""`python examples/versions/demo.py`: change, replace and remove a file, and get it back."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from stage import mounted, require, say, show, stage, until

HERE = Path(__file__).resolve().parent


def main() -> None:
    """Run the demo."""
    with stage() as on:
        (on.source / "letter.txt").write_text("Dear Ada,\n")
        with mounted(on, HERE / "versions.yaml", VERSIONS_KEEP="3") as mnt:
            versions = mnt / ".versions" / "letter.txt"

            def kept(count: int) -> bool:
                return versions.is_dir() and len(list(versions.iterdir())) == count

            show(mnt, "echo 'Dear Ada, Sir,' > letter.txt")
            require(until(lambda: kept(1)), "a version of what was overwritten")
            show(mnt, "echo 'Dear Grace,' > letter.tmp && mv letter.tmp letter.txt")
            require(until(lambda: kept(2)), "a version of what was replaced")
            show(mnt, "rm letter.txt")
            require(until(lambda: kept(3)), "a version of what was removed")
            show(mnt, "tail -n +1 .versions/letter.txt/*")
            show(mnt, "rm .versions/letter.txt/*; echo mine > .versions/mine")
            require(kept(3), "history cannot be rewritten")
            newest = max(versions.iterdir()).name
            show(mnt, f"cp .versions/letter.txt/{newest} letter.txt && cat letter.txt")
            require((mnt / "letter.txt").read_text() == "Dear Grace,\n", "the letter is back")
            say("who served what:", on.served("OPEN", "READ", "WRITE"))
            require(not any(on.stats()["WRITE"].values()), "no WRITE reaches Python")


if __name__ == "__main__":
    main()

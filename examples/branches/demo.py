"""`python examples/branches/demo.py`: two branches of a tree; one is merged, one discarded."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from stage import Stage, inopt, require, say, show, stage

PROGRAM = Path(__file__).resolve().with_name("branches.py")


def branches(on: Stage, *words: str) -> None:
    """Run a command of the program, and print what it prints. Ends the demo if it fails."""
    say("$ branches", *(word.replace(f"{on.place}/", "") for word in words))
    command = [sys.executable, str(PROGRAM), "-C", str(on.place / "store"), *words]
    done = subprocess.run(command, capture_output=True, check=False, text=True)
    for line in done.stdout.splitlines():
        say(f"  {line}")
    if done.returncode:
        raise SystemExit(done.stderr.strip())


def main() -> None:
    """Run the demo."""
    with stage() as on:
        mnt, tree = str(on.mnt), on.source
        (tree / "poem").write_text("roses are red\n")
        (tree / "draft").write_text("nothing yet\n")
        branches(on, "init", str(tree))
        branches(on, "create", "violets")
        branches(on, "create", "tulips")
        branches(on, "switch", "violets", mnt)
        show(on.mnt, "echo violets are blue >> poem; rm draft; cat poem")
        branches(on, "switch", "tulips", mnt)
        show(on.mnt, "ls; echo tulips are yellow >> poem; cat poem")
        branches(on, "list")
        branches(on, "diff", "violets")
        before = on.stats()
        show(on.mnt, "md5sum poem")
        require(before["READ"] == on.stats()["READ"], "reads bypass")
        say("who served what:", on.served("READ", "WRITE"))
        inopt("umount", mnt)
        branches(on, "merge", "violets")
        branches(on, "discard", "tulips")
        branches(on, "discard", "violets")
        require((tree / "poem").read_text().endswith("violets are blue\n"), "one is merged")
        require(not (tree / "draft").exists(), "what it has removed is gone")
        show(tree, "ls; cat poem")


if __name__ == "__main__":
    main()

"""`python examples/overlay/demo.py`: change a tree that stays as it is; let the kernel see it."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from stage import Stage, mounted, require, say, show, stage

HERE = Path(__file__).resolve().parent
SIZE = 64 << 20
# What can be compared of a tree: directories are as large as their filesystem likes.
TREE = "find . -printf '%p %y %m %U:%G %l\\n' | sort; find . -type f -exec md5sum {} + | sort -k 2"


def make_layers(place: Path) -> None:
    """Two lower layers, a place for changes, and the policies beside them."""
    for name in ("base/etc", "base/doc", "patches/etc", "changes", "work"):
        (place / name).mkdir(parents=True)
    (place / "base/LICENSE").write_text("MIT\n")
    (place / "base/data").write_bytes(b"\xa5" * SIZE)
    (place / "base/doc/manual").write_text("how to\n")
    (place / "base/etc/hosts").write_text("127.0.0.1 localhost\n")
    (place / "base/etc/motd").write_text("welcome\n")
    (place / "patches/etc/motd").write_text("welcome, and mind the step\n")
    for name in ("overlay.yaml", "told.yaml", "told.py"):
        shutil.copy(HERE / name, place)


def tree(root: Path) -> str:
    """All of a tree, in lines."""
    done = subprocess.run(TREE, shell=True, cwd=root, capture_output=True, check=True, text=True)  # noqa: S602
    return done.stdout


def work(on: Stage) -> str:
    """Change this and that in the mount; returns what it is like then."""
    with mounted(on, on.place / "told.yaml", layers=True) as mnt:
        show(mnt, "ls . etc && cat etc/motd")
        before = on.stats()
        show(mnt, "md5sum data")
        after = on.stats()
        require(before["READ"] == after["READ"] or after["tier"] == "none", "lower files bypass")
        say("who served what:", on.served("OPEN", "READ", "WRITE"))
        show(mnt, "echo 10.0.0.1 build >> etc/hosts && rm etc/motd && rm -r doc && mkdir doc")
        show(mnt, "ls . etc doc; cat etc/hosts")
        show(mnt, "echo all mine >> LICENSE")
        require((mnt / "LICENSE").read_text() == "MIT\n", "the licence stays")
        for event in ("copied up", "hidden"):
            for record in on.records(event, seconds=5):
                say(f"{event}: {record['path']} of {record['layer']} by {record['comm']}")
        return tree(mnt)


def main() -> None:
    """Run the demo."""
    with stage() as on:
        make_layers(on.place)
        lower = tree(on.place / "base"), tree(on.place / "patches")
        ours = work(on)
        say("unmounted; the lower layers are as they were, and this is the upper one:")
        require(lower == (tree(on.place / "base"), tree(on.place / "patches")), "nothing changed")
        show(on.place, "find changes -printf '%P %y %s\\n' | sort")
        if "overlay" not in Path("/proc/filesystems").read_text().split():
            say("this kernel has no overlayfs to show the same with")
            return
        options = "lowerdir=patches:base,upperdir=changes,workdir=work"
        show(on.place, f"mount -t overlay overlay -o {options} mnt")
        try:
            require(tree(on.mnt) == ours, "the kernel's overlayfs shows the same tree")
            say("the kernel's overlayfs shows the same tree")
        finally:
            show(on.place, "umount mnt")


if __name__ == "__main__":
    main()

"""`python examples/redact/demo.py`: the same file as two users see it."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from stage import NOBODY, mounted, require, say, show, stage

HERE = Path(__file__).resolve().parent

GROUP = 4242
TEXT = """\
order,customer,card
1001,ada@example.org,4111 1111 1111 1111
1002,grace.hopper@mail.example.com,5500-0000-0000-0004
"""
MAP = f"""\
{sys.executable} -c '
import mmap, os
os.setgroups([]), os.setgid({NOBODY}), os.setuid({NOBODY})
with open("orders.csv", "rb") as file:
    print(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)[:].decode())'"""


def main() -> None:
    """Run the demo."""
    with stage() as on:
        (on.source / "orders.csv").write_text(TEXT)
        (on.source / "orders.csv").chmod(0o666)
        with mounted(on, HERE / "redact.yaml", REDACT_GROUP=str(GROUP)) as mnt:
            member = {"user": NOBODY, "group": NOBODY, "extra_groups": [GROUP]}
            other = {"user": NOBODY, "group": NOBODY, "extra_groups": []}
            say("a member of the group:")
            require(show(mnt, "cat orders.csv", **member) == TEXT.strip(), "members see all")
            say("anybody else, by read(2), by mmap(2), and trying to write:")
            require("4111" not in show(mnt, "cat orders.csv", **other), "others see the mask")
            require("1001,***" in show(mnt, MAP), "mappings show the mask")
            require("denied" in show(mnt, "echo 1003,,>>orders.csv", **other), "others read only")
            say("a member writes; the others see that, masked, at once:")
            show(mnt, "echo '1003,alan@example.net,4000 0000 0000 0002' >> orders.csv", **member)
            require("4000" not in show(mnt, "tail -1 orders.csv", **other), "masked again")


if __name__ == "__main__":
    main()

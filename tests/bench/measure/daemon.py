"""What inopt's daemon itself costs: memory per known inode, and processor time while idle."""

from __future__ import annotations

import time
from pathlib import Path

from bench.measure.contenders import INOPT_RW, Inopt, facts_of_inopt
from bench.measure.programs import Placement, on, run
from bench.measure.scratch import Scratch

MEMORY = "memory"
IDLE = "idle"


def bytes_per_inode(scratch: Scratch, placement: Placement) -> float:
    """Growth of resident memory, divided by the inodes that the daemon came to know."""
    names = scratch.make_inodes()
    with Inopt(INOPT_RW, "rw").mounted(scratch.inodes, scratch.mountpoint, placement) as root:
        before = facts_of_inopt(root)
        run(on(placement.client, [*scratch.client, "stat", str(root), str(names)]))
        after = facts_of_inopt(root)
    known = int(after["known_inodes"]) - int(before["known_inodes"])
    return (int(after["resident_bytes"]) - int(before["resident_bytes"])) / max(known, 1)


def idle_ticks(scratch: Scratch, placement: Placement) -> float:
    """Clock ticks (1/100 s) of processor time that an idle daemon uses in some seconds."""
    with Inopt(INOPT_RW, "rw").mounted(scratch.source, scratch.mountpoint, placement) as root:
        run([*scratch.client, "stat", str(root), str(scratch.opened)])
        pid = facts_of_inopt(root)["pid"]
        time.sleep(1)  # what happens once after the last request is not idleness
        before = processor_ticks(pid)
        time.sleep(scratch.sizes.idle_seconds)
        return float(processor_ticks(pid) - before)


def processor_ticks(pid: int) -> int:
    """Clock ticks of processor time that a process has used."""
    # After the name in parentheses: field 3 is the state, 14 and 15 are utime and stime (proc(5)).
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])

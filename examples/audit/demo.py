"""`python examples/audit/demo.py`: work in a directory, then read who did what."""

from __future__ import annotations

import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from stage import NOBODY, mounted, require, say, show, stage

HERE = Path(__file__).resolve().parent


def main() -> None:
    """Run the demo."""
    with stage() as on:
        (on.source / "report.txt").write_text("figures\n" * 100_000)
        (on.source / "report.txt").chmod(0o644)
        trail = on.place / "trail.jsonl"
        with mounted(on, HERE / "audit.yaml", AUDIT_LOG=str(trail)) as mnt:
            show(mnt, "md5sum report.txt")
            show(mnt, "echo more > notes.txt && mv notes.txt kept.txt && chmod 600 kept.txt")
            show(mnt, "echo mine > report.txt", user=NOBODY)
            show(mnt, "cat kept.txt; rm kept.txt")
            say("who served what:", on.served("OPEN", "READ", "WRITE"))
            stats = on.stats()
            require(not any(stats["READ"].values()), "no READ reaches Python")
            require(not any(stats["WRITE"].values()), "no WRITE reaches Python")
        say("the trail:")
        for line in trail.read_text().splitlines():
            record = json.loads(line)
            told = {key: value for key, value in record.items() if key not in ("time", "cgroup")}
            say(" ", json.dumps(told))


if __name__ == "__main__":
    main()

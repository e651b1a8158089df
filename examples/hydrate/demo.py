"""`python examples/hydrate/demo.py`: placeholders, first opens that wait, and then none that do."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from dehydrate import dehydrate
from stage import mounted, require, say, show, stage

HERE = Path(__file__).resolve().parent

SIZE = 4 << 20


def main() -> None:
    """Run the demo."""
    with stage() as on:
        store = on.place / "store"
        store.mkdir()
        for name in ("a.bin", "b.bin", "c.bin"):
            (on.source / name).write_bytes(os.urandom(SIZE))
            dehydrate(str(store), str(on.source / name))
        environment = {"HYDRATE_STORE": str(store), "HYDRATE_DELAY": "0.2"}
        with mounted(on, HERE / "hydrate.yaml", **environment) as mnt:
            show(mnt, "ls -ls")
            say("five readers of two files at once, each fetched once:")
            began = time.monotonic()
            files = ["a.bin", "a.bin", "a.bin", "b.bin", "b.bin"]
            readers = [
                subprocess.Popen(["cat", mnt / name], stdout=subprocess.DEVNULL) for name in files
            ]
            require(not any(reader.wait() for reader in readers), "all have read")
            say(f"  {time.monotonic() - began:.1f} s")
            require(len(on.records("fetching")) == 2, "two fetches")
            say("again:")
            began = time.monotonic()
            show(mnt, "cat a.bin b.bin | wc -c")
            say(f"  {time.monotonic() - began:.3f} s")
            say("Ctrl-C for one that waits:")
            waiting = subprocess.Popen(["cat", mnt / "c.bin"], stdout=subprocess.DEVNULL)
            on.records("fetching", seconds=5)
            time.sleep(0.2)
            began = time.monotonic()
            waiting.send_signal(signal.SIGINT)
            require(waiting.wait() == -signal.SIGINT, "it ends by the signal")
            say(f"  gone after {(time.monotonic() - began) * 1000:.0f} ms")
            say("what the log tells of the first fetch:")
            first = on.records("fetching")[0]["id"]
            for record in [*on.records("fetched"), *on.records("hydrated")]:
                if record["id"] == first:
                    say(" ", {key: record[key] for key in record if key not in ("id", "level")})
            say("who served what:", on.served("OPEN", "READ", "WRITE"))
            require(not any(on.stats()["READ"].values()), "no READ reaches Python")


if __name__ == "__main__":
    main()

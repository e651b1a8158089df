"""`python examples/transparent-zstd/demo.py`: what is written plain lies compressed, and back."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from stage import mounted, require, say, show, stage, until

HERE = Path(__file__).resolve().parent
SIZE = 16 << 20


def main() -> None:
    """Run the demo."""
    text = "".join(f"{number} bottles of beer\n" for number in range(SIZE // 20)).encode()[:SIZE]
    with stage() as on:
        below = on.source / "song.txt"
        with mounted(on, HERE / "zstd.yaml") as mnt:
            (mnt / "song.txt").write_bytes(text)
            require(until(lambda: below.stat().st_size < SIZE // 4), "it is compressed at close")
            say("through the mount, and underneath:")
            show(mnt, "ls -ls song.txt")
            show(on.source, "ls -ls song.txt")
            say("any part of it:")
            show(mnt, "tail -c 25 song.txt; grep -c beer song.txt")
            require((mnt / "song.txt").read_bytes() == text, "the same content")
            say("appending:")
            show(mnt, "echo 'no more bottles' >> song.txt && tail -n 2 song.txt")
            require(until(lambda: below.stat().st_size < SIZE // 4), "compressed again")
            show(on.source, "ls -ls song.txt; od -A d -c song.txt | head -1")
            say("who served what:", on.served("LOOKUP", "OPEN", "READ", "WRITE"))


if __name__ == "__main__":
    main()

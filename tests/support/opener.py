"""Opens the same few files over and over, in random ways: any error ends it.

Run as ``python -m support.opener DIRECTORY SEED SECONDS UID``; prints how often it went round.
"""

from __future__ import annotations

import mmap
import os
import random
import sys
import time

from support.worker import become

_BLOCK = 4096


def use(descriptor: int, flags: int, chance: random.Random) -> None:
    """Read, write or map, as the open allows."""
    access = flags & os.O_ACCMODE
    start = chance.randrange(4) * _BLOCK
    with mmap.mmap(-1, _BLOCK) as room, memoryview(room) as view:
        if access != os.O_WRONLY:
            os.preadv(descriptor, [view], start)
        if access != os.O_RDONLY:
            count = os.pwritev(descriptor, [view], start)
            assert count == _BLOCK, count
    if access == os.O_RDWR and chance.random() < 0.5 and os.fstat(descriptor).st_size:
        # A truncation by another process may cut the mapping: it is not touched.
        mmap.mmap(descriptor, 0).close()
    if access != os.O_RDONLY and chance.random() < 0.1:
        os.fsync(descriptor)
    os.lseek(descriptor, 0, os.SEEK_END)


def ways(chance: random.Random) -> int:
    """Flags of one open."""
    flags = chance.choice((os.O_RDONLY, os.O_WRONLY, os.O_RDWR, os.O_RDWR))
    if flags != os.O_RDONLY and chance.random() < 0.3:
        flags |= os.O_APPEND
    if flags != os.O_RDONLY and chance.random() < 0.2:
        flags |= os.O_TRUNC
    if chance.random() < 0.3:
        flags |= os.O_DIRECT
    if chance.random() < 0.3:
        flags |= os.O_CREAT
    return flags


def main() -> None:
    """Go round until the time is up."""
    home, seed, seconds = sys.argv[1], int(sys.argv[2]), float(sys.argv[3])
    become(int(sys.argv[4]), int(sys.argv[4]), [])
    os.chdir(home)
    chance = random.Random(seed)
    rounds = 0
    held: list[tuple[int, int]] = []
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        flags = ways(chance)
        path = str(chance.randrange(3))
        try:
            held.append((os.open(path, flags, 0o666), flags))
            use(*held[-1], chance)
            if held and chance.random() < 0.7:
                os.close(held.pop(chance.randrange(len(held)))[0])
            if len(held) > 8:
                for descriptor, _ in held:
                    os.close(descriptor)
                held.clear()
        except OSError as error:
            sys.exit(f"{path} with {flags:#o} of {held}: {error!r}")
        except ValueError:
            pass  # cut to nothing between fstat and mmap
        rounds += 1
    print(rounds)


if __name__ == "__main__":
    main()

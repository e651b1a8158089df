"""A client process: takes operations over a pipe, does them as some user, answers.

Run as ``python -m support.worker UID GID GROUP,GROUP``. Requests and answers are pickled tuples,
each after its length in 4 bytes. An `OSError` is an answer, too; anything else is a mistake of
the test, and is sent back as text.
"""

from __future__ import annotations

import errno
import os
import pickle
import sys
import traceback
from typing import Any, BinaryIO

from support.attack_operations import AttackOperations


def become(uid: int, gid: int, groups: list[int]) -> None:
    """Be that user for good."""
    os.setgroups(groups)
    os.setresgid(gid, gid, gid)
    os.setresuid(uid, uid, uid)
    os.umask(0o022)


def send(pipe: BinaryIO, value: Any) -> None:
    """Write one value."""
    data = pickle.dumps(value)
    pipe.write(len(data).to_bytes(4, "little") + data)
    pipe.flush()


def receive(pipe: BinaryIO) -> Any:
    """Read one value; raises `EOFError` at the end."""
    length = pipe.read(4)
    if len(length) < 4:
        raise EOFError
    return pickle.loads(pipe.read(int.from_bytes(length, "little")))  # noqa: S301 - our own


def name_of(number: int) -> str:
    """The name of an errno, by the one name that man pages use."""
    return "EOPNOTSUPP" if number == errno.EOPNOTSUPP else errno.errorcode.get(number, str(number))


def perform(operations: AttackOperations, name: str, arguments: tuple[Any, ...]) -> tuple[str, Any]:
    """One operation: ``ok`` with its result, ``errno`` with its name, or ``bug`` with text."""
    try:
        return "ok", getattr(operations, name)(*arguments)
    except OSError as error:
        if error.errno is None:
            return "bug", traceback.format_exc()
        return "errno", name_of(error.errno)
    except Exception:
        return "bug", traceback.format_exc()


def main() -> None:
    """Serve until the other end is closed."""
    uid, gid = int(sys.argv[1]), int(sys.argv[2])
    requests, answers = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # nothing else may write into the answers
    become(uid, gid, [int(group) for group in sys.argv[3].split(",") if group])
    operations = AttackOperations()
    operations.reset()
    while True:
        try:
            name, arguments = receive(requests)
        except EOFError:
            return
        send(answers, perform(operations, name, arguments))


if __name__ == "__main__":
    main()

"""Client processes as tests see them: `Client.open(...)` is an open(2) in another process."""

from __future__ import annotations

import os
import select
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from support.worker import receive, send

USER: Final = 1001
MEMBER: Final = 1002
TEAM: Final = 2000
TESTS: Final = Path(__file__).resolve().parent.parent
# In seconds; longer on a machine that is emulated.
_PATIENCE: Final = 60.0 * int(os.environ.get("INOPT_TEST_SLOWNESS", "1"))

# Who there is: uid, gid, supplementary groups. Two of a kind are two processes.
PEOPLE: Final[dict[str, tuple[int, int, tuple[int, ...]]]] = {
    "root": (0, 0, ()),
    "root2": (0, 0, ()),
    "user": (USER, USER, ()),
    "user2": (USER, USER, ()),
    "member": (MEMBER, MEMBER, (USER, TEAM)),
}


def _start_program(uid: int, gid: int, groups: tuple[int, ...]) -> Any:
    return subprocess.Popen(
        [
            sys.executable, "-m", "support.worker",
            str(uid), str(gid), ",".join(map(str, groups)),
        ],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd="/",
        env={**os.environ, "PYTHONPATH": str(TESTS)},
    )  # fmt: skip


# How a client process is started: see `support.forking`.
start_worker: Callable[[int, int, tuple[int, ...]], Any] = _start_program


class Errno(str):
    """The name of the errno that a call failed with."""

    __slots__ = ()

    def __repr__(self) -> str:
        return str(self)


class Client:
    """One process. Operations of `support.operations` are methods; a failed one is an `Errno`."""

    def __init__(self, name: str, watch: Callable[..., None] | None = None) -> None:
        uid, gid, groups = PEOPLE[name]
        self.name = name
        self.watch = watch
        self._pending: tuple[str, tuple[Any, ...]] | None = None
        self._process = start_worker(uid, gid, groups)

    def __getattr__(self, name: str) -> Callable[..., Any]:
        if name.startswith("_"):
            raise AttributeError(name)
        return lambda *arguments: self.call(name, *arguments)

    @property
    def runs(self) -> bool:
        """Whether the process is there."""
        return self._process.poll() is None

    def call(self, name: str, *arguments: Any) -> Any:
        """Do one operation; tells *watch* of it."""
        self.start(name, *arguments)
        return self.finish()

    def start(self, name: str, *arguments: Any) -> None:
        """Begin an operation that may block."""
        assert self._pending is None, f"{self.name} is busy with {self._pending}"
        assert self._process.stdin is not None
        self._pending = (name, arguments)
        send(self._process.stdin, self._pending)

    def blocked(self, seconds: float = 0.2) -> bool:
        """Whether the operation that was begun has no answer yet."""
        assert self._process.stdout is not None
        return not select.select([self._process.stdout], [], [], seconds)[0]

    def finish(self) -> Any:
        """The answer of the operation that was begun."""
        assert self._pending is not None, "nothing was begun"
        (name, arguments), self._pending = self._pending, None
        if self.blocked(_PATIENCE):
            self._process.kill()
            raise TimeoutError(f"{self.name}: {name}{arguments} hangs")
        assert self._process.stdout is not None
        kind, value = receive(self._process.stdout)
        if kind == "bug":
            raise AssertionError(f"{self.name}: {name}{arguments}:\n{value}")
        result = Errno(value) if kind == "errno" else value
        if self.watch is not None:
            self.watch(self.name, name, arguments, result)
        return result

    def end(self) -> None:
        """End the process."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        try:
            self._process.wait(5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()


class Clients:
    """The client processes by name, started when they are first needed."""

    def __init__(self) -> None:
        self._clients: dict[str, Client] = {}

    def get(self, name: str) -> Client:
        """The client of that name, a new process if it has died."""
        if name not in self._clients or not self._clients[name].runs:
            self._clients[name] = Client(name)
        return self._clients[name]

    def all(self) -> list[Client]:
        """Those that run."""
        return list(self._clients.values())

    def close(self) -> None:
        """End them all."""
        for client in self._clients.values():
            client.end()
        self._clients.clear()


@contextmanager
def clients() -> Iterator[Clients]:
    """Clients, ended afterwards."""
    made = Clients()
    try:
        yield made
    finally:
        made.close()

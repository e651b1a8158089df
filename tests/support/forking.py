"""The command and the clients as forks of one process that has imported everything once.

Starting Python and importing inopt is most of what a test of a mount would cost, and seconds
where memory is slow or the processor is emulated. The process that forks, the nursery, is itself
forked from the tests before they have done anything: small, with one thread, and with none of
their files open.
"""

from __future__ import annotations

import gc
import importlib
import io
import os
import pickle
import pkgutil
import runpy
import select
import signal
import socket
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from functools import cache, partial
from typing import BinaryIO, Final, NoReturn

from support import clients, mounting

_LONGEST: Final = 1 << 20  # bytes of a request
_NUMBER: Final = 4  # bytes of a pid, and of an exit code
_ROOMS: Final = ("cli", "session", "handlers", "layers", "layers.tools")


class Nursery:
    """The process that forks: asked over a socket, with the streams of the new process."""

    def __init__(self) -> None:
        self._socket, asked = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        sys.stdout.flush()
        sys.stderr.flush()
        if os.fork() == 0:
            _serve(asked)
        asked.close()

    def start(
        self, program: str, words: tuple[str, ...], cwd: str, environment: Mapping[str, str],
        streams: tuple[int, int, int],
    ) -> Fork:  # fmt: skip
        """A new process: *program*, ``module:function``, between three file descriptors."""
        news, telling = os.pipe()
        request = pickle.dumps((program, words, cwd, {**os.environ, **environment}))
        try:
            socket.send_fds(self._socket, [request], [*streams, telling])
        finally:
            os.close(telling)
        return Fork(news)


class Fork:
    """A process as `subprocess.Popen` would have it."""

    def __init__(self, news: int) -> None:
        self._news = os.fdopen(news, "rb", buffering=0)
        self._code: int | None = None
        self.stdin: BinaryIO | None = None
        self.stdout: BinaryIO | None = None
        self.pid = _number(self._news.read(_NUMBER))

    def poll(self) -> int | None:
        """The exit code, None while it runs."""
        return self._look(0)

    def wait(self, timeout: float | None = None) -> int:
        """Wait for its end. Raises `subprocess.TimeoutExpired`."""
        code = self._look(timeout)
        if code is None:
            raise subprocess.TimeoutExpired(str(self.pid), timeout or 0)
        return code

    def kill(self) -> None:
        """SIGKILL."""
        if self.poll() is None:
            os.kill(self.pid, signal.SIGKILL)

    def _look(self, timeout: float | None) -> int | None:
        if self._code is None and select.select([self._news], [], [], timeout)[0]:
            self._code = _number(self._news.read(_NUMBER))
            self._news.close()
        return self._code


def _number(data: bytes) -> int:
    if len(data) != _NUMBER:
        raise EOFError("the process that forks for the tests has ended")
    return int.from_bytes(data, "little", signed=True)


def _tell(news: int, number: int) -> None:
    with suppress(BrokenPipeError):  # nobody waits for it
        os.write(news, number.to_bytes(_NUMBER, "little", signed=True))


def _serve(asked: socket.socket) -> NoReturn:
    """Fork what is asked for, and tell how it ended, until the tests end."""
    keep = os.dup2(asked.detach(), 3)
    os.closerange(4, 4096)
    null = os.open(os.devnull, os.O_RDWR)
    for stream in range(3):
        os.dup2(null, stream)
    os.close(null)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    asked = socket.socket(fileno=keep)
    running: dict[int, int] = {}

    def reap(*_: object) -> None:
        while running:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if not pid:
                return
            news = running.pop(pid)
            _tell(news, os.waitstatus_to_exitcode(status))
            os.close(news)

    signal.signal(signal.SIGCHLD, reap)
    gc.collect()
    gc.freeze()
    while True:
        request, fds, _, _ = socket.recv_fds(asked, _LONGEST, 4)
        if not request:
            os._exit(0)
        # Not reaped before it is known.
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGCHLD})
        pid = os.fork()
        if pid == 0:
            _become(request, fds[:3])
        running[pid] = fds[3]
        _tell(fds[3], pid)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGCHLD})
        for fd in fds[:3]:
            os.close(fd)


def _become(request: bytes, streams: list[int]) -> NoReturn:
    code = 1
    try:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGCHLD})
        for target, stream in enumerate(streams):
            os.dup2(stream, target)
        os.closerange(3, 4096)
        sys.stdin, sys.stdout, sys.stderr = (
            io.TextIOWrapper(os.fdopen(number, mode), write_through=True)
            for number, mode in ((0, "rb"), (1, "wb"), (2, "wb"))
        )
        program, words, cwd, environment = pickle.loads(request)  # noqa: S301 - our own
        os.environ.clear()
        os.environ.update(environment)
        sys.path[:0] = filter(None, environment.get("PYTHONPATH", "").split(":"))
        os.chdir(cwd)
        sys.argv = [program, *words]
        module, _, function = program.partition(":")
        getattr(importlib.import_module(module), function)()
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def inopt() -> None:
    """The command."""
    from inopt.cli.main import main

    main()


def script() -> None:
    """A program in a file, which is the first word."""
    del sys.argv[0]
    sys.path.insert(0, os.path.dirname(sys.argv[0]))
    runpy.run_path(sys.argv[0], run_name="__main__")


def all_modules() -> Iterator[str]:
    """What commands import, some of it late."""
    for room in _ROOMS:
        package = importlib.import_module(f"inopt.{room}")
        for module in pkgutil.iter_modules(package.__path__):
            yield f"inopt.{room}.{module.name}"


@cache
def _nursery() -> Nursery:
    return Nursery()


def run(
    program: str, *words: str, cwd: os.PathLike[str] | str, timeout: float, **environment: str
) -> subprocess.CompletedProcess[str]:
    """Run ``module:function`` as `subprocess.run` would, its output captured."""
    with open(os.devnull, "rb") as null, tempfile.TemporaryFile() as out, \
            tempfile.TemporaryFile() as err:  # fmt: skip
        streams = null.fileno(), out.fileno(), err.fileno()
        fork = _nursery().start(program, words, str(cwd), environment, streams)
        try:
            code = fork.wait(timeout)
        finally:
            fork.kill()
        texts = []
        for file in (out, err):
            file.seek(0)
            texts.append(file.read().decode())
    return subprocess.CompletedProcess([program, *words], code, *texts)


def start_worker(uid: int, gid: int, groups: tuple[int, ...]) -> Fork:
    """A client process."""
    requests, to_worker = os.pipe()
    from_worker, answers = os.pipe()
    words = str(uid), str(gid), ",".join(map(str, groups))
    environment = {"PYTHONPATH": str(clients.TESTS)}
    streams = requests, answers, 2
    fork = _nursery().start("support.worker:main", words, "/", environment, streams)
    os.close(requests)
    os.close(answers)
    fork.stdin, fork.stdout = os.fdopen(to_worker, "wb"), os.fdopen(from_worker, "rb")
    return fork


def use_forks(modules: Iterable[str]) -> None:
    """From now on, for all tests of this process; *modules* are imported once, now."""
    for module in modules:
        importlib.import_module(module)
    _nursery()
    mounting.run_command = partial(run, "support.forking:inopt")
    clients.start_worker = start_worker

"""The command and the clients as forks of this process, where starting Python takes seconds.

That is the lab: its processor is emulated, and its files come over a wire.
"""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO, NoReturn

from support import clients, mounting, worker


class Fork:
    """A process as `subprocess.Popen` would have it: *main* between two pipes, or two files."""

    def __init__(self, main: Callable[[], int], stdin: int, stdout: int, stderr: int) -> None:
        sys.stdout.flush()
        sys.stderr.flush()
        self._code: int | None = None
        self.stdin: BinaryIO | None = None
        self.stdout: BinaryIO | None = None
        self.pid = os.fork()
        if self.pid == 0:
            _become(main, stdin, stdout, stderr)

    def poll(self) -> int | None:
        """The exit code, None while it runs."""
        if self._code is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self._code = os.waitstatus_to_exitcode(status)
        return self._code

    def wait(self, timeout: float) -> int:
        """Wait for its end. Raises `subprocess.TimeoutExpired`."""
        deadline = time.monotonic() + timeout
        while (code := self.poll()) is None:
            if time.monotonic() > deadline:
                raise subprocess.TimeoutExpired(str(self.pid), timeout)
            time.sleep(0.002)
        return code

    def kill(self) -> None:
        """SIGKILL."""
        if self.poll() is None:
            os.kill(self.pid, signal.SIGKILL)


def _become(main: Callable[[], int], *streams: int) -> NoReturn:
    code = 1
    try:
        copies = [os.dup(stream) for stream in streams]
        for target, copy in enumerate(copies):
            os.dup2(copy, target)
        os.closerange(3, 4096)
        sys.stdin, sys.stdout, sys.stderr = (
            io.TextIOWrapper(os.fdopen(number, mode), write_through=True)
            for number, mode in ((0, "rb"), (1, "wb"), (2, "wb"))
        )
        code = main()
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def run_inopt(
    *arguments: str, cwd: Path | str, timeout: float, **environment: str
) -> subprocess.CompletedProcess[str]:
    """Like the command of that name; whatever it imports, this process has imported before."""
    from inopt.cli.main import main

    def command() -> int:
        os.environ.update(environment)
        sys.path[:0] = environment.get("PYTHONPATH", "").split(":")
        os.chdir(cwd)
        sys.argv = ["inopt", *arguments]
        main()
        return 0

    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        null = os.open(os.devnull, os.O_RDWR)
        fork = Fork(command, null, out.fileno(), err.fileno())
        os.close(null)
        try:
            code = fork.wait(timeout)
        finally:
            fork.kill()
        texts = []
        for file in (out, err):
            file.seek(0)
            texts.append(file.read().decode())
    return subprocess.CompletedProcess(["inopt", *arguments], code, *texts)


def start_worker(uid: int, gid: int, groups: tuple[int, ...]) -> Fork:
    """A client process."""
    requests, to_worker = os.pipe()
    from_worker, answers = os.pipe()

    def serve() -> int:
        sys.argv = ["worker", str(uid), str(gid), ",".join(map(str, groups))]
        worker.main()
        return 0

    fork = Fork(serve, requests, answers, 2)
    os.close(requests)
    os.close(answers)
    fork.stdin, fork.stdout = os.fdopen(to_worker, "wb"), os.fdopen(from_worker, "rb")
    return fork


def use_forks() -> None:
    """From now on, for all tests of this process."""
    mounting.run_command = run_inopt
    clients.start_worker = start_worker

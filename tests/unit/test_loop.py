"""The readers without a kernel: requests come from a socket that keeps their borders."""

from __future__ import annotations

import ctypes
import errno
import signal
import socket
import struct
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from inopt.backing.attach import Attachments
from inopt.backing.tree import Tree
from inopt.handlers.placement import Placement
from inopt.handlers.serve import Context, operations
from inopt.kernel.device import Device
from inopt.kernel.dialects import PLAIN
from inopt.ops import Op, OpsMask
from inopt.policy.compiled import CompiledPolicy
from inopt.policy.load import parse_policy
from inopt.policy.model import Cache
from inopt.policy.rules import compile_rules
from inopt.session.loop import INTERRUPT_SIGNAL, Loop
from inopt.session.serving import Server
from inopt.wire import bodies
from inopt.wire.bodies import Header
from inopt.wire.kernel_side import encode_request
from inopt.wire.requests import Decoder

_ROOT = 1
_OUT_HEADER = struct.Struct("<IiQ")


class Kernel:
    """The other end: sends requests, receives replies."""

    def __init__(self, source: Path) -> None:
        self.ended = threading.Event()
        self._socket, daemon = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._socket.settimeout(60)
        tree = Tree(str(source), 256)
        rules = compile_rules(parse_policy(b"version: 1", "mirror.yaml"))
        policy = CompiledPolicy(rules, reads_and_writes=False, kernel=OpsMask())
        context = Context(
            tree, Placement(policy, tree), Attachments(), PLAIN, Cache(), lambda _: None
        )
        self.table = operations(context)
        device = Device(daemon.detach())
        self.server = Server(device, Decoder(45), context, self.table)
        self.loop = Loop(self.server, 4, self.ended.set)
        self.loop.start()

    def send(self, unique: int, opcode: Op, body: bodies.Body, nodeid: int = _ROOT) -> None:
        self._socket.send(encode_request(opcode, unique, nodeid, body))

    def send_bytes(self, request: bytes) -> None:
        self._socket.send(request)

    def close(self) -> None:
        """End the session, as an unmount does."""
        self._socket.close()
        assert self.ended.wait(240)
        assert self.loop.join(60)
        self.server.context.close()
        self.server.device.close()

    def receive(self) -> tuple[int, int, bytes]:
        """The next reply: its unique, its errno and its payload."""
        reply = self._socket.recv(1 << 21)
        _, number, unique = _OUT_HEADER.unpack_from(reply)
        return unique, -number, reply[_OUT_HEADER.size :]


@pytest.fixture
def kernel(tmp_path: Path) -> Iterator[Kernel]:
    earlier = signal.signal(INTERRUPT_SIGNAL, lambda *_: None)
    made = Kernel(tmp_path)
    try:
        yield made
    finally:
        made.close()
        signal.signal(INTERRUPT_SIGNAL, earlier)


def wait_for_a_signal(_header: Header, _body: bodies.Body) -> bytes:
    libc = ctypes.CDLL(None, use_errno=True)
    libc.pause()
    raise OSError(ctypes.get_errno(), "interrupted")


def test_an_interrupt_ends_the_system_call_of_its_request(kernel: Kernel) -> None:
    kernel.table[Op.STATFS] = wait_for_a_signal
    kernel.send(7, Op.STATFS, bodies.Statfs())
    # The only reader is stuck: another one must come to read the INTERRUPT.
    kernel.send(9, Op.INTERRUPT, bodies.Interrupt(7))
    assert kernel.receive() == (7, errno.EINTR, b"")


def test_an_interrupt_of_what_has_ended_is_ignored(kernel: Kernel) -> None:
    kernel.send(9, Op.INTERRUPT, bodies.Interrupt(7))
    kernel.send(11, Op.GETATTR, bodies.Getattr(0, 0))
    unique, number, payload = kernel.receive()
    assert (unique, number) == (11, 0)
    assert payload


def test_a_failing_function_answers_eio_and_the_loop_goes_on(kernel: Kernel) -> None:
    def fail(_header: Header, _body: bodies.Body) -> bytes:
        raise ZeroDivisionError("a bug")

    kernel.table[Op.STATFS] = fail
    kernel.send(7, Op.STATFS, bodies.Statfs())
    assert kernel.receive() == (7, errno.EIO, b"")
    kernel.send(9, Op.GETATTR, bodies.Getattr(0, 0))
    assert kernel.receive()[:2] == (9, 0)


def test_what_cannot_be_decoded_is_answered(kernel: Kernel) -> None:
    truncated = bytearray(encode_request(Op.READ, 5, _ROOT, bodies.Read(1, 0, 4096, 0, 0, 0)))[:50]
    struct.pack_into("<I", truncated, 0, len(truncated))
    kernel.send_bytes(bytes(truncated))
    assert kernel.receive() == (5, errno.EINVAL, b"")
    unknown = struct.pack("<IIQQIIII", 40, 999, 6, _ROOT, 0, 0, 0, 0)
    kernel.send_bytes(unknown)
    assert kernel.receive() == (6, errno.ENOSYS, b"")
    kernel.send_bytes(b"not a request")
    kernel.send(8, Op.GETATTR, bodies.Getattr(0, 0))
    assert kernel.receive()[:2] == (8, 0)


def test_forgets_are_not_answered(kernel: Kernel) -> None:
    kernel.send(3, Op.FORGET, bodies.Forget(1), nodeid=77)
    kernel.send(5, Op.BATCH_FORGET, bodies.BatchForget([(77, 1)]))
    kernel.send(7, Op.LOOKUP, bodies.Lookup(b"missing"))
    assert kernel.receive() == (7, errno.ENOENT, b"")

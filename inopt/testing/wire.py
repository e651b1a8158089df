"""The fake kernel's end of the socket: requests out, replies and notifications in."""

from __future__ import annotations

import os
import socket
from typing import Final

import msgspec
import trio

from inopt.ops import NO_REPLY, Op
from inopt.wire import bodies
from inopt.wire.kernel_side import Reply, decode_reply, encode_request
from inopt.wire.uapi import HIGHEST_MINOR, KERNEL_VERSION, NotifyCode

# A request is one packet, and sockets take packets of 200 KB without privileges.
LARGEST: Final = 128 << 10
_PACKET: Final = LARGEST + (8 << 10)
_SLOWEST: Final = 30.0  # seconds without an answer are a hang


class Caller(msgspec.Struct, frozen=True):
    """Who makes a request. By default, root's process 1."""

    uid: int = 0
    gid: int = 0
    pid: int = 1


class Answer:
    """The answer to one request, which may not have come yet."""

    def __init__(self, unique: int) -> None:
        self.unique = unique
        self._came = trio.Event()
        self._reply: Reply | None = None

    @property
    def has_come(self) -> bool:
        """Whether it is there."""
        return self._came.is_set()

    def set(self, reply: Reply) -> None:
        """It has come."""
        self._reply = reply
        self._came.set()

    async def payload(self) -> bytes:
        """Wait for it. Raises `OSError` with the errno that was answered."""
        with trio.move_on_after(_SLOWEST):
            await self._came.wait()
        if self._reply is None:
            raise TimeoutError(f"no answer to request {self.unique} in {_SLOWEST:.0f} seconds")
        if self._reply.error:
            number = -self._reply.error
            raise OSError(number, os.strerror(number))
        return self._reply.payload


class Wire:
    """Requests and replies over a socket that keeps their borders.

    ``notifications``: what the session has told, as code and payload.
    """

    def __init__(self) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        for end in (ours, theirs):
            end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 2 * _PACKET)
        self.session_end: int = theirs.detach()
        self.minor = HIGHEST_MINOR
        self.setxattr_ext = True
        self.notifications: list[tuple[NotifyCode, bytes]] = []
        self._stdlib = ours
        self._socket = trio.socket.from_stdlib_socket(ours)
        self._answers: dict[int, Answer] = {}
        self._unique = 2

    def offer(self, flags: int) -> None:
        """Begin, as a kernel that offers *flags* (`InitFlag`); the answer comes to `receive`."""
        body = bodies.Init(KERNEL_VERSION, self.minor, 128 << 10, flags)
        self._answers[self._unique] = Answer(self._unique)
        self._stdlib.send(encode_request(Op.INIT, self._unique, 0, body))

    async def receive(self) -> None:
        """Take what the session writes until it has ended."""
        while True:
            try:
                message = await self._socket.recv(_PACKET)
            except (OSError, trio.ClosedResourceError):
                return  # closed
            if not message:
                return
            reply = decode_reply(message)
            if not reply.unique:
                self.notifications.append((NotifyCode(reply.error), reply.payload))
            elif answer := self._answers.pop(reply.unique, None):
                answer.set(reply)

    async def send(self, opcode: Op, nodeid: int, body: bodies.Body, caller: Caller) -> Answer:
        """Send a request. Some (FORGET, INTERRUPT) are never answered."""
        self._unique += 2
        answer = Answer(self._unique)
        if opcode not in NO_REPLY and opcode != Op.INTERRUPT:
            self._answers[self._unique] = answer
        message = encode_request(
            opcode, self._unique, nodeid, body, caller.uid, caller.gid, caller.pid,
            minor=self.minor, setxattr_ext=self.setxattr_ext,
        )  # fmt: skip
        await self._socket.send(message)
        return answer

    async def send_bytes(self, message: bytes) -> None:
        """Send what need not be a request."""
        await self._socket.send(message)

    def expect(self, unique: int) -> Answer:
        """The answer to a request that was sent with `send_bytes`; call it before."""
        answer = self._answers[unique] = Answer(unique)
        return answer

    def end(self) -> None:
        """End the session, as an unmount does."""
        self._stdlib.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        """Close this end, once the session has ended."""
        self._socket.close()

"""Notifications that may be held up: each holds up only what is about the same inode."""

from __future__ import annotations

import threading
import time

import pytest
from support.notifications import Kernel, Message
from support.waiting import within

from inopt.session.telling import MOST_TELLERS, Tellers
from inopt.wire import notifications


@pytest.fixture
def kernel(monkeypatch: pytest.MonkeyPatch) -> Kernel:
    return Kernel(monkeypatch)


def test_what_is_held_up_holds_up_nothing_else(kernel: Kernel) -> None:
    told: list[bytes] = []
    tellers = Tellers(kernel.device, told.extend)
    release = threading.Event()

    def hold(message: Message) -> None:
        if message[1] < 4:
            assert release.wait(240)

    kernel.hold = hold

    def name(nodeid: int, text: bytes) -> bytes:
        return notifications.invalidate_entry(nodeid, text)

    tellers.tell(1, [name(1, b"a"), name(1, b"b")])
    within(lambda: not tellers.behind)
    for nodeid in (1, 2, 3, 4, 5):
        tellers.tell(nodeid, [name(nodeid, b"a"), name(nodeid, b"b")])

    def four_are_told() -> bool:
        tellers.help()
        return len(kernel.written) >= 4

    assert within(four_are_told)
    both = [("name", nodeid, text) for nodeid in (4, 5) for text in (b"a", b"b")]
    assert kernel.wait(4) == both
    assert tellers.behind, "more about the first one waits for it"
    release.set()
    assert len(kernel.wait(8)) == 8
    assert not tellers.behind
    assert tellers.close(5)
    assert len(told) == 12


def test_all_tellers_held_up(kernel: Kernel) -> None:
    tellers = Tellers(kernel.device, lambda _: None)
    release = threading.Event()
    kernel.hold = lambda _: assert_(release.wait(240))
    for nodeid in range(50):
        tellers.tell(nodeid, [notifications.invalidate_inode(nodeid, 0, 0)])
    before = threading.active_count()
    for _ in range(50):
        tellers.help()
        time.sleep(0.002)
    assert threading.active_count() - before < MOST_TELLERS
    assert not tellers.close(0.1), "they are held up"
    release.set()
    assert tellers.close(5)
    assert len(kernel.written) <= MOST_TELLERS, "what waited is dropped"


def assert_(value: bool) -> None:
    assert value

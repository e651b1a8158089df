"""Who reads requests sleeps or looks out for the next one, by how fast they come."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from inopt.session.attention import LOOK, MOMENT, Attention, running_threads


class Scene:
    """A pipe to read from, with a clock that only moves as it is told."""

    def __init__(self) -> None:
        self.reading, self.writing = os.pipe()
        os.set_blocking(self.reading, False)
        self.now = 100.0
        self.looks = 0
        self.comes_after = 0
        self.running = 1
        self.attention = Attention(self.reading, self.poll, lambda: self.now, lambda: self.running)

    def poll(self, milliseconds: int) -> list[tuple[int, int]]:
        assert milliseconds == 0
        self.looks += 1
        self.now += MOMENT / 10
        if self.looks < self.comes_after:
            return []
        self.send()
        return [(self.reading, 1)]

    def send(self) -> None:
        os.write(self.writing, b"request")

    def read(self) -> int:
        return self.attention.read([bytearray(10)])


@pytest.fixture
def scene(monkeypatch: pytest.MonkeyPatch) -> Iterator[Scene]:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _pid: {0, 1})
    made = Scene()
    yield made
    os.close(made.reading)
    os.close(made.writing)


def test_requests_one_after_the_other(scene: Scene) -> None:
    scene.send()
    assert scene.read() == 7
    assert (scene.attention.is_awake, scene.looks) == (True, 0), "it came at once"
    scene.comes_after = 4
    assert scene.read() == 7
    assert (scene.attention.is_awake, scene.looks) == (True, 4)


def test_nothing_comes_for_a_moment(scene: Scene) -> None:
    scene.attention.is_awake = True
    scene.comes_after = 1000
    with pytest.raises(BlockingIOError):  # where it sleeps, were the pipe a blocking one
        scene.read()
    assert 5 < scene.looks < 15
    assert not scene.attention.is_awake
    looked = scene.looks
    with pytest.raises(BlockingIOError):
        scene.read()
    assert scene.looks == looked, "only once, until requests come fast again"


def test_a_long_sleep(scene: Scene) -> None:
    scene.attention.woken(scene.now - 2 * MOMENT)
    assert not scene.attention.is_awake
    scene.attention.woken(scene.now - MOMENT / 2)
    assert scene.attention.is_awake


def test_reading_without_blocking(scene: Scene) -> None:
    with pytest.raises(BlockingIOError):
        scene.attention.read_now([bytearray(10)])
    assert scene.looks == 0
    scene.attention.is_awake = True
    assert scene.attention.read_now([bytearray(10)]) == 7
    assert scene.looks == 1


def test_one_processor_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _pid: {0})
    scene = Scene()
    scene.send()
    assert scene.read() == 7
    assert not scene.attention.is_awake, "the client could not ask meanwhile"


def test_others_have_work_for_this_processor(scene: Scene) -> None:
    scene.running = 2
    scene.send()
    assert scene.read() == 7
    assert not scene.attention.is_awake
    scene.running = 1
    scene.attention.woken(scene.now)
    assert not scene.attention.is_awake, "nobody has looked yet"
    scene.now += LOOK
    scene.attention.woken(scene.now)
    assert scene.attention.is_awake


def test_work_that_comes_while_it_is_awake(scene: Scene) -> None:
    scene.send()
    scene.read()
    scene.running = 2
    assert scene.read() == 7
    assert scene.attention.is_awake, "nobody has looked yet"
    scene.now += LOOK
    assert scene.read() == 7
    assert (scene.attention.is_awake, scene.looks) == (False, 2)


def test_this_thread_runs() -> None:
    assert running_threads() >= 1

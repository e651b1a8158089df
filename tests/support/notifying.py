"""Mounts under ``coherence: notify``, and how soon something shows in them."""

from __future__ import annotations

import stat
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from inopt.session import asking
from support.mounting import Mount, mounted
from support.programs import socket_of
from support.waiting import within

POLICY: Final = "version: 1\ncache: {coherence: notify, negative: 1h}\n"
NO_FANOTIFY: Final = {"INOPT_NO_FANOTIFY": "1"}
TYPICAL: Final = 0.1  # seconds


def policy_in(place: Path, text: str = POLICY) -> Path:
    (place / "policy.yaml").write_text(text)
    return place / "policy.yaml"


def environment(kind: str) -> dict[str, str]:
    return {} if kind == "fanotify" else NO_FANOTIFY


@contextmanager
def notified(place: Path, way: str) -> Iterator[Mount]:
    """A mount in *place* by a tier and a watch, such as ``rw-inotify``."""
    tier, kind = way.split("-")
    with mounted(
        place / "src",
        place / "mnt",
        "--tier",
        tier,
        policy=policy_in(place),
        environment=environment(kind),
    ) as mount:
        assert mount.stats()["coherence"] == kind
        yield mount


def reload(mount: Mount) -> None:
    """Have the policy read again."""
    asking.ask(str(socket_of(mount)), "reload", 60)


def requests(mount: Mount) -> int:
    """How many lookups and questions for attributes have reached the daemon."""
    told = mount.stats()
    return sum(told[name]["daemon"] for name in ("LOOKUP", "GETATTR", "READDIRPLUS"))


def shows(check: Callable[[], bool]) -> float:
    """The seconds until *check* comes true."""
    began = time.monotonic()
    assert within(check), "not seen"
    return time.monotonic() - began


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def size(path: Path) -> int:
    return path.stat().st_size


def mtime(path: Path) -> float:
    return path.stat().st_mtime


def links(path: Path) -> int:
    return path.stat().st_nlink

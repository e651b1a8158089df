"""docs/handlers.md says what is the case: its reference is made from docstrings, its code runs.

``python tests/unit/test_handlers_docs.py`` writes the reference anew.
"""

from __future__ import annotations

import errno
import fcntl
import inspect
import os
import re
import select
import sys
import textwrap
from pathlib import Path
from types import ModuleType
from typing import Any, Final

import pytest

import inopt
from inopt.handlers.base import Handlers
from inopt.handlers.daemon import Daemon
from inopt.handlers.reach import Backing, RequestInfo, SessionReach
from inopt.policy.load import load_policy
from inopt.testing import fake_mount

PATH: Final = Path(inopt.__file__).parent.parent / "docs/handlers.md"
_MARKS: Final = ("<!-- reference -->\n", "<!-- /reference -->")
_PARTS: Final[tuple[tuple[str, type], ...]] = (
    ("Methods to override", Handlers),
    ("`self.backing`: the files below", Backing),
    ("`self.session`: the mount", SessionReach),
)


def reference() -> str:
    """The tables of methods, by the first sentence of each docstring."""
    lines = []
    for title, owner in _PARTS:
        lines += [f"### {title}", "", "| method | what it does |", "|---|---|"]
        for name, value in vars(owner).items():
            if not name.startswith("_") and inspect.isfunction(value):
                lines.append(f"| `{name}({_parameters(value)})` | {_summary(value)} |")
        lines.append("")
    extra = [name for name in _public(Daemon) if name not in vars(Handlers)]
    lines.append(
        "`self.daemon` has the methods of `Handlers` as plain functions, and "
        + ", ".join(f"`{name}({_parameters(getattr(Daemon, name))})`" for name in extra)
        + f": {_summary(Daemon.entries)}"
    )
    fields = ", ".join(f"`{name}`" for name in RequestInfo.__struct_fields__)
    lines.append(f"`session.request()` has {fields}.")
    return "\n".join(lines) + "\n"


def _public(owner: type) -> list[str]:
    hidden = ("function",)
    return [
        name
        for name, value in vars(owner).items()
        if not name.startswith("_") and inspect.isfunction(value) and name not in hidden
    ]


def _parameters(function: Any) -> str:
    function = inspect.unwrap(function)
    names = []
    for name, parameter in list(inspect.signature(function).parameters.items())[1:]:
        if parameter.kind is parameter.KEYWORD_ONLY and "*" not in names:
            names.append("*")
        default = "" if parameter.default is parameter.empty else f"={_short(parameter.default)}"
        names.append(name + default)
    return ", ".join(names)


def _short(value: object) -> str:
    return f"0o{value:o}" if value == 0o600 else str(value)


def _summary(function: Any) -> str:
    text = " ".join((inspect.getdoc(inspect.unwrap(function)) or "").split("\n\n")[0].split())
    return text.replace("``", "`").replace("|", "\\|")


def test_the_reference_is_in_sync() -> None:
    text = PATH.read_text(encoding="utf-8")
    assert text.partition(_MARKS[0])[2].partition(_MARKS[1])[0] == "\n" + reference() + "\n", (
        f"run: python {Path(__file__).name}"
    )
    assert len(text.splitlines()) <= 300


def _blocks(language: str) -> list[str]:
    text = PATH.read_text(encoding="utf-8")
    return re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)


def _upper(code: str) -> Handlers:
    module = ModuleType("upper")
    exec("from inopt import Handlers\n" + code, vars(module))  # noqa: S102 - our own docs
    made: Handlers = vars(module)["Upper"]()
    return made


async def test_the_first_examples(tmp_path: Path) -> None:
    codes = [code for code in _blocks("python") if "class Upper" in code]
    assert len(codes) == 2
    (tmp_path / "policy.yaml").write_text(_blocks("yaml")[0])
    (tmp_path / "a.txt").write_text("hello")
    (tmp_path / "b").write_text("hello")
    assert load_policy(str(tmp_path / "policy.yaml")).policy.handlers == "upper:Upper"
    for code in codes:
        policy = str(tmp_path / "policy.yaml")
        async with fake_mount(_upper(code), source=tmp_path, policy=policy) as kernel:
            for name, expected in ((b"a.txt", b"HELLO"), (b"b", b"hello")):
                inode = (await kernel.lookup(1, name)).nodeid
                opened = await kernel.open(inode)
                assert await kernel.read(opened.handle, 0, 100, nodeid=inode) == expected


async def test_the_example_of_a_test(tmp_path: Path) -> None:
    codes = _blocks("python")
    (code,) = [code for code in codes if "def test_upper" in code]
    space: dict[str, Any] = {"Upper": type(_upper(codes[0]))}
    exec(code, space)  # noqa: S102 - our own docs
    await space["test_upper"](tmp_path)


def _example(name: str) -> Handlers:
    """The handlers of an example that is one method."""
    (code,) = [each for each in _blocks("python") if re.match(rf"(async )?def {name}\(", each)]
    space: dict[str, Any] = {
        "Handlers": Handlers, "FUSEError": inopt.FUSEError, "readdir_reply": inopt.readdir_reply,
        "errno": errno, "fcntl": fcntl, "select": select,
    }  # fmt: skip
    exec("class Example(Handlers):\n" + textwrap.indent(code, "    "), space)  # noqa: S102 - ours
    made: Handlers = space["Example"]()
    return made


async def test_the_example_of_a_listing(tmp_path: Path) -> None:
    names = [b"%d" % number for number in range(100)]
    for name in [*names, b".#hidden"]:
        (tmp_path / name.decode()).touch()
    async with fake_mount(_example("readdir"), source=tmp_path) as kernel:
        assert await kernel.listdir() == sorted(names)
        handle = (await kernel.opendir()).handle
        found: list[Any] = []
        while page := await kernel.readdirplus(
            handle, found[-1].dirent.next_offset if found else 0
        ):
            found += page
        listed = {each.dirent.name: each.entry.nodeid for each in found}
        assert set(listed) == {*names, b".", b".."}
        await kernel.batch_forget([(nodeid, 1) for nodeid in listed.values() if nodeid])
        await kernel.statfs()
        assert kernel.session.stats()["known_inodes"] == 1


async def test_the_example_of_locks(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    async with fake_mount(_example("setlk"), source=tmp_path) as kernel:
        inode = (await kernel.lookup(1, b"file")).nodeid
        handle = (await kernel.open(inode, os.O_RDWR)).handle
        lock = inopt.Lock(fcntl.F_WRLCK, 0, 0, 1, 1)
        await kernel.setlk(handle, lock, nodeid=inode)
        with pytest.raises(PermissionError):
            await kernel.by(1001).setlk(handle, lock, nodeid=inode)


async def test_the_example_of_poll(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    handlers: Any = _example("poll")
    handlers.waiting, handlers.letters = {}, {}
    async with fake_mount(handlers, source=tmp_path) as kernel:
        inode = (await kernel.lookup(1, b"file")).nodeid
        handle = (await kernel.open(inode)).handle
        assert await kernel.poll(handle, select.POLLIN, nodeid=inode, waiter=7) == 0
        handlers.letters[inode] = "letter"
        handlers.waiting.pop(inode).notify()
        assert await kernel.poll(handle, select.POLLIN, nodeid=inode) == select.POLLIN
        assert [code.name for code, _ in kernel.notifications] == ["POLL"]


if __name__ == "__main__":
    old = PATH.read_text(encoding="utf-8")
    before, _, rest = old.partition(_MARKS[0])
    after = rest.partition(_MARKS[1])[2]
    PATH.write_text(f"{before}{_MARKS[0]}\n{reference()}\n{_MARKS[1]}{after}", encoding="utf-8")
    sys.exit(0)

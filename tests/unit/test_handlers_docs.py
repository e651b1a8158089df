"""docs/handlers.md says what is the case: its reference is made from docstrings, its code runs.

``python tests/unit/test_handlers_docs.py`` writes the reference anew.
"""

from __future__ import annotations

import inspect
import re
import sys
from pathlib import Path
from types import ModuleType
from typing import Any, Final

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


if __name__ == "__main__":
    old = PATH.read_text(encoding="utf-8")
    before, _, rest = old.partition(_MARKS[0])
    after = rest.partition(_MARKS[1])[2]
    PATH.write_text(f"{before}{_MARKS[0]}\n{reference()}\n{_MARKS[1]}{after}", encoding="utf-8")
    sys.exit(0)

"""The house: an import may only point down the list of rooms (docs/architecture.md)."""

import ast
from pathlib import Path

import pytest

import inopt

PACKAGE = Path(inopt.__file__).parent
# From the ground up. What stands on one line may not import each other either.
FLOORS = [
    {"_version", "exceptions", "ops", "syscalls"},
    {"wire"},
    {"kernel"},
    {"backing"},
    {"layers"},
    {"policy"},
    {"handlers"},
    {"session"},
    {"cli", "testing"},
    {"__main__"},
]
FLOOR_OF = {room: number for number, rooms in enumerate(FLOORS) for room in rooms}
FILES = sorted(PACKAGE.rglob("*.py"))


def room_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imported_rooms(path: Path) -> set[str]:
    rooms = set()
    for node in ast.walk(ast.parse(path.read_text())):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute here"
            module = node.module or ""
            names = [module] if module != "inopt" else [f"inopt.{a.name}" for a in node.names]
        rooms |= {name.split(".")[1] for name in names if name.startswith("inopt.")}
    return rooms


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_point_down(path: Path) -> None:
    room = room_of(path)
    if room == "__init__":
        return
    for other in imported_rooms(path) - {room}:
        assert FLOOR_OF[other] < FLOOR_OF[room], f"{path}: {room} may not import {other}"


def test_every_room_is_on_a_floor() -> None:
    assert {room_of(path) for path in FILES} - {"__init__"} == set(FLOOR_OF)


def test_only_ops_knows_opcode_numbers() -> None:
    for path in FILES:
        if path.name != "ops.py":
            assert "class Op(" not in path.read_text()

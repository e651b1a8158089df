"""A tree of places and the plain values beside it, built from YAML parser events.

Nothing here recurses, and what nests too deeply or grows too large through aliases is refused
before it is built.
"""

from __future__ import annotations

from typing import Any, Final, NoReturn

import yaml

from inopt.policy.text.problems import Place, PolicyError, Problem, Problems, shown
from inopt.policy.text.scalars import TEXT_TAGS, plain_value
from inopt.policy.text.yaml_errors import not_yaml, place_in

_LOADER: Final[Any] = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_DEEPEST: Final = 50
_HEAVIEST: Final = 1_000_000  # values, aliases expanded
_WEIGHTY_TEXT: Final = 32  # characters that weigh as much as one value more


class Node:
    """Where a value stands, and where what is in it."""

    __slots__ = ("children", "column", "key", "line", "text")

    def __init__(self, event: Any) -> None:
        mark = event.start_mark
        self.line: int = mark.line + 1
        self.column: int = mark.column + 1
        self.key: tuple[int, int] | None = None
        self.children: dict[str, Node] | list[Node] | None = None
        self.text: str | None = None

    def child(self, step: str | int) -> Node | None:
        """What is in it by key, by index, or a word of a list by itself."""
        children = self.children
        if isinstance(children, dict):
            return children.get(step) if isinstance(step, str) else None
        if children is None:
            return None
        if isinstance(step, int):
            return children[step] if 0 <= step < len(children) else None
        return next((each for each in children if each.text == step), None)


class _Open:
    """A list or mapping whose end has not been read."""

    __slots__ = ("anchor", "before", "height", "key", "node", "value")

    def __init__(self, node: Node, value: list[Any] | dict[str, Any], event: Any, before: int):
        self.node = node
        self.value = value
        self.anchor: str | None = event.anchor
        self.before = before
        self.height = 1
        self.key: tuple[str, int, int] | None = None


class Builder:
    """Builds one document: `value`, and `node` for the places in it.

    Raises `PolicyError` for what cannot be read past; the rest goes into *problems*.
    """

    def __init__(self, text: str, path: str, problems: Problems) -> None:
        self.value: Any = None
        self.node: Node
        self._text = text
        self._path = path
        self._problems = problems
        self._open: list[_Open] = []
        self._anchors: dict[str, tuple[Any, Node, int, int] | None] = {}
        self._plain: dict[str, Any] = {}
        self._weight = 0
        self._lines: list[str] = []
        self._run()

    def _run(self) -> None:
        documents = 0
        try:
            for event in yaml.parse(self._text, Loader=_LOADER):
                kind = type(event)
                if kind is yaml.ScalarEvent:
                    self._scalar(event)
                elif kind is yaml.MappingStartEvent:
                    self._begin(event, {}, "tag:yaml.org,2002:map")
                elif kind is yaml.SequenceStartEvent:
                    self._begin(event, [], "tag:yaml.org,2002:seq")
                elif kind is yaml.MappingEndEvent or kind is yaml.SequenceEndEvent:
                    self._end()
                elif kind is yaml.AliasEvent:
                    self._alias(event)
                elif kind is yaml.DocumentStartEvent:
                    documents += 1
                    if documents > 1:
                        self._refuse(
                            event,
                            "a second document begins here: remove '---', or make it a file of "
                            "its own and include it",
                        )
        except (yaml.YAMLError, ValueError, OverflowError) as error:
            raise PolicyError([not_yaml(error, self._text, self._path)]) from error
        if not documents or (self.value is None and not self.node.text):
            place = Place(self._path, 1, 1)
            raise PolicyError([Problem(place, "empty: a policy begins with 'version: 1'")])

    def _scalar(self, event: Any) -> None:
        if event.style == '"' and not _is_encodable(event.value):
            self._note(event, f"{shown(event.value)} has half a character: write it whole")
            event.value = event.value.encode(errors="replace").decode()
        text: str = event.value
        node = Node(event)
        node.text = text
        weight = 1 + len(text) // _WEIGHTY_TEXT
        value: Any = text
        if event.implicit[0]:
            if text not in self._plain:
                try:
                    self._plain[text] = plain_value(text)
                except ValueError as error:
                    self._note(event, str(error))
                    self._plain[text] = text
            value = self._plain[text]
        elif event.tag not in TEXT_TAGS:
            self._note_tag(event)
        if not self._open:
            self._weigh(event, weight)
            self.value, self.node = value, node
            return
        parent = self._open[-1]
        if isinstance(parent.value, dict) and parent.key is None:
            self._key(event, parent, value)
            return
        if value is None:
            self._note_missing(event, parent)
        self._add(event, value, node, weight, 1)
        if event.anchor is not None:
            self._anchor(event, event.anchor)
            self._anchors[event.anchor] = (value, node, weight, 1)

    def _key(self, event: Any, parent: _Open, value: Any) -> None:
        text: str = event.value
        mark = event.start_mark
        parent.key = (text, mark.line + 1, mark.column + 1)
        assert isinstance(parent.node.children, dict)  # noqa: S101
        self._weigh(event, 1 + len(text) // _WEIGHTY_TEXT)
        earlier = parent.node.children.get(text)
        if earlier is not None and earlier.key is not None:
            self._note(
                event,
                f"{shown(text)} stands twice, first in line {earlier.key[0]}: remove one of them",
            )
        elif text == "<<" and event.implicit[0]:
            self._note(event, "'<<' merges nothing in a policy: write the keys out, or use include")
        elif not isinstance(value, str):
            self._note(event, f"a key is a text: put {text or 'it'} in quotes")
        elif event.anchor is not None:
            self._note(event, f"a key takes no anchor: remove '&{event.anchor}'")

    def _begin(self, event: Any, value: list[Any] | dict[str, Any], tag: str) -> None:
        node = Node(event)
        node.children = {} if isinstance(value, dict) else []
        if event.tag not in {None, "!", tag}:
            self._note_tag(event)
        if len(self._open) >= _DEEPEST:
            self._refuse(event, f"not YAML of a policy: nested deeper than {_DEEPEST} levels")
        if self._open:
            self._no_key(event, self._open[-1])
        self._open.append(_Open(node, value, event, self._weight))
        self._weigh(event, 1)
        if event.anchor is not None:
            self._anchor(event, event.anchor)

    def _end(self) -> None:
        closed = self._open.pop()
        if closed.anchor is not None:
            weight = self._weight - closed.before
            self._anchors[closed.anchor] = (closed.value, closed.node, weight, closed.height)
        if self._open:
            self._add(None, closed.value, closed.node, 0, closed.height)
        else:
            self.value, self.node = closed.value, closed.node

    def _alias(self, event: Any) -> None:
        name: str = event.anchor
        if name not in self._anchors:
            self._refuse(
                event,
                f"nothing is named '&{name}' above: put a text that begins with '*' in quotes: "
                f"{shown('*' + name)}",
            )
        target = self._anchors[name]
        if target is None:
            self._refuse(event, f"'*{name}' stands inside of '&{name}': it would never end")
        value, original, weight, height = target
        self._no_key(event, self._open[-1])
        node = Node(event)
        node.children, node.text = original.children, original.text
        self._add(event, value, node, weight, height)

    def _add(self, event: Any, value: Any, node: Node, weight: int, height: int) -> None:
        """Put a value into the innermost open list or mapping."""
        self._weigh(event, weight)
        parent = self._open[-1]
        parent.height = max(parent.height, height + 1)
        if event is not None and len(self._open) + height - 1 > _DEEPEST:
            self._refuse(event, f"nested deeper than {_DEEPEST} levels, aliases expanded")
        if isinstance(parent.value, list):
            assert isinstance(parent.node.children, list)  # noqa: S101
            parent.value.append(value)
            parent.node.children.append(node)
        elif parent.key is not None:
            assert isinstance(parent.node.children, dict)  # noqa: S101
            name, line, column = parent.key
            node.key = (line, column)
            parent.key = None
            if name not in parent.value:
                parent.value[name] = value
                parent.node.children[name] = node

    def _weigh(self, event: Any, weight: int) -> None:
        self._weight += weight
        if self._weight > _HEAVIEST:
            self._refuse(event, f"more than {_HEAVIEST:,} values, aliases expanded: not a policy")

    def _anchor(self, event: Any, name: str) -> None:
        if name in self._anchors:
            self._refuse(event, f"'&{name}' stands twice: give one of them another name")
        self._anchors[name] = None

    def _no_key(self, event: Any, parent: _Open) -> None:
        if isinstance(parent.value, dict) and parent.key is None:
            self._refuse(event, "not YAML of a policy: a key is a text, written out")

    def _note_tag(self, event: Any) -> None:
        self._note(
            event,
            f"{shown(event.tag)} is a tag to YAML, and policies have none: remove it, or put a "
            "text that begins with '!' in quotes",
        )

    def _note_missing(self, event: Any, parent: _Open) -> None:
        key = f"'{parent.key[0]}'" if parent.key else "this item"
        reason = "put null in quotes if it is a text" if event.value else "give one, or remove it"
        if not event.value and self._comment_follows(event.start_mark):
            reason = "'#' begins a comment: put the text in quotes, or remove the key"
        self._note(event, f"{key} has no value: {reason}")

    def _comment_follows(self, mark: Any) -> bool:
        if not self._lines:
            self._lines = self._text.splitlines()
        line = self._lines[mark.line] if mark.line < len(self._lines) else ""
        return line[mark.column :].lstrip().startswith("#")

    def _note(self, event: Any, message: str) -> None:
        self._problems.add(place_in(self._path, event.start_mark), message)

    def _refuse(self, event: Any, message: str) -> NoReturn:
        raise PolicyError([Problem(place_in(self._path, event.start_mark), message)])


def _is_encodable(text: str) -> bool:
    """Whether *text* has no surrogates, which the Python parser lets pass and libyaml refuses."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True

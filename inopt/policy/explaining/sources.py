"""Where a decision is written: the rule's name, and the word in the file that made it."""

from __future__ import annotations

from typing import Final

from inopt.policy.load import Loaded
from inopt.policy.model import Rule, listed
from inopt.policy.rules import CompiledRule, Kind
from inopt.policy.text.problems import Place
from inopt.policy.words import WORDS

OTHERWISE: Final = "otherwise"
_FIELDS: Final = {Kind.BYPASS: "bypass", Kind.HANDLE: "handle", Kind.DENY: "deny"}


def rule_name(rule: CompiledRule | None) -> str:
    """What a rule is called; None is what happens if no rule decides."""
    if rule is None:
        return OTHERWISE
    return rule.name or f"rule {rule.index + 1}"


def place_of_decision(
    loaded: Loaded, rule: CompiledRule | None, slot: int, kind: Kind
) -> Place | None:
    """The word by which *rule* decides *slot*; None where nothing is written."""
    if rule is None:
        return _otherwise(loaded)
    word = _word(loaded.policy.rules[rule.index], slot, kind)
    return loaded.place("rules", rule.index, _FIELDS[kind], word, key=True)


def place_of_visibility(loaded: Loaded, rule: CompiledRule) -> Place:
    """Where *rule* says whether files are to be seen."""
    return loaded.place("rules", rule.index, "visible", key=True)


def place_of_rule(loaded: Loaded, rule: CompiledRule | None) -> Place | None:
    """Where *rule* begins; None where nothing is written."""
    return _otherwise(loaded) if rule is None else loaded.place("rules", rule.index)


def _otherwise(loaded: Loaded) -> Place | None:
    written = any(OTHERWISE in document.content for document in loaded.documents)
    return loaded.place(OTHERWISE, key=True) if written else None


def _word(rule: Rule, slot: int, kind: Kind) -> str:
    given = getattr(rule, _FIELDS[kind])
    words = [str(word) for word in (given if isinstance(given, dict) else listed(given))]
    # Of several that cover it the narrowest decides, and the last of those that are equally wide.
    covering = [word for word in reversed(words) if slot in WORDS[word]]
    return min(covering, key=lambda word: len(WORDS[word]))

"""What pydantic found wrong, in our words: "`key` should rule. Found value."."""

import reprlib
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import BaseModel, ValidationError

from diffaudit._keys import key_meant

_RULES = {
    "dict_type": "be a mapping of keys",
    "list_type": "be a list",
    "model_attributes_type": "be a mapping of keys",
    "model_type": "be a mapping of keys",
    "path_type": "be a path",
}
"""Rules that pydantic words for programmers, by its name of the error."""

_short = reprlib.Repr()
_short.maxlevel = 2
_short.maxstring = _short.maxother = 120


class FaultsError(ValueError):
    """Several broken rules between keys, a sentence each, found by one validator."""

    def __init__(self, sentences: Sequence[str]) -> None:
        self.sentences = list(sentences)
        super().__init__("\n".join(self.sentences))


def faults(error: ValidationError, values: Mapping[str, Any], section: type[BaseModel]) -> list[str]:
    """One sentence a fault, in the order of the settings; ``values`` are those that were checked as a ``section``."""
    found = []
    for item in error.errors(include_url=False):
        several = item.get("ctx", {}).get("error")
        found += several.sentences if isinstance(several, FaultsError) else [_fault(item, values, section)]
    return found


def _fault(item: Any, values: Mapping[str, Any], section: type[BaseModel]) -> str:
    loc, kind = item["loc"], item["type"]
    *parents, last = loc or ("settings",)
    key = ".".join(_named(loc, values)) or "settings"
    found = _short.repr(item["input"])
    if kind == "extra_forbidden":
        meant = key_meant(section, loc)
        advice = f" Perhaps `{meant}` is meant." if meant else ""
        return f"`{key}` should be left out: no such key. Found {found}.{advice}"
    if kind == "missing":
        return f"`{key}` should be given. Found nothing."
    if kind == "union_tag_invalid":
        return f"`{key}.kind` should be one of {item['ctx']['expected_tags']}. Found {item['ctx']['tag']!r}."
    if kind == "union_tag_not_found":
        return f"`{key}.kind` should be given. Found nothing."
    if kind == "invalid_key":
        holder = ".".join(_named(tuple(parents), values)) or "settings"
        return f"`{holder}` should have words as keys. Found {found}."
    if last == "[key]":
        holder = ".".join(_named(tuple(parents[:-1]), values))
        return f"`{holder}` should have keys among {_rule(item).removeprefix('be ')}. Found {found}."
    if kind == "value_error":  # a rule between keys, worded by its section: "`keep` should be at most ..."
        message: str = item["msg"].removeprefix("Value error, ")
        return message.replace("`", f"`{key}.", 1) if loc else message
    return f"`{key}` should {_rule(item)}. Found {found}."


def _rule(item: Any) -> str:
    """Pydantic's message from behind "should", without what it says of the value, which we say ourselves."""
    rule: str = _RULES.get(item["type"]) or item["msg"].partition(" should ")[2] or item["msg"]
    for addition in (", unable to", ", got ", " after validation"):
        rule = rule.partition(addition)[0]
    return rule.removesuffix(".")


def _named(loc: Sequence[str | int], values: Any) -> list[str]:
    """The keys of ``loc`` without the tags that pydantic puts in for the member of a union: nobody wrote those."""
    names = []
    node, tagged = values, False
    for place, part in enumerate(loc):
        if isinstance(node, Mapping) and node.get("kind") == part and not tagged and place < len(loc) - 1:
            tagged = True  # of one mapping, the first such part is the tag; `folders.folders` means the key `folders`
            continue
        names.append(str(part))
        tagged = False
        try:
            node = node[part]
        except (KeyError, IndexError, TypeError):
            node = None
    return names

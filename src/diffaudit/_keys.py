"""The key that was meant by one that is not there: the nearest in spelling among those of its section."""

import difflib
from collections.abc import Iterator, Mapping, Sequence
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import BaseModel


def key_meant(section: type[BaseModel], loc: Sequence[str | int]) -> str | None:
    """The key beside ``loc``, as pydantic places an error within ``section``, that looks most like its last part.

    >>> class Run(BaseModel):
    ...     classes: int
    ...     rows: list["Run"]
    >>> key_meant(Run, ("rows", 0, "clases"))
    'classes'
    >>> key_meant(Run, ("loss",)) is None
    True
    """
    *place, key = loc
    found: list[Any] = [section]
    for part in place:
        found = [below for node in found for below in _below(node, part)]
    known = [name for model in _models(found) for name in model.model_fields]
    return next(iter(difflib.get_close_matches(str(key), known, n=1)), None)


def _below(node: Any, part: str | int) -> Iterator[Any]:
    """What the type ``node`` has at ``part``: a key, a place in a list, or the tag of a union's member."""
    models = _models([node])
    if len(models) > 1 and (tagged := [model for model in models if _tag(model) == part]):
        yield from tagged  # before any key: of folders of pictures, the kind `folders`, `folders` is a key, too
        return
    for model in models:
        if part in model.model_fields:
            yield model.model_fields[str(part)].annotation
    for member in _members(node):
        if get_origin(member) in (dict, Mapping):
            yield get_args(member)[1]
        elif get_origin(member) in (list, tuple, Sequence):
            yield get_args(member)[0]


def _tag(model: type[BaseModel]) -> Any:
    return model.model_fields["kind"].default if "kind" in model.model_fields else None


def _models(nodes: Sequence[Any]) -> list[type[BaseModel]]:
    members = [member for node in nodes for member in _members(node)]
    return [member for member in members if isinstance(member, type) and issubclass(member, BaseModel)]


def _members(node: Any) -> Iterator[Any]:
    """The types that ``node`` stands for: a union's, without what annotates them."""
    if get_origin(node) is Annotated:
        yield from _members(get_args(node)[0])
    elif get_origin(node) in (Union, UnionType):
        for member in get_args(node):
            yield from _members(member)
    else:
        yield node

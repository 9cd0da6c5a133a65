"""What a ``.pt2`` archive would do when opened: only archives of plain tensors and tensor operations get through.

``torch.export.load`` trusts its file. In torch 2.13 it unpickles non-empty sample inputs, weights and constants marked
``use_pickle`` or named ``custom_obj_*`` or ``opaque_obj_*`` and the files of older layouts, loads the machine code of
compiled packages, and turns parts of the graph's JSON into code: sympy evaluates the expressions of sizes as Python,
a node's target may be any callable below ``torch``, names are pasted into a generated ``forward``. So the entries, the
operators and every string of an archive are compared with what a program of tensor operations needs, and nothing
else passes. What passes is written to a fresh archive, so that what is loaded is what was looked at.
"""

import ast
import io
import json
import re
import zipfile
from collections.abc import Iterator
from typing import Any

from diffaudit.errors import UnsafeArchive

_DISCARDED = re.compile(r"archive_format|archive_version|byteorder|\.data/(version|serialization_id)|extra/.*")
_RAW = re.compile(r"data/weights/weight_\d+|data/constants/tensor_\d+")
_CONFIGURATIONS = ("data/weights/model_weights_config.json", "data/constants/model_constants_config.json")
_GRAPH = "models/model.json"
_SAMPLE_INPUTS = "data/sample_inputs/model.pt"

_OPERATORS = re.compile(
    r"torch\.ops\.(aten|prims)\.\w+\.\w+"
    r"|torch\.ops\.higher_order\.wrap_with_(set_grad_enabled|autocast)"
    r"|torch\.sym_\w+|math\.\w+"
    r"|_operator\.(getitem|add|sub|mul|floordiv|truediv|mod|neg|pow|lt|le|gt|ge|eq|ne|and_|or_|not_)"
)
_FILE_OPERATORS = re.compile(r"torch\.ops\.aten\.(from_file|save)\b.*")
_NAME = re.compile(r"[\w.+:-]*")
_CONTAINERS = (None, "builtins.tuple", "builtins.list", "builtins.dict")
_ARITHMETIC = (
    *(ast.Expression, ast.BinOp, ast.UnaryOp, ast.BoolOp, ast.Compare, ast.keyword),
    *(ast.operator, ast.unaryop, ast.boolop, ast.cmpop, ast.Load),
)
_FUNCTION = re.compile(
    "Symbol|Integer|Float|Rational|Add|Mul|Pow|Max|Min|Abs|And|Or|Not|Equality|Unequality|(Strict)?(Less|Greater)Than"
    "|FloorDiv|CleanDiv|CeilDiv|IntTrueDiv|FloatTrueDiv|ModularIndexing|Mod|PythonMod|Where|Identity|LShift|RShift|ToFloat"
    "|CeilToInt|FloorToInt|TruncToInt|TruncToFloat|RoundToInt|RoundDecimal|PowByNatural|FloatPow"
)


def harmless_copy(archive: zipfile.ZipFile) -> io.BytesIO:
    """A fresh ``.pt2`` archive of the tensors and the graph in ``archive``, for ``torch.export.load``.

    Raises:
        UnsafeArchive: the archive holds something that loading or running it would unpickle, import or evaluate.
    """
    from torch.export.pt2_archive import PT2ArchiveWriter

    entries = _entries(archive)
    for name in (*_CONFIGURATIONS, _GRAPH):
        if name in entries:
            _check(json.loads(entries[name]), name)
    copy = io.BytesIO()
    with PT2ArchiveWriter(copy) as writer:
        for name, content in entries.items():
            writer.write_bytes(name, content)
    copy.seek(0)
    return copy


def _entries(archive: zipfile.ZipFile) -> dict[str, bytes]:
    """Contents by name below the archive's one folder, those that torch writes itself left out."""
    entries: dict[str, bytes] = {}
    folders = set()
    for entry in archive.infolist():
        folder, _, name = entry.filename.partition("/")
        folders.add(folder)
        if _DISCARDED.fullmatch(name):
            continue
        if name == _SAMPLE_INPUTS and entry.file_size > 0:
            raise UnsafeArchive(_message(f"pickled sample inputs ({entry.filename})", "program.example_inputs = None"))
        if name not in (*_CONFIGURATIONS, _GRAPH, _SAMPLE_INPUTS) and not _RAW.fullmatch(name):
            raise UnsafeArchive(_message(f"an entry that is no plain tensor ({entry.filename})"))
        if name in entries or len(folders) > 1:
            raise UnsafeArchive(_message(f"two entries or folders for one ({entry.filename})"))
        entries[name] = archive.read(entry)
    return entries


def _check(value: Any, where: str) -> None:
    for key, item in _members(value):
        place = f"{where}, {key}"
        if key == "use_pickle" and item is not False:
            raise UnsafeArchive(_message(f"a pickled tensor ({place})"))
        if key == "path_name" and not re.fullmatch(r"(weight|tensor)_\d+", str(item)):
            raise UnsafeArchive(_message(f"a payload that is no plain tensor ({item!r} in {place})"))
        if _is_text(key, item):
            continue
        if key == "range_constraints":
            _check_ranges(item, place)
        elif key in ("in_spec", "out_spec"):
            if item:
                _check_structure(json.loads(item), place)
        elif key in ("target", "as_operator"):
            if not _OPERATORS.fullmatch(str(item)) or _FILE_OPERATORS.fullmatch(str(item)):
                raise UnsafeArchive(_message(f"a call of something else than a tensor operator ({item!r} in {place})"))
        elif key == "expr_str":
            if not _is_arithmetic(str(item)):
                raise UnsafeArchive(_message(f"an expression that is not plain arithmetic ({item!r} in {place})"))
        elif isinstance(item, str):
            if not _NAME.fullmatch(item):
                raise UnsafeArchive(_message(f"a name that is none ({item[:80]!r} in {place})"))
        else:
            _check(item, where)


def _is_text(key: str, item: Any) -> bool:
    """Whether an item stays text: string arguments and metadata are not evaluated, guards are left out on loading."""
    match key, item:
        case "as_string", str():
            return True
        case "metadata", dict():
            return all(isinstance(text, str) for text in item.values())
        case "guards_code", list():
            return all(isinstance(text, str) for text in item)
        case _:
            return False


def _members(value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict):
        for key, item in value.items():
            if not _NAME.fullmatch(key):
                raise UnsafeArchive(_message(f"a name that is none ({key[:80]!r})"))
            yield key, item
    elif isinstance(value, list):
        yield from (("an item", item) for item in value)


def _check_structure(value: Any, where: str) -> None:
    """Containers of arguments and results: those other than tuple, list and dict name modules to import."""
    if isinstance(value, dict):
        if value.get("type") not in _CONTAINERS:
            raise UnsafeArchive(_message(f"a container other than tuple, list and dict ({value['type']!r} in {where})"))
        keys = json.loads(value.get("context") or "null") or []
        if not all(isinstance(key, str | int) for key in keys):
            raise UnsafeArchive(_message(f"keys of a container that are no plain text ({keys!r} in {where})"))
        for item in value.get("children_spec", ()):
            _check_structure(item, where)
    elif isinstance(value, list):
        for item in value:
            _check_structure(item, where)


def _check_ranges(value: Any, where: str) -> None:
    """Least and largest values of sizes, by the size's expression; torch looks them up, and evaluates none."""
    for expression, ends in value.items() if isinstance(value, dict) else ((value, None),):
        if not _is_arithmetic(str(expression)):
            raise UnsafeArchive(_message(f"an expression that is not plain arithmetic ({expression!r} in {where})"))
        if not isinstance(ends, dict) or not all(
            key in ("min_val", "max_val") and (end is None or isinstance(end, int)) for key, end in ends.items()
        ):
            raise UnsafeArchive(_message(f"a range that is none ({ends!r} in {where})"))


def _is_arithmetic(expression: str) -> bool:
    """Numbers, symbols, operators and calls of the functions that sizes are made of, as sympy prints them."""
    try:
        tree = ast.parse(expression.strip(), mode="eval")
    except (SyntaxError, ValueError):
        return False
    return all(_is_arithmetic_node(node) for node in ast.walk(tree))


def _is_arithmetic_node(node: ast.AST) -> bool:
    match node:
        case ast.Call(func=ast.Name(id=name)):
            return _FUNCTION.fullmatch(name) is not None
        case ast.Name(id=name) | ast.Constant(value=str(name)):
            return re.fullmatch(r"[A-Za-z]\w*", name) is not None
        case ast.Constant(value=value):
            return isinstance(value, int | float)
        case _:
            return isinstance(node, _ARITHMETIC)


def _message(found: str, remedy: str = "") -> str:
    remedy = f"Save it again after `{remedy}`, or" if remedy else "Where you trust whoever made the file,"
    return f"The archive holds {found}, which could run code. {remedy} set `allow_code: true`."

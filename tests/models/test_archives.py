"""What torch would run while it opens an archive is tried here for real; that it did not run is part of every test."""

import contextlib
import io
import json
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from diffaudit.errors import UnsafeArchive
from diffaudit.models.archives import harmless_copy

GRAPH = "models/model.json"
WEIGHTS = "data/weights/model_weights_config.json"
CONSTANTS = "data/constants/model_constants_config.json"


class Payload:
    """Writes a file when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Callable[[str], object], tuple[str]]:
        return eval, (f"open({str(self.mark)!r}, 'w').close()",)


def rewritten(source: Path, target: Path, changes: dict[str, bytes]) -> Path:
    """A copy of an archive with entries below its folder replaced or added."""
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w") as new:
        folder = old.namelist()[0].split("/")[0]
        changes = {f"{folder}/{name}": content for name, content in changes.items()}
        for name in old.namelist():
            if name not in changes:
                new.writestr(name, old.read(name))
        for name, content in changes.items():
            new.writestr(name, content)
    return target


def entry(source: Path, name: str) -> Any:
    with zipfile.ZipFile(source) as archive:
        return json.loads(archive.read(f"{archive.namelist()[0].split('/')[0]}/{name}"))


def check(path: Path) -> io.BytesIO:
    with zipfile.ZipFile(path) as archive:
        return harmless_copy(archive)


def refused(path: Path, reason: str) -> None:
    with pytest.raises(UnsafeArchive, match=f"{reason}.*allow_code: true"):
        check(path)


@pytest.fixture
def mark(tmp_path: Path) -> Path:
    return tmp_path / "mark"


@pytest.fixture
def pickled(mark: Path) -> bytes:
    return pickle.dumps(Payload(mark))


def test_a_program_of_plain_tensors_passes_and_stays_the_same(tiny_program: Path) -> None:
    images = torch.rand(4, 3, 8, 8)
    original = torch.export.load(tiny_program).module()(images)
    assert torch.equal(torch.export.load(check(tiny_program)).module()(images), original)


def test_pickled_sample_inputs_are_refused(tiny_program: Path, tmp_path: Path, mark: Path) -> None:
    buffer = io.BytesIO()
    torch.save(((Payload(mark),), {}), buffer)
    path = rewritten(tiny_program, tmp_path / "a.pt2", {"data/sample_inputs/model.pt": buffer.getvalue()})
    refused(path, "pickled sample inputs .*example_inputs = None")
    assert not mark.exists()


def test_sample_inputs_do_run_code_where_torch_opens_them(tiny_program: Path, tmp_path: Path, mark: Path) -> None:
    buffer = io.BytesIO()
    torch.save(((Payload(mark),), {}), buffer)
    path = rewritten(tiny_program, tmp_path / "a.pt2", {"data/sample_inputs/model.pt": buffer.getvalue()})
    with contextlib.suppress(Exception):  # what torch makes of the result is its affair
        torch.export.load(path)
    assert mark.exists()


def test_pickled_weights_are_refused(tiny_program: Path, tmp_path: Path, pickled: bytes, mark: Path) -> None:
    config = entry(tiny_program, WEIGHTS)
    config["config"]["head.weight"]["use_pickle"] = True
    changes = {WEIGHTS: json.dumps(config).encode(), "data/weights/weight_2": pickled}
    refused(rewritten(tiny_program, tmp_path / "a.pt2", changes), "a pickled tensor")
    assert not mark.exists()


def test_a_weight_cannot_hide_behind_the_name_of_metadata(tiny_program: Path, tmp_path: Path) -> None:
    config = entry(tiny_program, WEIGHTS)
    config["config"]["metadata"] = config["config"].pop("head.weight") | {"use_pickle": True}
    path = rewritten(tiny_program, tmp_path / "a.pt2", {WEIGHTS: json.dumps(config).encode()})
    refused(path, "a pickled tensor")


@pytest.mark.parametrize("name", ["opaque_obj_0", "custom_obj_0"])
def test_pickled_constants_are_refused(tiny_program: Path, tmp_path: Path, pickled: bytes, name: str) -> None:
    config = {"config": {"c": {"path_name": name, "is_param": False, "use_pickle": False, "tensor_meta": None}}}
    refused(rewritten(tiny_program, tmp_path / "a.pt2", {CONSTANTS: json.dumps(config).encode()}), "a payload")
    path = rewritten(tiny_program, tmp_path / "b.pt2", {f"data/constants/{name}": pickled})
    refused(path, "an entry that is no plain tensor")


@pytest.mark.parametrize(
    "name",
    [
        "data/weights/model.pt",
        "data/constants/model.pt",
        "data/aotinductor/model/model.so",
        "models/other.json",
        "data/weights/WEIGHT_0",
        "version",
    ],
)
def test_entries_that_no_plain_program_has_are_refused(tiny_program: Path, tmp_path: Path, name: str) -> None:
    refused(rewritten(tiny_program, tmp_path / "a.pt2", {name: b"x"}), "an entry that is no plain tensor")


def test_two_folders_are_refused(tiny_program: Path, tmp_path: Path) -> None:
    path = rewritten(tiny_program, tmp_path / "a.pt2", {})
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("other/data/weights/weight_0", b"x")
    refused(path, "two entries or folders")


def test_the_older_layout_is_refused(tmp_path: Path, pickled: bytes) -> None:
    with zipfile.ZipFile(tmp_path / "a.pt2", "w") as archive:
        archive.writestr("version", "8.20")
        archive.writestr("serialized_state_dict.pt", pickled)
    refused(tmp_path / "a.pt2", "an entry that is no plain tensor")


def graph_with(source: Path, target: Path, change: Callable[[Any], None]) -> Path:
    program = entry(source, GRAPH)
    change(program)
    return rewritten(source, target, {GRAPH: json.dumps(program).encode()})


@pytest.mark.parametrize(
    "expression",
    [
        "__import__('os').system('true')",
        "Symbol('s0').__class__",
        "exec(1)",
        "Max('__import__(1)', 2)",
        "(lambda: 1)()",
        "[1 for x in y]",
    ],
)
def test_expressions_that_sympy_would_evaluate_are_refused(tiny_program: Path, tmp_path: Path, expression: str) -> None:
    def change(program: Any) -> None:
        sizes = program["graph_module"]["graph"]["tensor_values"]["images"]["sizes"]
        sizes[0]["as_expr"]["expr_str"] = expression

    refused(graph_with(tiny_program, tmp_path / "a.pt2", change), "an expression that is not plain arithmetic")


def test_ranges_of_sizes_that_are_products_pass(tiny_program: Path, tmp_path: Path) -> None:
    def change(program: Any) -> None:
        program["range_constraints"]["8*s39"] = {"min_val": 16, "max_val": None}

    check(graph_with(tiny_program, tmp_path / "a.pt2", change))


@pytest.mark.parametrize(
    ("ranges", "reason"),
    [
        ({"__import__('os').system('true')": {"min_val": 1, "max_val": 2}}, "an expression that is not"),
        ({"8*s39": {"min_val": "exec(1)", "max_val": 2}}, "a range that is none"),
        ({"use_pickle": True, "path_name": "opaque_obj_0"}, "a range that is none"),
        ({"s0": {"use_pickle": True}}, "a range that is none"),
        ([], "an expression that is not|a range that is none"),
    ],
)
def test_ranges_that_are_none_are_refused(tiny_program: Path, tmp_path: Path, ranges: Any, reason: str) -> None:
    def change(program: Any) -> None:
        program["range_constraints"] = ranges

    refused(graph_with(tiny_program, tmp_path / "a.pt2", change), reason)


def test_torch_does_evaluate_such_an_expression(tiny_program: Path, tmp_path: Path, mark: Path) -> None:
    def change(program: Any) -> None:
        sizes = program["graph_module"]["graph"]["tensor_values"]["images"]["sizes"]
        sizes[0]["as_expr"]["expr_str"] = f"[open({str(mark)!r}, 'w').close(), Symbol('s0')][1]"

    path = graph_with(tiny_program, tmp_path / "a.pt2", change)
    with contextlib.suppress(Exception):
        torch.export.load(path).module()(torch.rand(3, 4))
    assert mark.exists()


@pytest.mark.parametrize(
    "target", ["torch.os.system", "torch.load", "torch.ops.aten.from_file.default", "_operator.call", "builtins.exec"]
)
def test_targets_that_are_no_tensor_operators_are_refused(tiny_program: Path, tmp_path: Path, target: str) -> None:
    def change(program: Any) -> None:
        program["graph_module"]["graph"]["nodes"][0]["target"] = target

    refused(graph_with(tiny_program, tmp_path / "a.pt2", change), "a call of something else")


def test_operators_given_as_arguments_are_checked_too(tiny_program: Path, tmp_path: Path) -> None:
    def change(program: Any) -> None:
        program["graph_module"]["graph"]["nodes"][0]["inputs"][0]["arg"] = {"as_operator": "torch.os.system"}

    refused(graph_with(tiny_program, tmp_path / "a.pt2", change), "a call of something else")


def test_names_that_would_become_code_are_refused(tiny_program: Path, tmp_path: Path) -> None:
    def change(program: Any) -> None:
        program["graph_module"]["graph"]["inputs"][-1]["as_tensor"]["name"] = "x=print(1)"

    refused(graph_with(tiny_program, tmp_path / "a.pt2", change), "a name that is none")


@pytest.mark.parametrize(
    "structure",
    [
        {"type": "collections.defaultdict", "context": '{"default_factory_module": "os"}', "children_spec": []},
        {"type": "builtins.dict", "context": '[{"__enum__": true, "fqn": "os:x", "name": "y"}]', "children_spec": []},
    ],
)
def test_containers_that_import_modules_are_refused(tiny_program: Path, tmp_path: Path, structure: Any) -> None:
    def change(program: Any) -> None:
        program["graph_module"]["module_call_graph"][0]["signature"]["in_spec"] = json.dumps([1, structure])

    refused(graph_with(tiny_program, tmp_path / "a.pt2", change), "a container|keys of a container")


def test_texts_that_are_never_evaluated_may_be_anything(tiny_program: Path, tmp_path: Path) -> None:
    def change(program: Any) -> None:
        program["guards_code"] = ["print('never')"]
        program["graph_module"]["graph"]["nodes"][0]["metadata"]["stack_trace"] = "f(x); g(y)"

    check(graph_with(tiny_program, tmp_path / "a.pt2", change))

"""YAML as settings files use it: plain values only, and each key of a mapping once."""

from typing import Any

import yaml


class _OnceLoader(yaml.SafeLoader):
    """A safe loader that refuses a repeated key, which YAML forbids and PyYAML answers with the last value."""

    def compose_mapping_node(self, anchor: dict[Any, yaml.Node]) -> yaml.MappingNode:
        node: yaml.MappingNode = super().compose_mapping_node(anchor)
        seen: set[str] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.value in seen:
                raise yaml.MarkedYAMLError(
                    problem=f"the key {key.value!r} is given a second time", problem_mark=key.start_mark
                )
            seen.add(str(key.value))
        return node


def parse_yaml(text: str) -> Any:
    """The plain value of a YAML text.

    >>> parse_yaml("seed: 3")
    {'seed': 3}

    Raises:
        ValueError: no YAML, a Python object, a repeated key, or values nested too deeply; one line says which.
    """
    try:
        return yaml.load(text, Loader=_OnceLoader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        where = f" in line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        raise ValueError(f"{error.problem}{where}") from error
    except yaml.YAMLError as error:
        raise ValueError(str(error).splitlines()[0]) from error
    except RecursionError as error:
        raise ValueError("values nested too deeply") from error

"""What no row of an ablation can see alone: doubles, baselines, and what would keep rows from being compared."""

import re
from collections.abc import Iterable, Sequence
from typing import Any

from diffaudit.records import REBUILT
from diffaudit.settings import InversionSettings
from diffaudit.study.ablation_settings import AnyAblation, InversionRow, PerturbationAblation
from diffaudit.study.planned_rows import PlannedRow

PHOTOGRAPHS = ("upper", "lower")
"""Rows of an inversion's private photographs: as many of a person as there are."""


def faults_between(settings: AnyAblation, rows: Sequence[PlannedRow], references: Sequence[str]) -> list[str]:
    """Every fault between rows; ``references`` are the names of the rows that are read from the baseline's runs."""
    found = _faults_of_listed_references(settings, references)
    found += _doubles("seeds", settings.seeds)
    found += _doubles("rows", [row.key.casefold() for row in rows])
    for mode in dict.fromkeys(row.mode for row in rows):
        names = [row.name for row in rows if row.mode == mode and row.is_baseline]
        if len(names) != 1:
            of_mode = "" if mode is None else f" of mode {mode}"
            found.append(f"`rows` should hold one baseline{of_mode}. Found {names}.")
    if all(row.name in references for row in settings.rows):
        found.append(f"`rows` should hold a baseline to run. Found {[row.name for row in settings.rows]}.")
    found += _faults_of_pairing(rows)
    keys = {row.key for row in rows} | set(references)
    for contrast in settings.contrasts:
        unknown = [key for key in (contrast.row, contrast.against) if key not in keys]
        if unknown and rows:
            with_mode = " with their mode" if rows[0].mode else ""
            found.append(f"`contrasts` should name rows{with_mode}, such as {rows[0].key}. Found {unknown}.")
        if photographed := [key for key in (contrast.row, contrast.against) if key in PHOTOGRAPHS]:
            found.append(f"`contrasts` should name rows whose images have partners. Found {photographed}: photographs.")
    known = {row.name for row in rows} | set(references)
    for name, members in settings.tables.items():
        if unknown := [member for member in members if member not in known]:
            found.append(f"`tables.{name}` should name rows. Found {unknown}.")
    return found


def _faults_of_listed_references(settings: AnyAblation, references: Sequence[str]) -> list[str]:
    """A reference row that the file lists has its place in the table and nothing else."""
    found = [
        f"`rows` should leave out {name} of the row `{row.name}`: it is read from the baseline's runs. Found {value!r}."
        for row in settings.rows
        if row.name in references
        for name, value, empty in (
            ("`set`", row.set, {}),
            ("`mode`", row.mode if isinstance(row, InversionRow) else [None], [None]),
            ("`baseline`", row.baseline, None),
        )
        if value != empty
    ]
    found += [
        f"`rows` should name `{row.name}` only where `judging` asks for that reference row. Found no such reference."
        for row in settings.rows
        if isinstance(settings, PerturbationAblation) and row.name not in references and _is_reserved(row.name)
    ]
    return found


def _faults_of_pairing(rows: Sequence[PlannedRow]) -> list[str]:
    """Inversions draw classes and keep images: both the same in every row, or images would have no partners."""
    inversions = [(row.key, row.settings) for row in rows if isinstance(row.settings, InversionSettings)]
    if not inversions:
        return []
    first, settings = inversions[0]
    found = []
    if isinstance(settings.classes, int):
        found.append(f"`classes` should be all or a list: seeds would draw others. Found {settings.classes}.")
    found += [
        f"`sampling.keep` should be the same in every row, for images are compared in pairs. Found "
        f"{other.sampling.keep} in {key} and {settings.sampling.keep} in {first}."
        for key, other in inversions
        if other.sampling.keep != settings.sampling.keep
    ]
    return found


def _is_reserved(name: str) -> bool:
    return name == REBUILT or re.fullmatch(r"(pgd|mi-fgsm)-\d+", name) is not None


def _doubles(name: str, values: Iterable[Any]) -> list[str]:
    listed = list(values)
    twice = sorted({value for value in listed if listed.count(value) > 1})
    return [f"`{name}` should name each once. Found {twice} more than once."] if twice else []

"""What a run found and where it lies. Nothing here needs torch: a report is made where no model can be loaded."""

from diffaudit.records.folder import RunFolder, append_lines, write_atomically, write_json
from diffaudit.records.inversion import (
    ROWS,
    CurvePoint,
    HealthPoint,
    JudgeVote,
    Record,
    read_curves,
    read_health,
    read_records,
)
from diffaudit.records.perturbation import (
    REBUILT,
    CoursePoint,
    PerturbationRecord,
    picture_path,
    read_course,
    read_perturbation_records,
)

__all__ = [
    "REBUILT",
    "ROWS",
    "CoursePoint",
    "CurvePoint",
    "HealthPoint",
    "JudgeVote",
    "PerturbationRecord",
    "Record",
    "RunFolder",
    "append_lines",
    "picture_path",
    "read_course",
    "read_curves",
    "read_health",
    "read_perturbation_records",
    "read_records",
    "write_atomically",
    "write_json",
]

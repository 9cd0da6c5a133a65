"""Studies: many runs, and the statistics that compare them.

The names live in the modules, so that a report can read :mod:`diffaudit.study.statistics` and
:mod:`diffaudit.study.comparison` without loading torch.
"""

"""Series <-> panels on a regular grid: the only room that sees a time stamp.

Contract: `SeriesSchema.read` gives a `Panel`; `write` fills the gaps of a table, every observed cell as it came.
"""

from tabmae.windows.calendar import calendar_columns, unseen_cycles
from tabmae.windows.containers import in_library_of
from tabmae.windows.panel import Panel
from tabmae.windows.seasons import season_of
from tabmae.windows.series_schema import SeriesSchema, refuse_taken

__all__ = [
    "Panel",
    "SeriesSchema",
    "calendar_columns",
    "in_library_of",
    "refuse_taken",
    "season_of",
    "unseen_cycles",
]

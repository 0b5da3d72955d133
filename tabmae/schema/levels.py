"""Names and levels as JSON: strings, numbers, bools and None as they are; times, bytes, decimals and others tagged.

Contract: `from_json(to_json(value))` equals value and has its type; any other type raises `SavedModelError`.
"""

import datetime
import math
from decimal import Decimal
from typing import Any

import numpy as np
import pandas as pd

from tabmae.errors import SavedModelError
from tabmae.schema.cells import plain


def to_json(value: Any) -> Any:
    """Encode one name or level."""
    value = plain(value)
    if value is None or type(value) in (str, bool, int) or (type(value) is float and math.isfinite(value)):
        return value
    if isinstance(value, str):
        return str(value)
    if isinstance(value, float):
        return {"type": "float", "value": repr(value)}
    if isinstance(value, pd.Timestamp):
        zone = None if value.tz is None else str(value.tz)
        return {"type": "timestamp", "value": value.asm8.astype(np.int64).item(), "unit": value.unit, "zone": zone}
    if isinstance(value, pd.Timedelta):
        return {"type": "timedelta", "value": value.asm8.astype(np.int64).item(), "unit": value.unit}
    if type(value) is datetime.date:
        return {"type": "date", "value": value.isoformat()}
    if type(value) is datetime.datetime and value.tzinfo is None:
        return {"type": "datetime", "value": value.isoformat()}
    if isinstance(value, pd.Period):
        return {"type": "period", "value": value.ordinal, "freq": value.freqstr}
    if isinstance(value, bytes):
        return {"type": "bytes", "value": value.hex()}
    if isinstance(value, pd.Interval):
        ends = [to_json(value.left), to_json(value.right)]
        return {"type": "interval", "value": ends, "closed": value.closed}
    if isinstance(value, Decimal):
        return {"type": "decimal", "value": str(value)}
    if isinstance(value, tuple):
        return {"type": "tuple", "value": [to_json(part) for part in value]}
    raise SavedModelError(
        "Names and levels must be strings, bytes, numbers, bools, dates, times, periods, intervals or decimals to be "
        f"saved; got {value!r} of type {type(value).__name__}. Convert the column to strings before fit."
    )


def from_json(saved: Any) -> Any:
    """Decode one name or level."""
    if not isinstance(saved, dict):
        return saved
    value = saved["value"]
    match saved["type"]:
        case "float":
            return float(value)
        case "timestamp":
            stamp = pd.Timestamp(np.datetime64(value, saved["unit"]))
            return stamp if saved["zone"] is None else stamp.tz_localize("UTC").tz_convert(saved["zone"])
        case "timedelta":
            return pd.Timedelta(np.timedelta64(value, saved["unit"]))
        case "date":
            return datetime.date.fromisoformat(value)
        case "datetime":
            return datetime.datetime.fromisoformat(value)
        case "period":
            return pd.Period(ordinal=value, freq=saved["freq"])
        case "bytes":
            return bytes.fromhex(value)
        case "interval":
            return pd.Interval(from_json(value[0]), from_json(value[1]), closed=saved["closed"])
        case "decimal":
            return Decimal(value)
        case "tuple":
            return tuple(from_json(part) for part in value)
    raise ValueError(f"unknown type of level {saved['type']!r}")

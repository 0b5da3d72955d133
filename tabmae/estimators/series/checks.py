"""Checks of the parameters of series estimators, all before any work is done.

Contract: a wrong type, range or spelling is one `ParameterError`; nothing is changed or stored.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from tabmae.errors import check_number
from tabmae.estimators.parameters import check_training, expert_names, is_auto
from tabmae.losses import LOSSES
from tabmae.masks import MASKS, SERIES_MASKS

EXPERTS = ("gaussian", "linear", "persistence")
HINTS = {
    "horizon": "Pass the steps to forecast, for example 24, or None for two seasons.",
    "context": "Pass the steps that a forecast looks back, for example 336, or 'auto'.",
    "window": "Pass the steps that the masked model sees at once, for example 96, or 'auto'.",
    "patch": "Pass the steps of a token, for example 1, or 'auto'.",
}


def check_series_parameters(estimator: Any) -> None:
    """Check every parameter of a series estimator.

    Raises
    ------
    ParameterError : names the first parameter that does not hold.
    """
    for name, hint in HINTS.items():
        value = getattr(estimator, name)
        if not (name == "horizon" and value is None) and not is_auto(value):
            check_number(name, value, low=1, integer=True, hint=hint)
    masks = tuple(dict.fromkeys(("mixed", *SERIES_MASKS, *MASKS)))
    check_training(estimator, masks=masks, losses=tuple(LOSSES), experts=EXPERTS, least_epochs=0)


def series_experts(experts: Any) -> tuple[str, ...]:
    """The experts asked for; "auto" is all that there are."""
    return expert_names(experts, EXPERTS)


def checked_levels(level: Any) -> list[float]:
    """Levels in percent, sorted.

    Raises
    ------
    ParameterError : one is below 1, or not below 100.
    """
    levels = list(level) if isinstance(level, Iterable) and not isinstance(level, str) else [level]
    for each in levels:
        hint = "Pass per cent that an interval is to hold, for example 90 for 90 %."
        check_number("level", each, low=0, high=100, low_open=True, high_open=True, hint=hint)
        check_number("level", each, low=1, hint=hint)  # 0.9 is meant as a share, and would be a needle's width
    return sorted(float(each) for each in levels)

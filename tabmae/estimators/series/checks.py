"""Checks of the parameters of series estimators, all before any work is done.

Contract: a wrong type, range or spelling is one `ParameterError`; nothing is changed or stored.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from tabmae.backbones import BACKBONES
from tabmae.errors import ParameterError, check_choice, check_number
from tabmae.estimators.parameters import COUNTS, check_callbacks, check_seed
from tabmae.losses import LOSSES
from tabmae.masks import MASKS, SERIES_MASKS, check_mask_ratio

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
    if not is_auto(estimator.mask_ratio):
        check_mask_ratio(estimator.mask_ratio)
    if not callable(estimator.mask):
        check_choice("mask", estimator.mask, tuple(dict.fromkeys(("mixed", *SERIES_MASKS, *MASKS))))
    if not callable(estimator.backbone):
        check_choice("backbone", estimator.backbone, ("auto", *BACKBONES))
    check_choice("loss", estimator.loss, ("auto", *LOSSES))
    for name, hint in COUNTS.items():
        if not is_auto(getattr(estimator, name)):
            low = 0 if name == "max_epochs" else 1
            check_number(name, getattr(estimator, name), low=low, integer=True, hint=hint)
    if not is_auto(estimator.dropout):
        hint = "Pass the share of units to drop, for example 0.1."
        check_number("dropout", estimator.dropout, low=0, high=1, high_open=True, hint=hint)
    if not is_auto(estimator.lr):
        check_number("lr", estimator.lr, low=0, low_open=True, hint="Pass a step size, for example 0.003.")
    check_number("verbose", estimator.verbose, low=0, integer=True, hint="Pass 1 for a progress bar.")
    series_experts(estimator.experts)
    check_callbacks(estimator.callbacks)
    check_seed(estimator.random_state)


def series_experts(experts: Any) -> tuple[str, ...]:
    """The experts asked for; "auto" is all that there are."""
    if is_auto(experts):
        return EXPERTS
    if isinstance(experts, str) or not isinstance(experts, Iterable):
        raise ParameterError(
            f"`experts` must be 'auto' or a tuple of names out of {list(EXPERTS)}; got {experts!r}. "
            "Pass () for the pure masked autoencoder."
        )
    names = tuple(experts)
    for name in names:
        check_choice("experts", name, EXPERTS)
    return names


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


def is_auto(value: Any) -> bool:
    """Whether a parameter is left to `fit`."""
    return isinstance(value, str) and value == "auto"

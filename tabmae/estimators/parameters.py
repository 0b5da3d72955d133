"""Checks of the parameters that estimators share, all before any work is done.

Contract: a wrong type, range or spelling is one `ParameterError`, an unknown parameter a `TypeError`; nothing is
changed or stored.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterable, Sequence
from difflib import get_close_matches
from functools import wraps
from inspect import signature
from typing import Any, ParamSpec

import numpy as np
from sklearn.utils import check_random_state

from tabmae.backbones import BACKBONES
from tabmae.errors import ParameterError, check_choice, check_number
from tabmae.losses import LOSSES
from tabmae.masks import MASKS, check_mask_ratio

EXPERTS = ("gaussian", "copies", "trees")
Given = ParamSpec("Given")
PRECISIONS = ("auto", "float32", "bf16")

COUNTS = {
    "d_token": "Pass the width of a token, for example 16.",
    "depth": "Pass the number of layers, for example 3.",
    "max_epochs": "Pass the number of passes over the rows, for example 100.",
    "batch_size": "Pass the rows of a step, for example 256.",
    "patience": "Pass the epochs to wait for a better held-out error, for example 20.",
}


def by_name(init: Callable[Given, None]) -> Callable[Given, None]:
    """Let the `__init__` of an estimator refuse what is none of its parameters, in the name of the user's class."""
    known = [name for name in signature(init).parameters if name != "self"]

    @wraps(init)
    def checked(*args: Given.args, **parameters: Given.kwargs) -> None:
        kind, n_unnamed = type(args[0]).__name__, len(args) - 1
        if n_unnamed:
            raise TypeError(
                f"{kind} takes its parameters by name; got {n_unnamed} without one. "
                f"Pass for example {kind}(max_epochs=50)."
            )
        unknown = [name for name in parameters if name not in known]
        if unknown:
            near = dict.fromkeys(match for name in unknown for match in get_close_matches(name.lower(), known, n=1))
            remedy = f"Did you mean {_quoted(near)}?" if near else f"help({kind}) lists those that there are."
            raise TypeError(f"{kind} has no parameter{'s' if len(unknown) > 1 else ''} {_quoted(unknown)}. {remedy}")
        init(*args, **parameters)

    return checked


def _quoted(names: Iterable[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)


def check_parameters(estimator: Any) -> None:
    """Check every parameter that estimators of tables share.

    Raises
    ------
    ParameterError : names the first parameter that does not hold.
    """
    check_training(estimator, masks=tuple(MASKS), losses=(*LOSSES, "nll"), experts=EXPERTS)
    check_choice("precision", estimator.precision, PRECISIONS)
    check_number("visible_weight", estimator.visible_weight, low=0, hint="Pass a weight, for example 0.1.")
    hint = "Pass the share of known cells to hold out, for example 0.1."
    check_number("validation_fraction", estimator.validation_fraction, low=0, high=0.5, hint=hint)
    if not isinstance(estimator.warm_start, bool | np.bool_):
        raise ParameterError(
            f"`warm_start` must be True or False; got {estimator.warm_start!r}. Pass True to go on from the last fit."
        )
    if not isinstance(estimator.checkpoint, str | os.PathLike | None):
        raise ParameterError(
            f"`checkpoint` must be a path or None; got {estimator.checkpoint!r}. Pass for example 'run.safetensors'."
        )
    if estimator.time_budget is not None:
        hint = "Pass seconds, for example 60, or None for no limit."
        check_number("time_budget", estimator.time_budget, low=0, low_open=True, hint=hint)
    _check_feature_shape(estimator.feature_shape)


def check_training(
    estimator: Any, *, masks: Sequence[str], losses: Sequence[str], experts: Sequence[str], least_epochs: int = 1
) -> None:
    """Check the parameters of the network and its training, which tables and series share, with the names of each."""
    if not is_auto(estimator.mask_ratio):
        check_mask_ratio(estimator.mask_ratio)
    if not callable(estimator.mask):
        check_choice("mask", estimator.mask, masks)
    if not callable(estimator.backbone):
        check_choice("backbone", estimator.backbone, ("auto", *BACKBONES))
    check_choice("loss", estimator.loss, ("auto", *losses))
    for name, hint in COUNTS.items():
        if not is_auto(getattr(estimator, name)):
            low = least_epochs if name == "max_epochs" else 1
            check_number(name, getattr(estimator, name), low=low, integer=True, hint=hint)
    if not is_auto(estimator.dropout):
        hint = "Pass the share of units to drop, for example 0.1."
        check_number("dropout", estimator.dropout, low=0, high=1, high_open=True, hint=hint)
    if not is_auto(estimator.lr):
        check_number("lr", estimator.lr, low=0, low_open=True, hint="Pass a step size, for example 0.003.")
    check_number("verbose", estimator.verbose, low=0, integer=True, hint="Pass 1 for a progress bar.")
    expert_names(estimator.experts, experts)
    check_callbacks(estimator.callbacks)
    check_seed(estimator.random_state)


def is_auto(value: object) -> bool:
    """Whether a parameter is left to `fit`."""
    return isinstance(value, str) and value == "auto"


def check_seed(random_state: Any) -> None:
    """Refuse what is no seed of scikit-learn."""
    try:
        check_random_state(random_state)
    except ValueError as error:
        raise ParameterError(
            f"`random_state` must be None, an integer or a RandomState; got {random_state!r}. Pass for example 0."
        ) from error


def expert_names(experts: Any, choices: Sequence[str] = EXPERTS) -> tuple[str, ...]:
    """The experts asked for; "auto" is all that there are."""
    if is_auto(experts):
        return tuple(choices)
    if isinstance(experts, str) or not isinstance(experts, Iterable):
        raise ParameterError(
            f"`experts` must be 'auto' or a tuple of names out of {list(choices)}; got {experts!r}. "
            "Pass () for the pure masked autoencoder."
        )
    names = tuple(experts)
    for name in names:
        check_choice("experts", name, choices)
    return names


def chosen_members(members: Any, choices: Sequence[str]) -> tuple[str, ...]:
    """The members asked for, in the order of `choices`; "auto" is all of them."""
    if is_auto(members):
        return tuple(choices)
    if isinstance(members, str) or not isinstance(members, Sequence) or not len(members):
        raise ParameterError(
            f"`members` must be 'auto' or a tuple of names out of {list(choices)}; got {members!r}. "
            f"Pass for example {(choices[0], choices[-1])}."
        )
    for member in members:
        check_choice("members", member, choices)
    return tuple(member for member in choices if member in members)


def _check_feature_shape(feature_shape: Any) -> None:
    if feature_shape is None:
        return
    if not isinstance(feature_shape, Collection) or isinstance(feature_shape, str) or not len(feature_shape):
        raise ParameterError(
            f"`feature_shape` must be a tuple of sides; got {feature_shape!r}. Pass for example (8, 8) for 64 features."
        )
    for side in feature_shape:
        check_number("feature_shape", side, low=1, integer=True, hint="Pass for example (8, 8) for 64 features.")


def check_callbacks(callbacks: Any) -> None:
    """Refuse what is no list of functions."""
    if callbacks is None:
        return
    given = callbacks if isinstance(callbacks, list | tuple) else [callbacks]
    wrong = [callback for callback in given if not callable(callback)]
    if wrong or given is not callbacks:
        raise ParameterError(
            f"`callbacks` must be a list of functions of one record; got {callbacks!r}. Pass for example [print]."
        )

"""Parameters of a detector that its network does not have: which are refused, and which members they name.

Contract: a wrong parameter is refused before anything is learnt.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sklearn.utils.validation import check_is_fitted

from tabmae.errors import ParameterError, check_choice, check_number
from tabmae.estimators.detector.members import MEMBERS
from tabmae.estimators.learner import MaskedTableEstimator


def chosen_members(members: Sequence[str] | str) -> tuple[str, ...]:
    """The members that are asked, in the order of `MEMBERS`."""
    if isinstance(members, str) and members == "auto":
        return MEMBERS
    return tuple(member for member in MEMBERS if member in members)


def check_own_parameters(contamination: Any, members: Any, pretrained: Any) -> None:
    """Check what only a detector has; `pretrained` out of its frame."""
    if not (isinstance(contamination, str) and contamination == "auto"):
        hint = "Pass the share of outliers among the rows of fit, or 'auto' if they are normal."
        check_number("contamination", contamination, low=0, high=0.5, low_open=True, hint=hint)
    if not (isinstance(members, str) and members == "auto"):
        if isinstance(members, str) or not isinstance(members, Sequence) or not len(members):
            raise ParameterError(
                f"`members` must be 'auto' or a tuple of names out of {list(MEMBERS)}; got {members!r}. "
                "Pass for example ('distance', 'network')."
            )
        for member in members:
            check_choice("members", member, MEMBERS)
    if pretrained is not None:
        if not isinstance(pretrained, MaskedTableEstimator):
            raise ParameterError(
                f"`pretrained` must be a fitted TabMAE; got {type(pretrained).__name__}. Pass TabMAE().fit(X)."
            )
        if "network" not in chosen_members(members):
            raise ParameterError(f"`pretrained` must serve a member; `members` is {members!r}. Add 'network' to them.")
        check_is_fitted(pretrained, "model_")

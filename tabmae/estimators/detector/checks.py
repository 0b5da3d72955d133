"""Parameters of a detector that its network does not have, and which of them are refused.

Contract: a wrong parameter is refused before anything is learnt.
"""

from __future__ import annotations

from typing import Any

from tabmae.errors import ParameterError, check_number
from tabmae.estimators.detector.members import MEMBERS
from tabmae.estimators.learner import check_pretrained
from tabmae.estimators.parameters import chosen_members, is_auto


def check_own_parameters(contamination: Any, members: Any, pretrained: Any) -> None:
    """Check what only a detector has."""
    if not is_auto(contamination):
        hint = "Pass the share of outliers among the rows of fit, or 'auto' if they are normal."
        check_number("contamination", contamination, low=0, high=0.5, low_open=True, hint=hint)
    names = chosen_members(members, MEMBERS)
    if check_pretrained(pretrained) is not None and "network" not in names:
        raise ParameterError(f"`pretrained` must serve a member; `members` is {members!r}. Add 'network' to them.")

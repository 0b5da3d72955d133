"""Let rows be copies of others: where held-out cells believe it, and where there is time.

Contract: copies that judge held-out cells hold none of them.
"""

from __future__ import annotations

import torch
from torch import Tensor

from tabmae.estimators.growing import Phases, seconds_to_begin
from tabmae.estimators.members import modelled_levels, weigh_members
from tabmae.estimators.validation import Validation, judged
from tabmae.experts.copies import Copies
from tabmae.experts.em import sampled
from tabmae.model import MaskedAutoencoder

LEAST_COPIED = 0.03
"""Weight of the copies times how likely a row is one, on the mean, that their time is worth."""
MAX_ASKED = 250
"""Rows of each fold by which it is seen how likely rows are copies."""
SHARE_TO_FIT, SHARE_TO_ASK = 0.1, 0.3
"""Shares of what time is left in which copies must be learnt, and asked from then on."""


@torch.no_grad()
def fit_copies(
    model: MaskedAutoencoder, values: Tensor, observed: Tensor, folds: Tensor, validation: Validation, phases: Phases
) -> Phases:
    """Learn how rows copy rows from the cells that are not held out, and weigh the members.

    Copies are kept where held-out cells believe in them, and under a deadline where asking them leaves time for others.

    Parameters
    ----------
    values, observed : (n, F) on the model's device; held-out cells are among the observed ones.
    folds : int8 (n, F), from `split_held_out`. validation : of these cells. phases : when what is to come has to end.

    Returns
    -------
    The phases with the time that copies will take.
    """
    copies = Copies(modelled_levels(model)).to(values.device)
    learnt_by = phases.forests.part(SHARE_TO_FIT)
    copies.fit(*_remembered(copies, values, observed & (folds == 0)), until=lambda: learnt_by.passed)
    asked, begun = list(judged(values, observed, folds, MAX_ASKED)), phases.forests.elapsed()
    likely = torch.cat([copies.predict(part.values, part.visible).shares[part.held_out] for part in asked])
    row = (phases.forests.elapsed() - begun) / max(1, sum(len(part.values) for part in asked))
    to_judge = row * validation.n_asked_again
    in_all = row * validation.n_weighing + to_judge + seconds_to_begin(model, observed, row)
    if in_all > SHARE_TO_ASK * phases.forests.left():
        weigh_members(model, validation)
        return phases
    model.set_copies(copies)
    weigh_members(model, validation)
    weight = torch.cat([model.number_weights[-1, :, -1], model.level_weights[-1, :, -1]]).mean()
    if len(likely) and weight * likely.mean() < LEAST_COPIED:
        model.set_copies(None)
        weigh_members(model, validation)
        return phases
    if not phases.forests.exists:
        return phases
    forests = phases.forests.before(to_judge)
    return Phases(phases.training, forests, phases.seconds_of_row + row)


def remember_all(model: MaskedAutoencoder, values: Tensor, observed: Tensor) -> None:
    """Give copies the held-out cells, too, once these have judged them; how columns are copied stays."""
    if model.copies is not None:
        device = next(model.parameters()).device
        model.copies.remember(*_remembered(model.copies, values.to(device), observed.to(device)))


def _remembered(copies: Copies, values: Tensor, observed: Tensor) -> tuple[Tensor, Tensor]:
    """The rows of a table (n, F) that others may copy, and their observed cells."""
    rows = sampled(len(values), copies.most_rows())
    return values[rows], observed[rows]

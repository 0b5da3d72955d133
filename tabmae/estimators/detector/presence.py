"""Values that stand where there must be none, such as a number of cigarettes of somebody who does not smoke.

Contract: a hole is never evidence. Whether a cell was likely to be observed is judged by trees that did not see its
row, and hinges on no other cell that is missing.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Self

import numpy as np
import torch
from sklearn.tree import DecisionTreeClassifier
from torch import Tensor

from tabmae.calibration import p_value
from tabmae.deadline import NEVER, Deadline
from tabmae.estimators.detector.completion import MAX_COLUMNS, expanded, shown_levels
from tabmae.estimators.detector.levels import all_levels, learnt_levels, strange_cells
from tabmae.estimators.detector.network import Cells
from tabmae.estimators.detector.slips import bounded
from tabmae.experts.trees import Forest, Nodes
from tabmae.saving import part_of
from tabmae.training import draw_seed

PRESENCE = "presence"
"""Member that tells of rows with a value where there must be none, and of no others."""
MIN_LEAF = 5
LEAST_GAIN = 0.02
"""Gini impurity of all rows by which a split must lower it: a chance one of holes at random seldom does."""
MAX_TRIED = 20
"""Numbers and indicators that a tree reads, those that go along best with what it predicts."""
MAX_ROWS, MAX_CELLS = 2_000, 200_000
"""Rows, and cells of them, that grow the trees."""
LEAST_CELLS = 10
"""Observed and missing cells of a column in either half of the rows with which it is judged."""
N_DONORS = 4
"""Rows that fill what else is missing of a row, by turns."""
LIMITS = (0.0, 0.01, 0.02, 0.05, 0.1)
"""Shares of observed cells, as the trees expect them, up to which rows are counted together."""
LEAST_LIFT = 12.0
"""How many times as rare observed cells are among such rows as in the column for any to tell something: where holes are
at random, rows lack as many cells with a probability of exp(-12)."""
WEIGHT = 2.0
"""How far what is told counts: as that of a broken relation."""


class Presence:
    """For columns with holes, how much rarer than usual it is that a cell is observed, given the others of its row.

    A tree of each half of the rows predicts from the other cells whether a cell is observed. Rows of fit for which the
    tree that does not know them expects next to none are counted: how many there are, and how many have the cell.

    What else is missing is filled with random cells of its column where trees grow, so that holes tell them nothing,
    and where they judge with the cells of rows that have the cell in question: the likeliest presence counts.

    Parameters
    ----------
    n_levels : for each of F columns 0 for a number, else the number of its levels.

    Attributes
    ----------
    forests : by the position of a column, of those with rows that lack it for sure; none where holes are at random, nor
        in a table that is too wide. donors : by the same, float32 (N_DONORS, E), numbers and indicators of rows that
        have the cell.
    nats : by the same, float64 (L,), how much rarer than in the column observed cells are up to each limit.
    of_fit : float64 (n,), the sorted largest surprise at a cell of each row that was learnt.
    """

    def __init__(self, n_levels: Sequence[int]) -> None:
        self.n_levels, self.n_shown = tuple(n_levels), shown_levels(n_levels)
        self.learnt_levels = all_levels(n_levels)
        self.forests: dict[int, Forest] = {}
        self.donors: dict[int, Tensor] = {}
        self.nats: dict[int, Tensor] = {}
        self.of_fit = torch.zeros(0, dtype=torch.float64)

    @classmethod
    def fit(cls, learnt: Cells, n_levels: Sequence[int], seed: int, deadline: Deadline = NEVER) -> Self:
        """Learn from rows (n, F), of all columns or of the first ones within the deadline."""
        presence = cls(n_levels)
        presence.learnt_levels = learnt_levels(*learnt, n_levels)
        widths = torch.tensor([n or 1 for n in presence.n_shown])
        step = max(1, -(-len(learnt[0]) // min(MAX_ROWS, MAX_CELLS // int(widths.sum()))))
        values, observed = (part[::step] for part in learnt)
        generator = torch.Generator().manual_seed(seed)
        half = 1 + torch.randperm(len(values), generator=generator) % 2
        known = [observed[half == side] for side in (1, 2)]
        enough = torch.stack([cells.sum(0).minimum((~cells).sum(0)) for cells in known]).amin(0) >= LEAST_CELLS
        if widths.sum() > MAX_COLUMNS or not enough.any():
            return presence
        cells, shown = presence._expanded(values, observed)
        filled = presence._expanded(filled_at_random(values, observed, half, generator), torch.ones_like(observed))[0]
        owner = torch.arange(len(widths)).repeat_interleave(widths)
        of_fit = torch.zeros(len(values), dtype=torch.float64)
        for feature in torch.nonzero(enough)[:, 0].tolist():
            if deadline.passed:
                break
            present, others = observed[:, feature], torch.nonzero(owner != feature)[:, 0]
            forest = grown(filled, present, half, others, draw_seed(generator))
            if forest is not None:
                rows = torch.nonzero(present)[:, 0]
                donors = filled[rows[torch.randperm(len(rows), generator=generator)[:N_DONORS]]]
                likely = torch.zeros(len(values))
                for side in (1, 2):
                    judged = half == side
                    likely[judged] = likeliest(cells[judged], shown[judged], forest, donors, side)
                nats = rarer(likely, present)
                if nats.any():
                    presence.forests[feature], presence.donors[feature], presence.nats[feature] = forest, donors, nats
                    of_fit = of_fit.maximum(torch.where(present, presence._nats(feature, likely), 0))
        presence.of_fit = of_fit.sort().values
        return presence

    def surprise(self, values: Tensor, observed: Tensor) -> Tensor:
        """By how many nats each observed cell of rows (B, F) is less likely to be there than cells of its column are,
        where it must not be; float64 (B, F), else 0."""
        found = torch.zeros(values.shape, dtype=torch.float64)
        if self.forests:
            known = observed & ~strange_cells(values, observed, self.n_levels, self.learnt_levels)
            cells, shown = self._expanded(values, known)
        for feature, forest in self.forests.items():
            rows = torch.nonzero(observed[:, feature])[:, 0]
            if len(rows):
                likely = likeliest(cells[rows], shown[rows], forest, self.donors[feature])
                found[rows, feature] = self._nats(feature, likely)
        return found

    def evidence(self, values: Tensor, observed: Tensor) -> Tensor:
        """Evidence against rows (B, F), in nats: minus the log of the share of rows of fit in which a cell is as
        unlikely to be there; float64 (B,), 0 where none must not be."""
        return -WEIGHT * p_value(self.of_fit, self.surprise(values, observed).amax(1)).log()

    def state(self) -> dict[str, Tensor]:
        """What `restored` needs."""
        tensors = {"learnt_levels": self.learnt_levels, "of_fit": self.of_fit}
        for feature, forest in self.forests.items():
            tensors |= {f"{feature}.forest.{name}": tensor for name, tensor in forest.state_dict().items()}
            tensors |= {f"{feature}.donors": self.donors[feature], f"{feature}.nats": self.nats[feature]}
        return tensors

    @classmethod
    def restored(cls, n_levels: Sequence[int], tensors: dict[str, Tensor]) -> Self:
        """A fitted one from its state.

        Raises
        ------
        ValueError : trees lead nowhere.
        """
        presence = cls(n_levels)
        presence.learnt_levels, presence.of_fit = tensors["learnt_levels"], tensors["of_fit"]
        for feature in sorted({int(name.split(".")[0]) for name in tensors if name[0].isdigit()}):
            own = part_of(tensors, f"{feature}.")
            forest = presence.forests[feature] = Forest()
            forest.load_state_dict(part_of(own, "forest."))
            forest.check(sum(n or 1 for n in presence.n_shown), 1)
            presence.donors[feature], presence.nats[feature] = own["donors"], own["nats"]
        return presence

    def _expanded(self, values: Tensor, observed: Tensor) -> Cells:
        """Numbers and indicators of levels, float32 (B, E), and which are observed."""
        cells, shown = expanded(bounded(values, self.n_levels), observed, self.n_shown)
        return cells.float(), shown

    def _nats(self, feature: int, likely: Tensor) -> Tensor:
        """How much rarer than in its column observed cells are where so many are expected (B,); float64 (B,)."""
        nats = torch.cat([self.nats[feature], torch.zeros(1, dtype=torch.float64)])
        return nats[torch.searchsorted(torch.tensor(LIMITS), likely)]


def grown(cells: Tensor, present: Tensor, half: Tensor, others: Tensor, seed: int) -> Forest | None:
    """A tree of either half (n,) of rows that predicts whether a cell is `present` (n,) from the `others` among the
    numbers and indicators (n, E) of its row; None where one finds nothing to split by."""
    trees, shares = [], []
    for side in (2, 1):
        rows = half == side
        inputs, target = cells[rows], present[rows]
        centred, apart = (part.double() - part.double().mean(0) for part in (inputs[:, others], target))
        along = (apart @ centred).abs() / centred.norm(dim=0).clamp_min(1e-6)
        telling = others[along.topk(min(MAX_TRIED, len(others))).indices.sort().values]
        grower = DecisionTreeClassifier(min_samples_leaf=MIN_LEAF, min_impurity_decrease=LEAST_GAIN, random_state=seed)
        tree = grower.fit(inputs[:, telling].numpy(), target.numpy()).tree_
        if tree.node_count == 1:
            return None
        trees.append(
            Nodes(tree.children_left, tree.children_right, telling.numpy()[np.maximum(tree.feature, 0)], tree.threshold)
        )
        counts = tree.value[tree.children_left < 0, 0]
        shares.append(counts[:, 1:] / counts.sum(1, keepdims=True))
    return Forest().take(trees, np.concatenate(shares).astype(np.float32), cells.device)


def likeliest(cells: Tensor, shown: Tensor, forest: Forest, donors: Tensor, fold: int = 0) -> Tensor:
    """Share of observed cells that trees expect among rows whose numbers and indicators (B, E) are as the `shown` ones,
    whatever the rest is: the largest one over the donors that fill it; float32 (B,). `fold` is as of a forest."""
    read = forest.feature[forest.feature >= 0].long()
    holed = torch.nonzero(~shown[:, read].all(1))[:, 0]
    share = forest.leaf_means(torch.where(shown, cells, donors[0]), fold)[:, 0]
    for donor in donors[1:] if len(holed) else ():
        other = forest.leaf_means(torch.where(shown[holed], cells[holed], donor), fold)[:, 0]
        share[holed] = share[holed].maximum(other)
    return share


def rarer(likely: Tensor, present: Tensor) -> Tensor:
    """Log of how many times as rare observed cells are as in the column, among the rows up to each limit.

    One more observed cell is taken to be among them. A limit counts for the smaller ones, whose rows are among its own.

    Parameters
    ----------
    likely : (n,), share of observed cells that was expected at a row. present : bool (n,), whether it has the cell.

    Returns
    -------
    float64 (L,), 0 where they are not much rarer.
    """
    below = likely[:, None] <= torch.tensor(LIMITS)
    n_rows, n_present = below.sum(0), (below & present[:, None]).sum(0)
    lift = present.double().mean() * (1 + n_rows) / (1 + n_present)
    nats = torch.where(lift >= LEAST_LIFT, lift.log(), 0)
    return nats.flip(0).cummax(0).values.flip(0)


def filled_at_random(values: Tensor, observed: Tensor, half: Tensor, generator: torch.Generator) -> Tensor:
    """Rows (n, F) whose holes hold random observed cells of their column and half of the rows, 0 where it has none."""
    whole = torch.where(observed, values, 0)
    for feature in range(values.shape[1]):
        for side in (1, 2):
            own = half == side
            shown, holes = (torch.nonzero(own & part)[:, 0] for part in (observed[:, feature], ~observed[:, feature]))
            if len(shown) and len(holes):
                donors = shown[torch.randint(len(shown), (len(holes),), generator=generator)]
                whole[holes, feature] = values[donors, feature]
    return whole

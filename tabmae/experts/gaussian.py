"""A multivariate normal fitted to incomplete rows by EM, and its conditional mean and variance for any mask.

Contract: `fit(values, observed)` learns from observed cells only; `condition(values, visible)` reads visible ones only.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from tabmae.experts.conditionals import blocks, chunk_end, conditional, positions, squared_distances
from tabmae.experts.em import em, sampled

SHRINKAGES = (0.003, 0.01, 0.03, 0.1, 0.3, 0.7)
"""Shares of the prior tried in `fit`; .7 leaves almost nothing but the mean, which is right for independent noise."""
SHARP_SHRINKAGE = 1e-8
"""Share tried for columns that others determine: a sum of others, an end some hours after a start within a year."""
MAX_SHARPENED = 0.1
"""Share of the prior up to which columns are asked whether they determine each other: more is chosen for noise."""
SHARP_PASSES = ((0.35, 10), (0.01, 30))
"""Variance, in that of its column, that the surest held-out cell may have left, and passes of EM with the sharp share
that are then worth their time; what it keeps comes late."""
LAST_PASSES = 12
"""Passes of EM by which all other columns settle about those that are exact."""
SHARP_TOL = 1e-8
"""Change of the covariance at which EM with the sharp share ends."""
EXACT, SHARPER, NO_WORSE = 0.01, 0.1, 1.02
"""Variance, in that of its column, up to which a held-out cell is said to be determined; the columns of such cells are
exact where the squared error of those of one falls to so much of what it was by the sharp share, that of all of them
doesn't rise, and that of all held-out cells is at most so much of what it was. What is only nearly a line bends far
out, where sharp conditionals go astray."""
BROKEN = 100.0
"""Squared standard deviations by which the visible cells of a row may be farther out for what columns say exactly."""
SHARP_VARIANCE = 3e-4
"""Share of a column's variance that others leave, under which conditionals are worked out in double precision."""
FAIR_COIN = 0.25
"""Variance of the prior of an indicator at most: that of a level which half of the rows have."""
MAX_ROWS_OF_CHOICE = 2_000
"""Rows that the choice of the shrinkage reads."""


class Gaussian(nn.Module):
    """Normal distribution over columns, fitted to incomplete rows.

    Parameters
    ----------
    n_columns : number of real-valued columns E.
    diagonal : how far `fit` moves the covariance towards its diagonal, 0 not at all, 1 to independent columns. Sharp
        conditionals impute well, but a row that is a little off them is no anomaly.

    Buffers, all in the units of the data: `mean` (E,), `covariance` (E, E), `precision` (E, E), its inverse; the
    `shrinkage` of the last fit; and which columns are `exact` (E,), with next to no prior. A row whose visible cells
    break what these say of each other, by a slip or as they were drawn, is told of as if they had the others' prior.

    Source: EM for the incomplete normal, Dempster et al. 1977; Little and Rubin 2002, section 11.2.
    Differs: an inverse-Wishart prior centred on the identity (in standard deviations) is added in every M step, its
    weight chosen by held-out cells, so that collinear columns and more columns than rows are served.

    >>> import torch
    >>> rows = torch.randn(200, 1, generator=torch.Generator().manual_seed(0)).repeat(1, 2)
    >>> expert = Gaussian(2).fit(rows, torch.ones(200, 2, dtype=torch.bool))
    >>> mean, variance = expert.condition(torch.tensor([[1.0, 0.0]]), torch.tensor([[True, False]]))
    >>> bool((mean[0, 1] - 1).abs() < 0.05)
    True
    """

    mean: Tensor
    covariance: Tensor
    precision: Tensor
    shrinkage: Tensor
    exact: Tensor

    def __init__(self, n_columns: int, diagonal: float = 0.0) -> None:
        super().__init__()
        self.diagonal = diagonal
        self.register_buffer("mean", torch.zeros(n_columns, dtype=torch.float64))
        self.register_buffer("covariance", torch.eye(n_columns, dtype=torch.float64))
        self.register_buffer("precision", torch.eye(n_columns, dtype=torch.float64))
        self.register_buffer("shrinkage", torch.tensor(SHRINKAGES[0], dtype=torch.float64))
        self.register_buffer("exact", torch.zeros(n_columns, dtype=torch.bool))

    def fit(
        self,
        values: Tensor,
        observed: Tensor,
        held_out: Tensor | None = None,
        shrinkage: float | None = None,
        warm_start: bool = False,
        indicators: Tensor | None = None,
    ) -> Gaussian:
        """Estimate mean and covariance by EM from the observed cells.

        Parameters
        ----------
        values : (n, E), anything where not observed.
        observed : bool (n, E).
        held_out : bool (n, E), known cells outside `observed` by which the shrinkage is chosen; absent or empty, every
            tenth observed cell serves.
        shrinkage : share of the prior in [0, 1), 0 only where no column depends wholly on others; None chooses among
            `SHRINKAGES`.
        warm_start : begin from the present mean and covariance, with a given shrinkage; what was exact is so again.
        indicators : bool (E,), columns of 0 and 1. Given, the Gaussian is fitted as an imputer's, None as a detector's,
            which were measured without: EM takes long steps; the shrinkage is chosen by what an ensemble leaves that
            shrinks columns to their means; `SHARP_SHRINKAGE` is tried for columns that others determine; and the prior
            of an indicator is as wide as a fair coin, so that the fewer rows a level has, the less they say of others.

        Returns
        -------
        self
        """
        if held_out is None:
            held_out = torch.zeros_like(observed)
        standard, location, scale = _standardised(values, observed, observed | held_out)
        wide, imputes = torch.ones_like(scale), indicators is not None
        if indicators is not None:
            wide = torch.where(indicators, (FAIR_COIN / scale.square()).clamp_min(1), wide)
        exact = self.exact if warm_start else torch.zeros_like(self.exact)
        if shrinkage is None:
            trained = observed
            if not held_out.any():
                held_out = _every_tenth(observed)
                trained = observed & ~held_out
            mean, covariance, shrinkage = _chosen(standard, trained, held_out, wide, imputes)
            mean, covariance = em(standard, observed, shrinkage, wide, mean, covariance, long_steps=imputes)
            if imputes and shrinkage <= MAX_SHARPENED:
                judged = held_out & ~observed
                mean, covariance, exact = _sharpened(standard, observed, judged, shrinkage, wide, mean, covariance)
        elif warm_start:
            start = ((self.mean - location) / scale, self.covariance / scale[:, None] / scale[None, :])
            tol = SHARP_TOL if exact.any() else min(1e-3, shrinkage)
            prior = _sharp(wide, exact, shrinkage)
            mean, covariance = em(standard, observed, shrinkage, prior, *start, tol=tol, long_steps=imputes)
        else:
            mean, covariance = em(standard, observed, shrinkage, wide, long_steps=imputes)
        covariance = torch.lerp(covariance, covariance.diagonal().diag(), self.diagonal)
        self.shrinkage, self.exact = torch.tensor(shrinkage, dtype=torch.float64, device=values.device), exact
        self.mean = location + mean * scale
        self.covariance = covariance * scale[:, None] * scale[None, :]
        self.precision = (_inverse(covariance) / scale[:, None] / scale[None, :]).contiguous()
        return self

    def condition(self, values: Tensor, visible: Tensor, with_variance: bool = True) -> tuple[Tensor, Tensor]:
        """Mean and variance of every cell given the visible cells of its row.

        Parameters
        ----------
        values : (B, E), in the units of `fit`; anything where not visible.
        visible : bool (B, E).
        with_variance : False leaves the variance at its upper bound, the column's own, which saves most of the time in
            tables of hundreds of columns.

        Returns
        -------
        mean : (B, E); the value itself where visible.
        variance : (B, E); 0 where visible.
        """
        dtype, precise = values.dtype, self._dtype(values)
        centred = torch.where(visible, values.to(precise) - self.mean.to(precise), 0)
        mean, variance = conditional(
            centred, visible, self.covariance.to(precise), self.precision.to(precise), with_variance
        )
        broken = torch.nonzero(self._breaks(centred, visible))[:, 0]
        if len(broken):
            blunt = self.covariance + self._prior_of_exact().diag()
            told = conditional(centred[broken].double(), visible[broken], blunt, _inverse(blunt), with_variance)
            mean[broken], variance[broken] = (part.to(precise) for part in told)
        return torch.where(visible, values, (mean + self.mean.to(precise)).to(dtype)), variance.to(dtype)

    def _prior_of_exact(self) -> Tensor:
        """Variances (E,) that the prior of the other columns would add to the exact ones."""
        return torch.where(self.exact, self.shrinkage * self.covariance.diagonal(), 0)

    def _breaks(self, centred: Tensor, visible: Tensor) -> Tensor:
        """Rows (B, E) whose visible cells break what columns say exactly, bool (B,)."""
        if not self.exact.any():
            return torch.zeros(len(centred), dtype=torch.bool, device=centred.device)
        cells, shown = centred[:, self.exact].double(), visible[:, self.exact]
        sharp = self.covariance[self.exact][:, self.exact]
        blunt = sharp + self._prior_of_exact()[self.exact].diag()
        near, far = (squared_distances(cells, shown, covariance) for covariance in (blunt, sharp))
        return far - near > BROKEN

    def _dtype(self, values: Tensor) -> torch.dtype:
        """The type in which conditionals are worked out: double where a single one would round off what they know."""
        left = 1 / (self.precision.diagonal() * self.covariance.diagonal())  # of a column's variance, given all others
        is_sharp = bool((left < SHARP_VARIANCE).any()) or float(self.shrinkage) < SHRINKAGES[0]
        return torch.float64 if is_sharp else values.dtype

    def leave_one_out(self, values: Tensor, visible: Tensor) -> Tensor:
        """Mean of every visible cell given the other visible cells of its row, from one inverse a row.

        Parameters
        ----------
        values : (B, E), in the units of `fit`; anything where not visible.
        visible : bool (B, E).

        Returns
        -------
        mean : (B, E); the column's own where not visible.

        Source: Rasmussen and Williams 2006, equation 5.12.
        """
        precise = self._dtype(values)
        covariance, location = self.covariance.to(precise), self.mean.to(precise)
        centred = torch.where(visible, values.to(precise) - location, 0)
        n_visible = visible.sum(1)
        order = torch.argsort(n_visible)
        sizes, mean = n_visible[order].tolist(), torch.zeros_like(centred)
        start = 0
        while start < len(sizes):
            stop = chunk_end(sizes, start, values.shape[1])
            rows, width = order[start:stop], sizes[stop - 1]
            if width:
                columns, real = positions(visible[rows], width)
                inverse = torch.cholesky_inverse(torch.linalg.cholesky(blocks(covariance, columns, real)))
                known = torch.gather(centred[rows], 1, columns) * real
                residual = (inverse @ known[:, :, None])[:, :, 0] / inverse.diagonal(dim1=1, dim2=2)
                mean[rows] = mean[rows].scatter_add(1, columns, (known - residual) * real)
            start = stop
        return (mean + location).to(values.dtype)


def _standardised(values: Tensor, observed: Tensor, known: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Values in standard deviations of the observed cells (0 where not known), with location and scale."""
    exact = torch.where(known, values, 0).double()
    count = observed.sum(0).clamp_min(1)
    location = torch.where(observed, exact, 0).sum(0) / count
    centred = torch.where(known, exact - location, 0)
    scale = (torch.where(observed, centred, 0).square().sum(0) / count).sqrt()
    scale = torch.where(scale > 1e-6, scale, torch.ones_like(scale))
    return centred / scale, location, scale


def _every_tenth(observed: Tensor) -> Tensor:
    """Every tenth observed cell of each column, beginning at another row from column to column."""
    n_columns = observed.shape[1]
    rank = observed.cumsum(0) + torch.arange(n_columns, device=observed.device)
    return observed & (rank % 10 == 0)


def _chosen(
    values: Tensor, observed: Tensor, held_out: Tensor, wide: Tensor, imputes: bool
) -> tuple[Tensor, Tensor, float]:
    """Mean, covariance and shrinkage of least squared error on held-out cells.

    Levels count by the variance of their indicators, so that a category of many counts no more than a number. The
    errors of an imputer's are those that its ensemble leaves, which shrinks columns to their means.
    """
    errors = _errors_once_shrunk if imputes else _squared_errors
    rows = sampled(len(values), MAX_ROWS_OF_CHOICE)
    values, observed, held_out = values[rows], observed[rows], held_out[rows]
    weight = torch.where(wide > 1, FAIR_COIN / wide, 1)
    best = (float("inf"), SHRINKAGES[-1])
    fitted: dict[float, tuple[Tensor, Tensor]] = {}
    mean, covariance = None, None
    for shrinkage in reversed(SHRINKAGES):
        mean, covariance = fitted[shrinkage] = em(
            values, observed, shrinkage, wide, mean, covariance, max_iter=20, tol=1e-2, long_steps=imputes
        )
        squared = float((weight * errors(values, observed, held_out, mean, covariance)).sum())
        if squared < best[0]:
            best = (squared, shrinkage)
        elif squared > 1.02 * best[0]:
            break
    mean, covariance = fitted[best[1]]
    return mean, covariance, best[1]


def _sharpened(
    values: Tensor, observed: Tensor, held_out: Tensor, shrinkage: float, wide: Tensor, mean: Tensor, covariance: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Mean and covariance with the sharp share for columns that others determine, and which these are, bool (E,).

    Where there are none, or held-out cells don't bear them out, those that are given stay: most tables hold nothing
    that is exact.
    """
    rows = sampled(len(values), MAX_ROWS_OF_CHOICE)
    cells, seen, hidden = values[rows], observed[rows], held_out[rows]
    given, none = (mean, covariance), torch.zeros_like(observed[0])
    found = given
    for most, n_passes in SHARP_PASSES:
        if not (_variances(seen, hidden, found[1]) <= most).any():
            return *given, none
        found = em(cells, seen, SHARP_SHRINKAGE, wide, *found, max_iter=n_passes, tol=SHARP_TOL)
    determined = hidden & (_variances(seen, hidden, found[1]) <= EXACT)
    exact = determined.any(0)
    before, after = (_squared_errors(cells, seen, determined, *moments) for moments in (given, found))
    if not (exact & (after <= SHARPER * before)).any() or after.sum() > before.sum():
        return *given, none
    last = _sharp(wide, exact, shrinkage)
    found = em(values, observed, shrinkage, last, *found, max_iter=LAST_PASSES, tol=SHARP_TOL)
    before, after = (_squared_errors(cells, seen, hidden, *moments) for moments in (given, found))
    return (*found, exact) if after.sum() <= NO_WORSE * before.sum() else (*given, none)


def _sharp(wide: Tensor, exact: Tensor, shrinkage: float) -> Tensor:
    """How `wide` (E,) the prior of a share is, where columns are `exact` (E,) as with the sharp share."""
    return torch.where(exact, SHARP_SHRINKAGE * (1 - shrinkage) / shrinkage, wide)


def _inverse(covariance: Tensor) -> Tensor:
    """Precision (E, E) of a covariance: by its Cholesky factor, whatever was rounded, it is that of a distribution."""
    return torch.cholesky_inverse(torch.linalg.cholesky(covariance))


def _squared_errors(values: Tensor, observed: Tensor, held_out: Tensor, mean: Tensor, covariance: Tensor) -> Tensor:
    """Sum of squared errors of the conditional mean over the held-out cells of each column, (E,)."""
    predicted, target = _predicted(values, observed, held_out, mean, covariance)
    return (predicted - target).square().sum(0)


def _errors_once_shrunk(values: Tensor, observed: Tensor, held_out: Tensor, mean: Tensor, covariance: Tensor) -> Tensor:
    """The same of means shrunk to the column's, in each half of the rows as is best in the other, (E,).

    Columns that nothing tells are shrunk to their mean by others of the ensemble, whatever those want that are told.
    """
    halves = [_predicted(values[half::2], observed[half::2], held_out[half::2], mean, covariance) for half in range(2)]
    shares = [
        ((told * target).sum(0) / told.square().sum(0).clamp_min(torch.finfo(told.dtype).tiny)).clamp(0, 1)
        for told, target in halves
    ]
    errors = [
        (share * told - target).square().sum(0) for share, (told, target) in zip(shares[::-1], halves, strict=True)
    ]
    return errors[0] + errors[1]


def _predicted(
    values: Tensor, observed: Tensor, held_out: Tensor, mean: Tensor, covariance: Tensor
) -> tuple[Tensor, Tensor]:
    """How far the conditional means of held-out cells lie from the columns', and how far the cells do; 0 elsewhere."""
    rows = held_out.any(1)
    values, observed, held_out = values[rows], observed[rows], held_out[rows]
    centred = torch.where(observed, values - mean, 0)
    predicted, _ = conditional(centred, observed, covariance, _inverse(covariance), with_variance=False)
    return torch.where(held_out, predicted, 0), torch.where(held_out, values - mean, 0)


def _variances(observed: Tensor, held_out: Tensor, covariance: Tensor) -> Tensor:
    """Variances (n, E) of the held-out cells given the observed ones of their rows; infinite elsewhere."""
    rows, found = held_out.any(1), torch.full_like(observed, torch.inf, dtype=covariance.dtype)
    nothing = torch.zeros(observed[rows].shape, dtype=covariance.dtype, device=covariance.device)
    _, variance = conditional(nothing, observed[rows], covariance, _inverse(covariance), with_variance=True)
    found[rows] = torch.where(held_out[rows], variance, torch.inf)
    return found

"""`TabMAE`: imputes the missing cells of a table, draws them, bounds them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.random import RandomState
from numpy.typing import ArrayLike
from sklearn.base import OneToOneFeatureMixin, TransformerMixin
from sklearn.utils._set_output import _get_output_config
from sklearn.utils.metaestimators import available_if
from sklearn.utils.validation import check_is_fitted
from torch import Tensor

from tabmae.errors import ParameterError, check_number, listed
from tabmae.estimators import base
from tabmae.estimators.learner import MaskedTableEstimator, near, observed_range
from tabmae.estimators.parameters import check_seed
from tabmae.estimators.table.amounts import excess, with_excess
from tabmae.estimators.table.asking import as_array, has_categories
from tabmae.estimators.table.beyond import ROUNDING, Reach, doubted, extended, far, reach, within
from tabmae.estimators.table.delta import by_whole_steps, shifted_schema
from tabmae.estimators.table.turns import asked_of_some, turns
from tabmae.estimators.validation import Validation, may_be_learnt
from tabmae.model import Batch
from tabmae.saving import register
from tabmae.schema import TableSchema, missing_cells, open_table
from tabmae.tokenizers import CellDistribution


@register
class TabMAE(OneToOneFeatureMixin, TransformerMixin, MaskedTableEstimator):
    """Impute the missing cells of a table of numbers, categories, booleans and dates.

    A masked autoencoder learns to predict cells hidden from it at random, from the visible ones. It starts from the
    conditional mean of a Gaussian fitted by EM, forests start from both, and further trees are trained on the completed
    rows without the Gaussian's estimate; cells held out of training decide, column by column, how far each is believed.
    Numbers are imputed within the range of the observed cells, or beyond it where the Gaussian is sure to be there: at
    most as far as the range is wide, never past a bound that several cells share, nor past zero where no cell is; whole
    numbers and columns of few values stay within. Positive numbers over several decades, whose largest hundredth is
    more than 30 medians large, are learnt by their logarithms unless they add up to each other: `quality_` then counts
    in standard deviations of the logarithm, and `schema_.columns` says `log`. Of dates, days of the week, months and
    hours are learnt, too, where a column follows them.

    Parameters
    ----------
    mask_ratio : share of a row's observed cells to hide in training, or a pair of bounds that it is drawn from for
        each row; "auto" is (0.1, 0.9), because narrower bounds were not better at 30 % of missing cells.
    mask : which cells are hidden: "bernoulli" (each by chance), "block" (a run of neighbouring columns; a rectangle
        with `feature_shape`), "grid" (every k-th), "column" (whole columns of a batch), "copy" (the holes of another
        row), "mixed", or a function (observed, mask_ratio, generator) -> hidden of torch tensors.
    backbone : "mlp", "transformer", "asymmetric" (its encoder sees visible cells only), "conv", or a function
        (n_tokens, d_token) -> torch.nn.Module that keeps the shape (B, n_tokens, d_token); "auto" is "mlp".
    d_token : width of a token; hidden layers of the MLP are 16 times as wide. "auto" is 12, and 16 from 2,000 rows.
    depth : layers; "auto" is 2.
    dropout : share of units dropped in training; "auto" is 0.15, and 0.1 from 2,000 rows.
    loss : error of a number in training: "mse", "mae" or "huber" of its mean, or "nll", its likelihood alone; "auto" is
        "mse". Categories have cross-entropy.
    visible_weight : weight of the mean error over visible cells beside the mean over hidden ones.
    experts : members beside the network: "auto" is ("gaussian", "copies", "trees"): a Gaussian; rows of which a row may
        be an imperfect copy; trees with and without the Gaussian's guess. ("gaussian",) is faster on wide tables, and
        () is the pure masked autoencoder. Copies need rows of fit (up to 10,000), which a saved model then holds.
    categorical_features : "auto" (category, string and bool types), or names, positions or a bool mask of further
        columns that are categories.
    feature_shape : sides of the grid that the columns form, such as (8, 8) for images of 64 pixels; None for no order.
    max_epochs : passes over the rows; "auto" makes 600 steps, and from 2,000 rows on 500 times the power of
        0.8 of rows / 2,000, at most 2,500. Beyond 150 columns it is as many times the root of 150 / columns.
    batch_size : rows of a step; "auto" is 128, and 256 from 2,000 rows.
    lr : peak step size of the cosine schedule; "auto" is 0.004, and 0.006 from 2,000 rows.
    validation_fraction : share of the observed cells held out of training: they choose the best weights, weigh the
        members, calibrate intervals and fill `quality_`. 0 leaves all of that out.
    patience : epochs to wait for a better held-out error; "auto" is a third of all, or less once it goes on rising.
    time_budget : seconds of wall time after which `fit` ends, None for no limit. Training makes fewer steps, with its
        schedule drawn together, and trees grow only as far as time allows, the columns with most holes first; a
        column without is left to the other members. Reading the table, the Gaussian and a last look at the
        held-out cells always run: a second or a few for tens of thousands of rows, more for hundreds of columns. What
        is learnt then depends on the machine, so the same seed no longer gives the same model.
    warm_start : whether `fit` goes on from the model that is there.
    checkpoint : file that keeps the state of training; a `fit` of the same data, parameters and seed that finds it
        goes on from it and ends as if it had not been interrupted. A model that goes on (`warm_start`) needs another.
    device : "auto" (a CUDA GPU where there is one), "cpu", "cuda", "cuda:1".
    precision : "auto" (bfloat16 in training on a GPU), "float32" or "bf16". Predictions are in float64.
    callbacks : functions called with a dict (epoch, error, held_out_error) after every check; True stops training.
    verbose : 1 shows a progress bar.
    random_state : seed of weights, masks, dropout and held-out cells; None draws one.

    Attributes
    ----------
    quality_ : DataFrame, a row a column: `kind`, `skill`, the share of the baseline's error that is gone, `n` held-out
        cells, their `error` (root mean squared error in standard deviations of the column, or share of wrong levels),
        `baseline_error` of the mean or mode, and `weight_mean`, `weight_gaussian`, `weight_network`, `weight_trees`,
        `weight_direct` (trees that know nothing of the Gaussian's guess), `weight_copies` (rows that this one may be a
        copy of), how far each member is believed (of a category, `weight_mean` is that of its frequencies).
    history_ : list of dicts, one a check. n_iter_ : epochs trained.
    schema_ : what each column is. model_ : the torch module. size_ : what the "auto" parameters became.
    calibration_ : held-out levels behind `predict_interval`.
    n_features_in_ : number of columns. feature_names_in_ : their names, if all are strings.

    Source: masked autoencoders, He et al. 2022; for tables, Du et al. 2024 (ReMasker).
    Differs: full-length tokens with a mask token, since rows miss unequal numbers of cells; an expert's guess as input
    and start of the output.

    >>> import pandas as pd
    >>> from tabmae import TabMAE
    >>> rooms = pd.DataFrame({"size": [40.0, 62.0, None, 85.0] * 10, "city": ["Oslo", None, "Rome", "Rome"] * 10})
    >>> complete = TabMAE(max_epochs=5, random_state=0).fit_transform(rooms)
    >>> int(complete.isna().sum().sum())
    0
    """

    _reach: Reach
    _excess: Tensor
    _asked_of_some: Tensor

    def _schema_of(self, X: Any) -> TableSchema:
        """What is learnt of the columns of a table, amounts over several decades by their logarithms."""
        return TableSchema.fit(X, self.categorical_features, resistant=True, doubting=True, logs=True)

    def _judge(self, values: Tensor, observed: Tensor, validation: Validation, most: int) -> None:
        """Set how far numbers reach, too, which the predictions that are judged need."""
        self._reach = reach(self.schema_.columns, values, observed)
        self._excess = torch.zeros(values.shape[1], dtype=torch.float64)
        self._asked_of_some = asked_of_some(self.model_.tokenizer, values, observed)
        super()._judge(values, observed, validation, most)
        errors = torch.tensor(self.quality_["error"].tolist(), dtype=torch.float64).square()
        tokenizer = self.model_.tokenizer
        self._excess = excess(self.schema_.columns, values, observed, errors, tokenizer, validation, most)

    def _believed(self, batch: Batch, found: CellDistribution) -> CellDistribution:
        """The distribution of a batch, its means within the reach of the numbers, wider where nothing was learnt."""
        told = doubted(self.model_, extended(self.model_, found, batch, self._reach), batch, self._reach)
        return with_excess(self.model_.tokenizer, told, batch, self._excess) if self._excess.any() else told

    def _read(self, X: Any) -> tuple[Tensor, Tensor]:
        """Values and observed cells of a table, none farther out than that something is known of the like."""
        values, observed = super()._read(X)
        return near(values, self._reach.low, self._reach.high), observed

    def _in_range(self, values: Tensor) -> Tensor:
        """Numbers within their reach."""
        return values.double().clamp(self._reach.least, self._reach.most)

    def _get_state(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        state, tensors = super()._get_state()
        return state, {
            **tensors,
            "reach.least": self._reach.least,
            "reach.most": self._reach.most,
            "reach.excess": self._excess,
            "asked_of_some": self._asked_of_some,
        }

    def _set_state(self, state: dict[str, Any], tensors: dict[str, Tensor]) -> None:
        super()._set_state(state, tensors)
        low, high = observed_range(self.schema_.columns)
        least, most = tensors["reach.least"], tensors["reach.most"]
        if not (least.shape == most.shape == low.shape and (least <= low).all() and (most >= high).all()):
            raise ValueError("Numbers must reach as far as the observed ones; these do not. Save the model again.")
        self._reach = Reach(low, high, least, most)
        self._excess, self._asked_of_some = tensors["reach.excess"], tensors["asked_of_some"]

    def transform(self, X: Any) -> Any:
        """Impute the missing cells of a table with the columns of fit.

        Parameters
        ----------
        X : (n, F), a container as in fit; unseen rows are welcome, one row too.

        Returns
        -------
        X of the same container, index, column order and dtypes; observed cells as they came.
        """
        values, observed = self._read(X)
        rows = (~observed).any(1)
        filled = values.double()
        filled[rows] = self._points(values[rows], observed[rows])
        completed = self.schema_.decode(filled.numpy(), as_array(X))
        # scikit-learn makes a frame of any other container as if it were an array of one type.
        to_pandas = _get_output_config("transform", self)["dense"] == "pandas" and hasattr(completed, "to_pandas")
        return completed.to_pandas() if to_pandas else completed

    def sample(
        self,
        X: Any,
        n_samples: int = 5,
        random_state: int | RandomState | None = None,
        delta: float | Mapping[Any, float] = 0.0,
    ) -> list[Any]:
        """Draw completed tables from the predictive distribution: multiple imputation.

        The missing cells of a row are drawn in up to four turns in random order, each turn given the ones before, save
        that columns come last which have their cells where another column tells (questions that depend on an answer);
        numbers are spread as far as held-out cells were.

        Parameters
        ----------
        X : (n, F), as for `transform`.
        n_samples : number of tables.
        random_state : seed of the draws; None takes the estimator's.
        delta : how far missing cells are supposed to lie above what the observed ones tell, in standard deviations of
            the column's observed cells in fit, negative for below: one number for every column of numbers or times, or
            a dict from their names (for arrays, positions) to numbers, 0 for the others. A constant column stays, whole
            numbers stay whole, shifted so far on the mean. Where logarithms are learnt, it shifts these: it multiplies.

        Returns
        -------
        Completed tables, as `transform` gives them; what `delta` shifts may leave the range of fit's cells.

        Raises
        ------
        ParameterError : a parameter is out of range, or `delta` names a column that fit saw no numbers or times in.

        Notes
        -----
        `delta` is for cells that may be missing not at random: draw tables for several deltas, and see from which on
        the conclusion changes. The shift comes after the last turn, so tables of one seed and two deltas differ by the
        shift alone.

        Source: delta adjustment, van Buuren 2018, Flexible Imputation of Missing Data, sections 3.8 and 9.2; the
        pattern-mixture model, Little 1993.
        Differs: mice shifts within its rounds, and so moves imputed cells of other columns, too; here the random order
        of the turns would decide how far. Name in `delta` the columns that are to move along.
        """
        check_number("n_samples", n_samples, low=1, integer=True, hint="Pass the number of tables to draw.")
        check_seed(random_state)
        check_is_fitted(self)
        schema = shifted_schema(self.schema_, delta)
        values, observed = self._read(X)
        generator = base.new_generator(self.random_state if random_state is None else random_state)
        by_chance = np.random.default_rng(generator.initial_seed())
        rows = (~observed).any(1)
        tables = []
        for _ in range(n_samples):
            filled = values.double()
            filled[rows] = self._drawn(values[rows], observed[rows], generator)
            by_whole_steps(self.schema_, schema, filled.numpy(), by_chance)
            tables.append(schema.decode(filled.numpy(), as_array(X), whole=True))
        return tables

    def _drawn(self, values: Tensor, visible: Tensor, generator: torch.Generator) -> Tensor:
        """One draw of the invisible cells of values (n, F), turn by turn."""
        drawn, visible, missing = values.double(), visible.clone(), ~visible
        if not len(values):
            return drawn
        turn = turns(missing, self._asked_of_some, generator)

        def answer(distribution: CellDistribution, rows: slice) -> Tensor:
            def level(nominal: Tensor) -> Tensor:
                cells = zip(nominal.cpu().unbind(1), distribution.deviation.cpu().unbind(1), strict=True)
                asked = [self.calibration_.spread(k, *cell) for k, cell in enumerate(cells)]
                return torch.stack(asked, 1) if asked else nominal

            return within(distribution.sample(generator, level, now[rows]), distribution, self._reach).cpu()

        for number in range(int(turn[missing].max()) + 1):
            now = missing & (turn == number)
            found = self._predict(drawn, visible, answer, in_turn=True)
            drawn = torch.where(now, self._in_range(torch.cat(found)), drawn)
            visible = visible | now
        return drawn

    def predict_interval(self, X: Any, level: float = 0.9) -> tuple[Any, Any]:
        """Bounds of the numeric cells, calibrated on held-out cells of each column.

        Parameters
        ----------
        X : (n, F), as for `transform`.
        level : share of missing cells that the interval is to hold, in (0, 1).

        Returns
        -------
        lower, upper : tables of the numeric columns, (n, Fn); both hold the value itself where it is observed, and
            the value that `transform` imputes lies between them, before it is rounded for a column of whole numbers.
            Like imputed values, they stop at a bound that several cells of fit share, and at zero where no cell passed.
            Beside observed cells outside the range of fit's they are wider, the more the farther out these lie.

        Notes
        -----
        The share holds over the columns together. What other rows of the same person tell by nine in ten or more has no
        width, whatever the level. A column of few held-out cells leans on the others: of 200 rows,
        bounds at .5 of a column unlike the others held .40 to .46 of its cells.
        """
        hint = "Pass the share of cells to hold, for example 0.9."
        check_number("level", level, low=0, high=1, low_open=True, high_open=True, hint=hint)
        values, observed = self._read(X)
        rows = (~observed).any(1)
        numbers = self.model_.tokenizer.numbers.tolist()
        low, high, least, most = (end[numbers] for end in self._reach)
        # Beside cells that fit never saw the like of, only what is a bound of its column ends an interval.
        open_below, open_above = (gap >= (1 - ROUNDING) * (high - low) for gap in (low - least, most - high))

        def answer(distribution: CellDistribution, place: slice) -> tuple[Tensor, Tensor]:
            deviations = enumerate(distribution.deviation.cpu().unbind(1))
            asked = [self.calibration_.levels(k, level, deviation) for k, deviation in deviations]
            wanted = ~shown[place][:, numbers]
            lower, upper = distribution.interval(torch.stack(asked, 1) if asked else torch.zeros(0), wanted)
            # The mean of a mixture may lie outside its inner quantiles, yet it is the value that is imputed.
            mean = self._point(distribution)[:, numbers].double()
            strange = is_far[place].any(1, keepdim=True)
            ends = (
                torch.where(strange & open_below, -torch.inf, least),
                torch.where(strange & open_above, torch.inf, most),
            )
            return lower.minimum(mean).clamp(*ends), upper.maximum(mean).clamp(*ends)

        asked_rows, shown = values[rows], observed[rows]
        is_far = far(asked_rows, shown, self._reach)
        found = self._predict(asked_rows, shown, answer)
        bounds = []
        for side in (0, 1):
            bound = values.double()
            if found:
                cells = bound[rows]
                cells[:, numbers] = torch.cat([pair[side] for pair in found]).double()
                bound[rows] = cells
            bounds.append(self.schema_.decode_numbers(bound.numpy(), as_array(X)))
        return bounds[0], bounds[1]

    @available_if(has_categories)
    def predict_proba(self, X: Any, column: Any = None) -> pd.DataFrame:
        """Class probabilities of a categorical column for every row, from the other columns of the row.

        Parameters
        ----------
        X : (n, F), as for `transform`.
        column : a categorical column's name, its position for arrays; may be left out where there is only one.

        Returns
        -------
        DataFrame (n, levels), the most frequent level of the training rows first; rows sum to 1.

        Raises
        ------
        ParameterError : `column` is no categorical column of fit.
        AttributeError : not fitted, or no column of fit is categorical.
        """
        values, observed = self._read(X)
        names = [c.name for c in self.schema_.columns if c.kind == "category"]
        if column is None and len(names) == 1:
            column = names[0]
        if column not in names:
            raise ParameterError(
                f"`column` must be a categorical column; got {column!r}. Categorical columns are {listed(names)}."
            )
        place = [c.name for c in self.schema_.columns].index(column)
        visible = observed.clone()
        visible[:, place] = False
        levels = self.schema_.columns[place].levels

        def answer(distribution: CellDistribution, _: slice) -> Tensor:
            return distribution.probabilities(place).cpu()

        found = self._predict(values, visible, answer, learnt=may_be_learnt(observed, visible))
        modelled = torch.cat(found).numpy()
        n_named = min(len(levels), modelled.shape[1] - (modelled.shape[1] < len(levels)))
        probability = np.empty((len(values), len(levels)))
        probability[:, :n_named] = modelled[:, :n_named]
        if n_named < len(levels):
            probability[:, n_named:] = modelled[:, n_named:] / (len(levels) - n_named)
        probability /= probability.sum(1, keepdims=True)
        return pd.DataFrame(probability, columns=list(levels), index=X.index if isinstance(X, pd.DataFrame) else None)

    def reconstruct(self, X: Any, hidden: ArrayLike | None = None) -> Any:
        """Predict observed cells from the other cells: denoising.

        Parameters
        ----------
        X : (n, F), as for `transform`.
        hidden : bool (n, F), cells to predict from the rest; None predicts every cell, each from the others of its row.

        Returns
        -------
        X of the same container with the predicted cells replaced and missing cells imputed; integers become float64.
        """
        values, observed = self._read(X)
        if hidden is None:
            return self.schema_.full(self._each_from_others(values, observed).numpy(), as_array(X))
        cells = torch.from_numpy(np.array(hidden))
        if cells.dtype != torch.bool or cells.shape != values.shape:
            raise ParameterError(
                f"`hidden` must be a bool array of shape {tuple(values.shape)}; got {cells.dtype} of shape "
                f"{tuple(cells.shape)}. Pass True for each cell to predict."
            )
        places = self.schema_.positions(open_table(X))
        cells = cells[:, places]
        points = self._points(values, observed & ~cells, observed)
        return self.schema_.full(points.numpy(), as_array(X), cells.numpy() | missing_cells(X)[:, places])

    def _each_from_others(self, values: Tensor, observed: Tensor) -> Tensor:
        """Every cell predicted with itself hidden, a column at a time."""
        points = torch.empty(values.shape, dtype=torch.float64)
        for j in range(values.shape[1]):
            visible = observed.clone()
            visible[:, j] = False
            points[:, j] = self._points(values, visible, observed)[:, j]
        return points

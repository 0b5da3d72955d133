"""Fit on a table by masking it, judge by held-out cells, score, encode: what estimators with a network share."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Sequence
from copy import copy, deepcopy
from typing import Any, Self

import numpy as np
import pandas as pd
import torch
from numpy.random import RandomState
from numpy.typing import ArrayLike, NDArray
from sklearn.frozen import FrozenEstimator
from sklearn.utils.validation import check_is_fitted
from torch import Tensor

from tabmae.calibration import Calibration
from tabmae.deadline import Deadline
from tabmae.errors import DataError, ParameterError
from tabmae.estimators import base
from tabmae.estimators.copying import remember_all
from tabmae.estimators.members import MAX_REFIT_ROWS, WEIGHTS, believed_weights, drop_unasked, refit_expert
from tabmae.estimators.parameters import by_name, check_parameters
from tabmae.estimators.row_weights import weighed_rows
from tabmae.estimators.tabular import TabularEstimator, check_enough, unchanged_by_failure
from tabmae.estimators.validation import MAX_JUDGED_ROWS, Judged, Validation, answered, may_be_learnt, rows_at_once
from tabmae.model import Batch, MaskedAutoencoder
from tabmae.saving import part_of, save
from tabmae.schema import Column, TableSchema
from tabmae.schema.cells import objects
from tabmae.threads import threads_if
from tabmae.tokenizers import CellDistribution
from tabmae.training import Callback

IN_HASTE = 10
"""Of so many rows, one judges when a fit is over its time."""
FARTHEST_CELL = 30.0
"""Standard deviations from the mean as which a cell counts that lies farther out."""
SCORE_FRACTION = 0.2
"""Share of the observed cells that `score` hides."""


class MaskedTableEstimator(TabularEstimator):
    """Fit, score and encode of every estimator that learns a table by masking it.

    Attributes
    ----------
    default_ratio : what `mask_ratio` "auto" is.
    expert_diagonal : how far the Gaussian's covariance is moved towards its diagonal.
    """

    default_ratio = (0.1, 0.9)
    """Narrower bounds were not better at 30 % of missing cells."""
    expert_diagonal = 0.0

    @by_name
    def __init__(
        self,
        *,
        mask_ratio: float | tuple[float, float] | str = "auto",
        mask: str | Callable[..., Tensor] = "bernoulli",
        backbone: str | Callable[..., torch.nn.Module] = "auto",
        d_token: int | str = "auto",
        depth: int | str = "auto",
        dropout: float | str = "auto",
        loss: str = "auto",
        visible_weight: float = 0.0,
        experts: Sequence[str] | str = "auto",
        categorical_features: Any = "auto",
        feature_shape: tuple[int, ...] | None = None,
        max_epochs: int | str = "auto",
        batch_size: int | str = "auto",
        lr: float | str = "auto",
        validation_fraction: float = 0.1,
        patience: int | str = "auto",
        time_budget: float | None = None,
        warm_start: bool = False,
        checkpoint: str | os.PathLike[str] | None = None,
        device: str = "auto",
        precision: str = "auto",
        callbacks: Sequence[Callback] | None = None,
        verbose: int = 0,
        random_state: int | RandomState | None = None,
    ) -> None:
        self.mask_ratio = mask_ratio
        self.mask = mask
        self.backbone = backbone
        self.d_token = d_token
        self.depth = depth
        self.dropout = dropout
        self.loss = loss
        self.visible_weight = visible_weight
        self.experts = experts
        self.categorical_features = categorical_features
        self.feature_shape = feature_shape
        self.max_epochs = max_epochs
        self.batch_size = batch_size
        self.lr = lr
        self.validation_fraction = validation_fraction
        self.patience = patience
        self.time_budget = time_budget
        self.warm_start = warm_start
        self.checkpoint = checkpoint
        self.device = device
        self.precision = precision
        self.callbacks = callbacks
        self.verbose = verbose
        self.random_state = random_state

    model_: MaskedAutoencoder
    calibration_: Calibration

    def fit(self, X: Any, y: object = None, sample_weight: ArrayLike | None = None) -> Self:
        """Learn the columns of a table and how they depend on each other, from its observed cells.

        Parameters
        ----------
        X : pandas or polars DataFrame, Arrow table or array (n, F); NaN, None, pd.NA, NaT and null are missing.
        y : ignored.
        sample_weight : (n,), weights of the rows, not negative; they weigh the network's errors, and rows of weight 0
            are left out of everything.

        Raises
        ------
        ParameterError : a parameter is out of range, of the wrong type, or misspelt.
        DataError : X cannot be read, or has fewer than two rows with an observed cell.
        TrainingError : the loss is not finite, or a batch does not fit in the device's memory.
        """
        check_parameters(self)
        deadline = Deadline(self.time_budget)
        goes_on = self.warm_start and hasattr(self, "model_")
        X, weight = weighed_rows(X, sample_weight)
        schema = self.schema_ if goes_on else self._schema_of(X)
        with unchanged_by_failure(self):
            self._check_columns(X, reset=not goes_on)
            return self._fit(X, schema, weight, goes_on, deadline)

    def partial_fit(self, X: Any, y: object = None, sample_weight: ArrayLike | None = None) -> Self:
        """Train on with more rows of the same columns; the first call is `fit`.

        Levels, scales, bins, Gaussian, copied rows, forests, their weights, `quality_` and the calibration stay those
        of the first call, whose held-out cells nothing had seen; the network learns on, with a tenth of the steps of a
        new one.
        """
        if not hasattr(self, "model_"):
            return self.fit(X, y, sample_weight)
        check_parameters(self)
        deadline = Deadline(self.time_budget)
        X, weight = weighed_rows(X, sample_weight)
        self._check_columns(X, reset=False)
        with unchanged_by_failure(self):
            return self._fit(X, self.schema_, weight, True, deadline)

    def _schema_of(self, X: Any) -> TableSchema:
        """What is learnt of the columns of a table."""
        return TableSchema.fit(X, self.categorical_features, resistant=True, doubting=True)

    def _fit(self, X: Any, schema: TableSchema, weight: Tensor | None, goes_on: bool, deadline: Deadline) -> Self:
        values, observed = self._cells(schema, X)
        check_enough(values, observed)
        return self._learn(values, observed, schema, weight, goes_on, deadline)

    @staticmethod
    def _cells(schema: TableSchema, X: Any) -> tuple[Tensor, Tensor]:
        """Cells of a table as they are learnt and asked from, a slip of the pen not far enough out to drown others."""
        values, observed = map(torch.from_numpy, schema.encode(X))
        return bounded(values, schema.n_levels, FARTHEST_CELL), observed

    def _learn(
        self,
        values: Tensor,
        observed: Tensor,
        schema: TableSchema,
        weight: Tensor | None,
        goes_on: bool,
        deadline: Deadline,
    ) -> Self:
        """Train on the cells (n, F) of a schema, judge by held-out cells, and set what fit sets."""
        if not goes_on:
            self.schema_ = schema
        with threads_if(base.pays_threads(base.chosen_size(self, *values.shape), values.shape[1])):
            run = base.fit_model(
                self, values, observed, schema.n_levels, weight, deepcopy(self.model_) if goes_on else None, deadline
            )
            self.model_, self.size_, self.history_ = run.model, run.size, run.history
            self.n_iter_ = math.ceil(run.history[-1]["epoch"])
            if not goes_on:
                most = MAX_JUDGED_ROWS // (IN_HASTE if deadline.passed else 1)
                with base.out_of_memory_explained(self.size_.batch_size):
                    self._judge(values, observed, run.validation, most)
                drop_unasked(self.model_)
                remember_all(self.model_, values, observed)
                if run.validation.parts and len(values) < MAX_REFIT_ROWS and not deadline.passed:
                    refit_expert(self.model_, values, observed)
                    base.teach_held_out(run, values, observed, weight, deadline)
        return self

    @torch.no_grad()
    def _judge(self, values: Tensor, observed: Tensor, validation: Validation, most: int) -> None:
        """Set `quality_` and the calibration from the held-out cells of the cells (n, F) learnt, of `most` rows."""
        numbers = self.model_.tokenizer.numbers.tolist()
        truths, cells = [values[:0]], [observed[:0]]
        told = [(values.double()[:0], values[:0, numbers], values[:0, numbers])]

        def answer(part: Judged, batch: Batch, found: CellDistribution, rows: slice) -> tuple[Tensor, Tensor, Tensor]:
            distribution = self._believed(batch, found)
            target = part.values[rows][:, numbers].to(distribution.direct)
            point, centrality = self._in_range(distribution.point().cpu()), distribution.centrality(target).cpu()
            return point, centrality, distribution.deviation.cpu()

        for part, answers in validation.answered(answer, most):
            told.extend(answers)
            truths.append(part.values.cpu())
            cells.append(part.held_out.cpu())
        truth, held_out = torch.cat(truths).double(), torch.cat(cells)
        point, centrality, deviation = (torch.cat(parts) for parts in zip(*told, strict=True))
        self.calibration_ = Calibration(
            [centrality[held_out[:, j], k] for k, j in enumerate(numbers)],
            self.model_.tokenizer.bins.has_single.tolist(),
            [deviation[held_out[:, j], k] for k, j in enumerate(numbers)],
        )
        rows_of_quality = []
        for j, column in enumerate(self.schema_.columns):
            hidden = held_out[:, j]
            target, predicted = truth[hidden, j], point[hidden, j]
            if column.kind == "number":
                error, baseline = (predicted - target).square().mean().sqrt(), target.square().mean().sqrt()
            else:
                error, baseline = (predicted != target).double().mean(), (target != 0).double().mean()
            rows_of_quality.append((column.kind, len(target), float(error), float(baseline)))
        quality = pd.DataFrame(rows_of_quality, columns=["kind", "n", "error", "baseline_error"])
        quality["skill"] = 1 - quality["error"] / quality["baseline_error"].where(quality["baseline_error"] > 0)
        # Skill comes early, since a narrow terminal shows the first and the last columns alone.
        quality = quality[["kind", "skill", "n", "error", "baseline_error"]]
        quality[list(WEIGHTS)] = believed_weights(self.model_)
        quality.index = self._column_index()
        self.quality_ = quality

    def _column_index(self) -> pd.Index:
        """The names of the columns; a tuple is one name."""
        names = objects([column.name for column in self.schema_.columns])
        return pd.Index(names, name="column", dtype=object, tupleize_cols=False)

    def _predict(
        self,
        values: Tensor,
        visible: Tensor,
        answer: Callable[[CellDistribution, slice], Any],
        learnt: Tensor | None = None,
        in_turn: bool = False,
    ) -> list[Any]:
        """What `answer` says of each batch of values (n, F), given which rows it has; the rest as in `answered`."""

        def told(batch: Batch, found: CellDistribution, rows: slice) -> Any:
            return answer(self._believed(batch, found), rows)

        with torch.no_grad(), base.out_of_memory_explained(self.size_.batch_size):
            return answered(self.model_, values, visible, told, learnt=learnt, in_turn=in_turn)

    def _believed(self, batch: Batch, found: CellDistribution) -> CellDistribution:
        """The distribution of a batch as the estimator tells it: here as the model found it."""
        return found

    def _point(self, distribution: CellDistribution) -> Tensor:
        """What is imputed, (B, F) on the processor."""
        return distribution.point().cpu()

    def _in_range(self, values: Tensor) -> Tensor:
        """Numbers within the range of the training cells."""
        return torch.clamp(values.double(), *observed_range(self.schema_.columns))

    def encode(self, X: Any) -> NDArray[np.float32]:
        """Embed rows from their observed cells; float32 (n, d), d the width of the latent."""
        values, observed = self._read(X)
        weight = next(self.model_.parameters())
        batch = rows_at_once(self.model_)
        with torch.no_grad(), base.out_of_memory_explained(self.size_.batch_size):
            parts = [
                self.model_.encode(rows.to(weight), shown.to(weight.device)).mean(1).cpu()
                for rows, shown in zip(values.split(batch), observed.split(batch), strict=True)
            ]
        return torch.cat(parts).float().numpy()

    def score(self, X: Any, y: object = None) -> float:
        """Minus the mean error on cells of X hidden here, always the same for the same shape; higher is better.

        The error of a column is its root mean squared error in standard deviations, or its error rate; the mean is over
        columns with hidden cells.
        """
        values, observed = self._read(X)
        generator = torch.Generator().manual_seed(0)
        hidden = observed & (torch.rand(observed.shape, generator=generator) < SCORE_FRACTION)
        if not hidden.any():
            raise DataError("X must have observed cells to be scored on; it has too few. Pass more rows.")
        points = self._points(values, observed & ~hidden, observed)
        errors = []
        for j, column in enumerate(self.schema_.columns):
            target, predicted = values[hidden[:, j], j].double(), points[hidden[:, j], j]
            if len(target) and column.kind == "number":
                errors.append((predicted - target).square().mean().sqrt())
            elif len(target):
                errors.append((predicted != target).double().mean())
        return -float(torch.stack(errors).mean())

    def _points(self, values: Tensor, visible: Tensor, observed: Tensor | None = None) -> Tensor:
        """Imputed values of the invisible cells of values (n, F), of which some are `observed` (n, F), or none."""
        learnt = None if observed is None else may_be_learnt(observed, visible)
        found = self._predict(values, visible, lambda distribution, _: self._point(distribution), learnt=learnt)
        return self._in_range(torch.cat(found)) if found else values.double()

    def _get_state(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        state = {
            "schema": self.schema_.to_dict(),
            "size": list(self.size_),
            "loss": self.model_.tokenizer.loss,
            "feature_shape": getattr(self.model_.backbone, "shape", None),
            "history": self.history_,
            "n_iter": self.n_iter_,
            "n_features_in": self.n_features_in_,
            "feature_names_in": list(getattr(self, "feature_names_in_", [])),
            "quality": self.quality_.reset_index(drop=True).to_dict("list"),
        }
        tensors = {f"model.{name}": tensor.cpu() for name, tensor in self.model_.state_dict().items()}
        tensors |= {f"calibration.{k}": cells for k, cells in enumerate(self.calibration_.centrality)}
        tensors |= {f"deviation.{k}": cells for k, cells in enumerate(self.calibration_.deviations)}
        return state, tensors

    def _set_state(self, state: dict[str, Any], tensors: dict[str, Tensor]) -> None:
        check_parameters(self)
        self.schema_ = TableSchema.from_dict(state["schema"])
        self.size_ = base.Size(*state["size"])
        self.history_, self.n_iter_ = state["history"], state["n_iter"]
        self.n_features_in_ = state["n_features_in"]
        if state["feature_names_in"]:
            self.feature_names_in_ = np.array(state["feature_names_in"], dtype=object)
        self.quality_ = pd.DataFrame(state["quality"])
        self.quality_.index = self._column_index()
        told = self.schema_.n_levels, state["loss"], part_of(tensors, "model."), state["feature_shape"]
        self.model_ = base.restored_model(self, self.size_, *told)
        has_single = self.model_.tokenizer.bins.has_single.tolist()
        centrality, deviations = (
            [tensors[f"{name}.{k}"] for k in range(len(has_single))] for name in ("calibration", "deviation")
        )
        self.calibration_ = Calibration(centrality, has_single, deviations)


def check_pretrained(pretrained: Any) -> MaskedTableEstimator | None:
    """The fitted estimator that is to be started from, out of its frame if it is frozen.

    Raises
    ------
    ParameterError : it is none. NotFittedError : it is not fitted.
    """
    fitted = pretrained.estimator if isinstance(pretrained, FrozenEstimator) else pretrained
    if fitted is None:
        return None
    if not isinstance(fitted, MaskedTableEstimator):
        raise ParameterError(
            f"`pretrained` must be a fitted TabMAE; got {type(fitted).__name__}. Pass TabMAE().fit(X)."
        )
    check_is_fitted(fitted, "model_")
    return fitted


def save_without_pretrained(
    estimator: Any, network: MaskedTableEstimator | None, folder: str | os.PathLike[str]
) -> None:
    """Save an estimator that holds its network, and so need not keep the `pretrained` that it was made from."""
    if network is not None and callable(network.size_.backbone):
        raise ParameterError(
            "A network must be one of this package's to be saved; `backbone` was a function. Name a backbone."
        )
    bare = copy(estimator)
    bare.pretrained = None
    bare._check()
    save(bare, folder)


def bounded(values: Tensor, n_levels: Sequence[int], farthest: float) -> Tensor:
    """Cells (B, F) with numbers at most `farthest` standard deviations from the mean; codes of levels as they are."""
    is_number = torch.tensor(n_levels, device=values.device) == 0
    return torch.where(is_number, values.clamp(-farthest, farthest), values)


def observed_range(columns: Sequence[Column]) -> tuple[Tensor, Tensor]:
    """Lowest and highest observed number of each column in standard deviations; float64 (F,) each."""
    number = [column.kind == "number" and column.learnable for column in columns]
    low = [float(c.standard(c.low)) if n else -torch.inf for c, n in zip(columns, number, strict=True)]
    high = [float(c.standard(c.high)) if n else torch.inf for c, n in zip(columns, number, strict=True)]
    return torch.tensor(low, dtype=torch.float64), torch.tensor(high, dtype=torch.float64)


def near(values: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """Cells (B, F) at most as far outside the range of the observed ones (F,) as that is wide: of what lies farther
    out, nothing more can be told of the others."""
    width = torch.where(low.isfinite(), high - low, 0.0)
    return values.clamp((low - width).to(values), (high + width).to(values))

"""What classifier and regressor share: pretraining, completed rows, the members, what is told of them and saved.

Contract: a label is learnt by the members alone; the masked autoencoder that completes the rows never sees one.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any, Self

import numpy as np
import pandas as pd
import sklearn
import torch
from numpy.random import RandomState
from numpy.typing import NDArray
from sklearn.frozen import FrozenEstimator
from sklearn.utils.validation import check_is_fitted
from torch import Tensor

from tabmae.errors import ParameterError
from tabmae.estimators import base
from tabmae.estimators.learner import (
    MaskedTableEstimator,
    check_pretrained,
    near,
    observed_range,
    save_without_pretrained,
)
from tabmae.estimators.parameters import by_name, check_parameters, chosen_members
from tabmae.estimators.supervised.members import MEMBERS, Ensemble, joined, restored
from tabmae.estimators.supervised.network import Rows
from tabmae.estimators.tabular import TabularEstimator, unchanged_by_failure
from tabmae.estimators.validation import rows_at_once
from tabmae.experts.boosting import opens
from tabmae.masks import bernoulli, draw_ratio
from tabmae.saving import part_of
from tabmae.training import Callback, draw_seed

OWN = ("pretrained", "members")
"""Parameters that the masked autoencoder does not have."""
SHAPING = ("experts", "feature_shape", "device")
"""Parameters of a pretrained one that its saved weights need."""
MAX_LABELS = 200_000
"""Labelled rows that are learnt."""
N_COPIES = 3
MANY_LABELS = 20_000
"""Masked copies of a labelled row, and the labels from which on there is one alone."""
MASK_RATIO = (0.0, 0.6)
"""Share of a copy's cells that are hidden."""


class SupervisedTableEstimator(TabularEstimator):
    """What classifier and regressor share: pretraining, completed rows, the members, and a folder to be saved in."""

    @by_name
    def __init__(
        self,
        *,
        pretrained: MaskedTableEstimator | FrozenEstimator | None = None,
        members: Sequence[str] | str = "auto",
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
        checkpoint: str | os.PathLike[str] | None = None,
        device: str = "auto",
        precision: str = "auto",
        callbacks: Sequence[Callback] | None = None,
        verbose: int = 0,
        random_state: int | RandomState | None = None,
    ) -> None:
        self.pretrained = pretrained
        self.members = members
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
        self.checkpoint = checkpoint
        self.device = device
        self.precision = precision
        self.callbacks = callbacks
        self.verbose = verbose
        self.random_state = random_state

    pretrained_: MaskedTableEstimator
    imputer_: MaskedTableEstimator
    ensemble_: Ensemble
    _unit = 1.0
    """What errors are told in: nats, or what a standard deviation of the target is."""
    _baseline_error: float

    def pretrain(self, X: Any) -> Self:
        """Learn the columns of a table without a target; every `fit` after it starts from what is learnt here.

        Later changes of the parameters of pretraining have no effect on it; `clone` and `save` forget it.

        Parameters
        ----------
        X : (n, F), unlabelled rows, a container as in `fit`; rows with labels may be among them.

        Raises
        ------
        ParameterError : a parameter is out of range, or `pretrained` was given besides.
        DataError, TrainingError : as of `TabMAE.fit`.
        """
        self._check()
        if self.pretrained is not None:
            raise ParameterError(
                "`pretrained` must be None to pretrain; it was given. Drop it, or fit with it and do not pretrain."
            )
        with unchanged_by_failure(self):
            self.pretrained_ = MaskedTableEstimator(**self._training_parameters(self._seed())).fit(X)
            self._check_columns(X, reset=True)
        return self

    def _fit(
        self, X: Any, known: NDArray[np.bool_], target: Tensor, n_levels: int, sample_weight: Tensor | None
    ) -> None:
        """Pretrain on all rows where nothing is pretrained, and fit the members to those with a label.

        Parameters
        ----------
        known : (n,), the rows with a label. target : (m,), codes, or numbers in standard deviations, of these rows.
        sample_weight : (m,), how far each counts, 1 on the mean; None for alike.
        """
        generator = base.new_generator(self.random_state)
        given = check_pretrained(self.pretrained)
        imputer = getattr(self, "pretrained_", None) if given is None else plain(given)
        if imputer is None:
            imputer = MaskedTableEstimator(**self._training_parameters(draw_seed(generator))).fit(X)
        else:
            imputer._check_columns(X, reset=False)
        self._check_columns(X, reset=True)
        self.imputer_, self.schema_ = imputer, imputer.schema_
        values, observed = (cells[torch.from_numpy(known)] for cells in self._read(X))
        if len(target) > MAX_LABELS:
            learnt = torch.randperm(len(target), generator=generator)[:MAX_LABELS]
            values, observed, target = values[learnt], observed[learnt], target[learnt]
            if sample_weight is not None:
                sample_weight = sample_weight[learnt] / sample_weight[learnt].mean()
        shown = [observed]
        for _ in range(N_COPIES if len(target) <= MANY_LABELS else 1):
            hidden = bernoulli(observed, draw_ratio(MASK_RATIO, len(observed), generator), generator)
            shown.append(observed & ~hidden)
        copies = [self._rows(values, visible, observed) for visible in shown]
        device = next(imputer.model_.parameters()).device
        weight = None if sample_weight is None else sample_weight.to(device)
        self.ensemble_ = Ensemble(n_levels).fit(
            self._chosen_members(), copies, target.to(device), imputer.model_, generator, weight
        )

    def _chosen_members(self) -> tuple[str, ...]:
        """The members to fit: of "auto" those that this scikit-learn lets be had."""
        names = chosen_members(self.members, MEMBERS)
        if "boosting" not in names or opens():
            return names
        if not isinstance(self.members, str):
            raise ParameterError(
                f"The boosted trees of scikit-learn {sklearn.__version__} cannot be read; `members` names 'boosting'. "
                "Leave it out, or install a version of scikit-learn that this package was tested with."
            )
        return tuple(name for name in names if name != "boosting")

    @staticmethod
    def _cells(schema: Any, X: Any) -> tuple[Tensor, Tensor]:
        """Cells of a table as those of the masked autoencoder, none farther out than that something is known of it."""
        values, observed = MaskedTableEstimator._cells(schema, X)
        return near(values, *observed_range(schema.columns)), observed

    def _rows(self, values: Tensor, visible: Tensor, observed: Tensor | None = None) -> Rows:
        """Rows (n, F) as the members read them, completed from the visible cells; `observed` ones may be hidden."""
        model = self.imputer_.model_
        weight = next(model.parameters())
        points = self.imputer_._points(values, visible, observed)
        completed = torch.where(visible, values.double(), points).to(weight)
        values, visible = torch.where(visible, values, 0).to(weight), visible.to(weight.device)
        size = rows_at_once(model)
        parts = [
            Rows(cells, shown, model.guess(cells, shown), model.tokenizer.sweep_cells(whole))
            for cells, shown, whole in zip(values.split(size), visible.split(size), completed.split(size), strict=True)
        ]
        return joined(parts)

    def _predicted(self, X: Any) -> Tensor:
        """Numbers in standard deviations (n, 1), or probabilities (n, L), on the CPU."""
        check_is_fitted(self, "ensemble_")
        return self._asked(X, self.ensemble_.predict)

    def _asked(self, X: Any, answer: Callable[[Rows], Tensor]) -> Tensor:
        """What `answer` says of the rows (n, F) of a table, batch by batch, on the CPU."""
        values, observed = self._read(X)
        size = rows_at_once(self.imputer_.model_)
        with torch.no_grad(), base.out_of_memory_explained(size):
            parts = [
                answer(self._rows(cells, shown)).cpu()
                for cells, shown in zip(values.split(size), observed.split(size), strict=True)
            ]
        return torch.cat(parts)

    @property
    def quality_(self) -> pd.DataFrame:
        """How well each member, and all together, predict labelled rows that they did not learn.

        DataFrame, a row a member, the last one "ensemble": `error`, log loss in nats or root mean squared error in
        units of the target, `baseline_error` of the classes' frequencies or the mean, `skill`, the share of it that is
        gone (NaN where the target never varies), and `weight`, how far the member is believed on rows as complete as
        these. Rows with more missing cells have other weights, chosen by masked copies of these.
        """
        check_is_fitted(self, "ensemble_")
        index = pd.Index([*self.ensemble_.members, "ensemble"], name="member")
        error = self.ensemble_.held_out_errors.cpu().numpy() * self._unit
        frame = pd.DataFrame({"error": error, "baseline_error": self._baseline_error}, index=index)
        frame["skill"] = 1 - frame["error"] / frame["baseline_error"].where(frame["baseline_error"] > 0)
        frame["weight"] = [*self.ensemble_.weights[0].tolist(), 1.0]
        return frame

    def _seed(self) -> int:
        return draw_seed(base.new_generator(self.random_state))

    def _training_parameters(self, seed: int) -> dict[str, Any]:
        """Parameters of the masked autoencoder."""
        given = {name: value for name, value in self.get_params(deep=False).items() if name not in OWN}
        return given | {"random_state": seed}

    def _check(self) -> None:
        """Check every parameter."""
        check_parameters(
            MaskedTableEstimator(**self._training_parameters(0)).set_params(random_state=self.random_state)
        )
        check_pretrained(self.pretrained)
        self._chosen_members()

    def save(self, folder: str | os.PathLike[str]) -> None:
        """Write the fitted estimator to a folder, whole or not at all; `tabmae.load` reads it.

        Raises
        ------
        ParameterError : a parameter is a function, which cannot be saved.
        """
        check_is_fitted(self, "ensemble_")
        save_without_pretrained(self, self.imputer_, folder)

    def _get_state(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        of_imputer, tensors = self.imputer_._get_state()
        state = {
            "imputer": of_imputer,
            "imputer_params": {name: getattr(self.imputer_, name) for name in SHAPING},
            "n_levels": self.ensemble_.n_levels,
            "baseline_error": self._baseline_error,
        }
        of_members = {f"ensemble.{name}": tensor for name, tensor in self.ensemble_.state_dict().items()}
        return state, {f"imputer.{name}": tensor for name, tensor in tensors.items()} | of_members

    def _set_state(self, state: dict[str, Any], tensors: dict[str, Tensor]) -> None:
        self._check()
        parameters = self._training_parameters(0) | state["imputer_params"]
        self.imputer_ = MaskedTableEstimator(**parameters)
        self.imputer_._set_state(state["imputer"], part_of(tensors, "imputer."))
        self.schema_, self.n_features_in_ = self.imputer_.schema_, self.imputer_.n_features_in_
        if hasattr(self.imputer_, "feature_names_in_"):
            self.feature_names_in_ = self.imputer_.feature_names_in_
        self.ensemble_ = restored(state["n_levels"], part_of(tensors, "ensemble."), self.imputer_.model_)
        self._baseline_error = state["baseline_error"]


def plain(fitted: MaskedTableEstimator) -> MaskedTableEstimator:
    """A fitted estimator as its base class completes rows, which a folder can keep whatever the class was."""
    imputer = MaskedTableEstimator()
    imputer.__dict__.update(fitted.__dict__)
    return imputer

"""`TabMAEDetector`: finds odd rows of a table, and tells which of their cells are odd."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any, Self

import numpy as np
import pandas as pd
import torch
from numpy.random import RandomState
from numpy.typing import NDArray
from sklearn.base import OutlierMixin
from sklearn.frozen import FrozenEstimator
from sklearn.utils.validation import check_is_fitted
from torch import Tensor

from tabmae.calibration import p_value
from tabmae.deadline import Deadline
from tabmae.errors import ParameterError, check_number
from tabmae.estimators import base
from tabmae.estimators.detector.alarms import alarm_threshold
from tabmae.estimators.detector.checks import check_own_parameters
from tabmae.estimators.detector.explanation import as_frame, explained
from tabmae.estimators.detector.forests import CellForests
from tabmae.estimators.detector.members import MEMBERS, MEMBERS_AMONG_OUTLIERS, Members, new_members
from tabmae.estimators.detector.network import CellNetwork, Cells
from tabmae.estimators.detector.normal_rows import NormalRows
from tabmae.estimators.detector.presence import PRESENCE, Presence
from tabmae.estimators.detector.relations import RELATIONS, Relations
from tabmae.estimators.learner import MaskedTableEstimator, check_pretrained, save_without_pretrained
from tabmae.estimators.parameters import by_name, check_parameters, chosen_members, is_auto
from tabmae.estimators.tabular import TabularEstimator, check_enough, unchanged_by_failure
from tabmae.saving import register
from tabmae.schema import TableSchema
from tabmae.training import Callback, draw_seed

EXPERTS = ("gaussian",)
"""What `experts` "auto" is: forests would take most of the time."""
DROPOUT = 0.05
SHARE_OF_FORESTS = 0.3
"""Share of a time budget in which forests grow at most, before the network trains."""
OWN = ("contamination", "pretrained", "members")
"""Parameters that the network's estimator does not have."""
LEAST_ROWS = 4


@register
class TabMAEDetector(OutlierMixin, TabularEstimator):
    """Find odd rows of a table of numbers, categories, booleans and dates, with or without missing cells, and say why.

    Members judge a row: its mean distance to the nearest rows of fit on three scales of the numbers, which finds rows
    that lie apart, and the surprise of a masked autoencoder, and of forests that predict each column from the others,
    at each cell given the others, which finds cells that do not go with their row. A distance counts more where the
    rows of fit lie close together, and a hole little. Each member's value becomes minus the log of the share of normal
    rows that are at least as odd, that of network and forests times twice the share of the columns that they do not
    explain. These two count as one, by a mean in which the forests have twice the weight; the two largest are added,
    how far a number is off its proportions to others, and that a value stands where there must be none, as by the skip
    pattern of a questionnaire. A number that breaks a sharp relation, as that of a total to its parts, makes its row as
    odd by itself. With a `contamination` twice the mean of network and forests is added to that of the distances.

    Parameters
    ----------
    contamination : "auto", for fitting on normal rows: a new row is an outlier when fewer than 5 % of such rows are as
        odd; or the share of outliers among the rows of fit, in (0, 0.5], so many of which become outliers. Distances
        are to rows without the worst 20 % by an isolation forest, or that share if it is larger; network and forests
        learn all rows whose cells go together as most of these do, also at the ends of the data.
    pretrained : a fitted `TabMAE` whose network (without forests) and columns are used instead of training one; it is
        not changed, and not saved with the detector, which holds its network. In what clones a detector (a grid
        search), pass `sklearn.frozen.FrozenEstimator(model)`.
    members : "auto" for all (with a `contamination` the first five), or names out of "distance" (numbers in standard
        deviations), "log_distance" (on logarithmic scales), "rank_distance" (by normal scores of their ranks),
        "network", "forests", "relations" (a linear one of numbers), "proportions" (one of logarithms) and "presence"
        (values that other cells rule out). Without the network a fit takes a fraction of the time, and cannot explain.
    mask_ratio : as in `TabMAE`; "auto" is (0.05, 0.8).
    dropout : as in `TabMAE`; "auto" is 0.05.
    experts : as in `TabMAE`; "auto" is ("gaussian",), its covariance moved towards its diagonal.
    time_budget : seconds of wall time after which the training of the network ends, None for no limit; forests grow
        before it, within three tenths of them, and columns without one count as not odd; the distances, and the scores
        of the rows that are held out, come after it.
    mask, backbone, d_token, depth, loss, visible_weight, categorical_features, feature_shape, max_epochs, batch_size,
    lr, validation_fraction, patience, checkpoint, device, precision, callbacks, verbose : as in `TabMAE`.
    random_state : seed of weights, masks, dropout and held-out rows; None draws one.

    Attributes
    ----------
    offset_ : score below which a row is an outlier; -inf under "auto" where fit had fewer than 38 rows, too few to
        call any one odd. threshold_ : anomaly score above which it is, PyOD's sign.
    held_out_scores_ : sorted anomaly scores of rows of fit that the members did not learn from.
    quality_ : as in `TabMAE`, how well the network predicts each column. members_ : what judges, once fitted.
    schema_ : what each column is. n_features_in_ : their number. feature_names_in_ : their names, if all are strings.

    Notes
    -----
    A fifth of the rows (40 at least, half of the table at most, 2,000 at most) is held out of training, and of all
    that says what is normal; `p_value` compares with them. A row that equals a remembered row of fit in every cell is
    taken to be that row, so that rows of fit get their leave-one-out distance. A level of a category that fit has not
    seen is unlike every other, and as surprising as one that the network rules out. Up to 10,000 rows are remembered.
    Forests grow on up to 2,000 rows and 200,000 cells of them; a table of more than 300 numbers and levels has none,
    nor has a column of fewer than 10 known cells in either half of these rows. Where a value must not be is learnt from
    the same rows, of columns that have as many holes, too. The scores of the rows of fit (PyOD's `decision_scores_`,
    `labels_`) are not kept: ask for `anomaly_score(X)`.

    A distance is divided by the root of the mean spacing of the nearest rows, save with a `contamination`: outliers
    would be near others, as widely spaced as they are.

    Source: the method is this package's own; distances, Ramaswamy et al. 2000; their spacing, Breunig et al. 2000;
    masked cells as a score, Thimonier et al. 2024 (NPT-AD); conditional models, Noto et al. 2012 (FRaC); the trimming
    forest, Liu et al. 2008.
    Differs from NPT-AD: every cell is hidden alone, and the distances are added.

    >>> import numpy as np
    >>> from tabmae import TabMAEDetector
    >>> x = np.random.default_rng(0).normal(size=(200, 1))
    >>> detector = TabMAEDetector(max_epochs=20, random_state=0).fit(np.hstack([x, x, -x]))
    >>> detector.predict([[1.0, 1.0, -1.0], [1.0, -1.0, -1.0]])
    array([ 1, -1])
    """

    @by_name
    def __init__(
        self,
        *,
        contamination: float | str = "auto",
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
        self.contamination = contamination
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

    members_: Members
    held_out_scores_: Tensor

    def fit(self, X: Any, y: object = None) -> Self:
        """Learn what rows of a table are like.

        Parameters
        ----------
        X : pandas or polars DataFrame, Arrow table or array (n, F); NaN, None, pd.NA, NaT and null are missing.
        y : ignored.

        Raises
        ------
        ParameterError : a parameter is out of range, of the wrong type, or misspelt.
        DataError : X cannot be read, has fewer than 4 rows with an observed cell, or other columns than `pretrained`.
        TrainingError : the loss is not finite, or a batch does not fit in the device's memory.
        """
        self._check()
        deadline = Deadline(self.time_budget)
        pretrained = check_pretrained(self.pretrained)
        if pretrained is None:
            schema = TableSchema.fit(X, self.categorical_features, resistant=True)
        else:
            schema = pretrained.schema_
            pretrained._check_columns(X, reset=False)
        with unchanged_by_failure(self):
            self._check_columns(X, reset=True)
            values, observed = self._cells(schema, X)
            check_enough(values, observed, LEAST_ROWS)
            self.schema_ = schema
            generator = base.new_generator(self.random_state)
            share = 0.0 if self.contamination == "auto" else float(self.contamination)
            told = torch.nonzero(observed.any(1))[:, 0]
            self._learn((values[told], observed[told]), share, generator, deadline)
            if share:
                scores = -self._scores(values, observed).numpy()
                self.offset_ = float(np.percentile(scores, 100 * share))
            else:
                self.offset_ = -alarm_threshold(self.held_out_scores_, len(told))
        return self

    def _learn(self, cells: Cells, share: float, generator: torch.Generator, deadline: Deadline) -> None:
        """Fit the members to the normal ones among rows (n, F), of which a share are outliers."""
        network, forests, relations, presence, pretrained = None, None, None, None, check_pretrained(self.pretrained)
        is_normal, n_levels = self.contamination == "auto", self.schema_.n_levels
        names = MEMBERS if is_normal else MEMBERS_AMONG_OUTLIERS
        if not isinstance(self.members, str):
            names = chosen_members(self.members, MEMBERS)
        normal = NormalRows.draw(*cells, share, n_levels, generator)
        learnt, seeds = (cells[0][normal.learnt], cells[1][normal.learnt]), [draw_seed(generator) for _ in range(3)]
        if "forests" in names:
            forests = CellForests.fit(learnt, n_levels, seeds[1], deadline.part(SHARE_OF_FORESTS))
        if set(RELATIONS) & set(names):
            relations = Relations.fit(learnt, self.schema_.columns, n_levels)
        if PRESENCE in names:
            presence = Presence.fit(learnt, n_levels, seeds[2], deadline.part(SHARE_OF_FORESTS))
        if pretrained is not None:
            network = CellNetwork.of(pretrained)
        elif "network" in names:
            network = CellNetwork(**self._training_parameters(seeds[0]))
            network.learn(*learnt, self.schema_, deadline, is_normal)
        device = base.pick_device(self.device)
        self.members_ = new_members(names, network, forests, relations, presence, n_levels, device, is_normal)
        self.held_out_scores_ = self.members_.fit(*cells, normal).sort().values

    @staticmethod
    def _cells(schema: TableSchema, X: Any) -> tuple[Tensor, Tensor]:
        """Cells of a table; a level unseen in fit is no missing cell but an odd one."""
        values, observed = schema.encode(X, unseen_observed=True)
        return torch.from_numpy(values), torch.from_numpy(observed)

    def _training_parameters(self, seed: int) -> dict[str, Any]:
        """Parameters of the network's estimator, "auto" filled in where a detector's is another."""
        given = {name: value for name, value in self.get_params(deep=False).items() if name not in OWN}
        auto = {"experts": EXPERTS, "dropout": DROPOUT}
        changed = {name: value for name, value in auto.items() if is_auto(given[name])}
        return {**given, **changed, "random_state": seed}

    def _check(self) -> None:
        """Check every parameter."""
        check_parameters(
            MaskedTableEstimator(**self._training_parameters(0)).set_params(random_state=self.random_state)
        )
        check_own_parameters(self.contamination, self.members, self.pretrained)

    def _scores(self, values: Tensor, observed: Tensor) -> Tensor:
        """Anomaly scores of rows (B, F), (B,)."""
        return self.members_.added(self.members_.scores(values, observed))

    def anomaly_score(self, X: Any, *, by_member: bool = False) -> Any:
        """How odd each row is, in nats; higher is odder.

        Parameters
        ----------
        X : (n, F), a container as in fit.
        by_member : give a DataFrame (n, members) of each member's evidence instead, of which the two largest are added,
            network and forests counted as one, or with a `contamination` all, and distances as one, too; then
            proportions and presence are. Relations are the score where they are larger.

        Returns
        -------
        float64 (n,). A row without an observed cell is as odd as the median row.
        """
        values, observed = self._read(X)
        if not by_member:
            return self._scores(values, observed).numpy()
        index = X.index if isinstance(X, pd.DataFrame) else None
        scores = self.members_.scores(values, observed).numpy()
        return pd.DataFrame(scores, columns=list(self.members_.names), index=index)

    def score_samples(self, X: Any) -> NDArray[np.float64]:
        """Minus `anomaly_score`: how normal each row is, (n,)."""
        return -self.anomaly_score(X)

    def decision_function(self, X: Any) -> NDArray[np.float64]:
        """`score_samples` minus `offset_`: below 0 for outliers, never for a row without an observed cell, (n,)."""
        values, observed = self._read(X)
        above = -self._scores(values, observed) - self.offset_
        return torch.where(observed.any(1), above, above.clamp_min(0)).numpy()

    def predict(self, X: Any) -> NDArray[np.int64]:
        """-1 for outliers, 1 for other rows, (n,)."""
        return np.where(self.decision_function(X) < 0, -1, 1)

    @property
    def threshold_(self) -> float:
        """Anomaly score above which a row is an outlier."""
        check_is_fitted(self, "offset_")
        return -self.offset_

    @property
    def quality_(self) -> pd.DataFrame:
        """How well the network predicts each column, as of `TabMAE`."""
        return self._network("quality_").quality_

    def _network(self, asked: str) -> CellNetwork:
        check_is_fitted(self, "offset_")
        if self.members_.network is None:
            raise ParameterError(
                f"`{asked}` needs the network; `members` was {self.members!r}. Fit with members='auto', or name "
                "'network' among them."
            )
        return self.members_.network

    def p_value(self, X: Any) -> NDArray[np.float64]:
        """Share of normal rows that are at least as odd as each row, the row included, (n,) in (0, 1].

        If a new row comes from where the rows of fit came from, its p-value is at most a with a probability of at most
        a, whatever they are like: the rows that it is compared with were held out of all that was learnt. This holds
        under `contamination` "auto", and with `pretrained` if that did not see the rows of this fit. A row without an
        observed cell has 1.
        """
        values, observed = self._read(X)
        p = p_value(self.held_out_scores_, self._scores(values, observed))
        return torch.where(observed.any(1), p, 1.0).numpy()

    def explain(self, X: Any, level: float = 0.9) -> pd.DataFrame:
        """Which cells make a row odd, and what would be expected in their place given the others.

        Parameters
        ----------
        X : (n, F), a container as in fit.
        level : share of a column's normal cells that its interval is to hold, in (0, 1).

        Returns
        -------
        DataFrame, one row a cell, in the order of X's rows and of fit's columns: `row` (index label, or position),
        `column`, `value`, `contribution`, by how many nats the row's cells are less surprising without this one, what
        it does to the others included, 0 for missing cells; `expected`, the mean or the likeliest level; `lower` and
        `upper`, bounds of numbers and times, missing for categories.

        Surprise is the mean of what surprises the network, a Gaussian of the logarithms and, if forests are members,
        the column's forest, at each cell given the others, beyond what is usual in its column; what tells of a broken
        relation is added, at each cell that is in it, and what tells that a value must not be there, at that value. The
        three most surprising cells of a row are left out in turn; any other contributes its own surprise. Distances
        tell of rows alone: one that lies apart though its cells go together may have no contribution;
        `anomaly_score(X, by_member=True)` tells which members found it.

        Raises
        ------
        ParameterError : `members` leaves out the network; `level` is out of range.
        """
        network = self._network("explain")
        hint = "Pass the share of cells to hold, for example 0.9."
        check_number("level", level, low=0, high=1, low_open=True, high_open=True, hint=hint)
        values, observed = self._read(X)
        contribution, expected = self.members_.blame(values, observed), network.expected(values, observed, level)
        return explained(self.schema_, as_frame(X), contribution.numpy(), expected)

    def save(self, folder: str | os.PathLike[str]) -> None:
        """Write the fitted detector to a folder, whole or not at all; `tabmae.load` reads it.

        Raises
        ------
        ParameterError : a parameter is a function, which cannot be saved.
        """
        check_is_fitted(self)
        save_without_pretrained(self, self.members_.network, folder)

    def _get_state(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        of_members, tensors = self.members_.state()
        state = {
            "schema": self.schema_.to_dict(),
            "n_features_in": self.n_features_in_,
            "feature_names_in": list(getattr(self, "feature_names_in_", [])),
            "members": of_members,
        }
        return state, {
            **tensors,
            "held_out_scores": self.held_out_scores_,
            "offset": torch.tensor(self.offset_, dtype=torch.float64),
        }

    def _set_state(self, state: dict[str, Any], tensors: dict[str, Tensor]) -> None:
        self._check()
        self.schema_ = TableSchema.from_dict(state["schema"])
        self.offset_, self.n_features_in_ = float(tensors["offset"]), state["n_features_in"]
        if state["feature_names_in"]:
            self.feature_names_in_ = np.array(state["feature_names_in"], dtype=object)
        self.held_out_scores_ = tensors["held_out_scores"]
        self.members_ = Members.restored(state["members"], tensors, self.schema_.n_levels, self._training_parameters(0))

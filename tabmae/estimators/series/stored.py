"""The fitted state of series estimators as JSON values and tensors, and back.

Contract: what was stored and restored predicts bit for bit the same.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from tabmae.calibration import Calibration
from tabmae.estimators import base
from tabmae.estimators.series.detecting import SeriesDetector
from tabmae.estimators.series.fitting import build
from tabmae.estimators.series.forecasting import restored, state_of
from tabmae.estimators.series.intervals import N_KINDS, CellIntervals
from tabmae.estimators.series.regressors import Regressors
from tabmae.estimators.series.settled import Rule, Settled
from tabmae.estimators.series.sizes import Size
from tabmae.estimators.series.standard import Scales
from tabmae.experts.bridges import Bridges
from tabmae.experts.seasonal import Seasonal
from tabmae.experts.stationary import Stationary
from tabmae.saving import part_of
from tabmae.schema.levels import from_json, to_json
from tabmae.windows import Panel, SeriesSchema


def stored(estimator: Any) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Values for JSON, and tensors, of a fitted estimator."""
    tail, quality = estimator.tail_, estimator.quality_
    detector, usual = estimator.detector_.state()
    state = {
        "schema": estimator.schema_.to_dict(),
        "scales": estimator.scales_.to_dict(to_json),
        "size": list(estimator.size_),
        "season": estimator.season_,
        "seasonal": None if estimator.seasonal_ is None else [estimator.seasonal_.seasons, estimator.seasonal_.level],
        "horizon": estimator.horizon_,
        "cycles": estimator.cycles_,
        "settled": estimator.settled_.rules,
        "multiplies": estimator.regressors_.multiplies,
        "loss": estimator.model_.tokenizer.loss,
        "groups": estimator.model_.groups,
        "ridges": [expert.ridge for expert in estimator.model_.experts],
        "forecaster": state_of(estimator.forecaster_),
        "detector": detector,
        "known": [to_json(each) for each in estimator.known_],
        "history": estimator.history_,
        "n_iter": estimator.n_iter_,
        "n_features_in": estimator.n_features_in_,
        "quality": {name: quality[name].tolist() for name in quality.columns},
        "tail": {
            "ids": [to_json(each) for each in tail.ids],
            "starts": [written(start) for start in tail.starts],
            "lengths": tail.lengths,
        },
    }
    weights = {f"model.{name}": tensor.contiguous() for name, tensor in estimator.model_.state_dict().items()}
    weights |= {f"forecaster.{name}": tensor for name, tensor in estimator.forecaster_.state_dict().items()}
    weights |= {f"detector.{name}": tensor for name, tensor in usual.items()}
    for part in ("values", "future"):
        weights[f"tail.{part}"] = torch.from_numpy(np.ascontiguousarray(getattr(tail, part)))
    for part in ("mean", "deviation", "coefficients"):
        weights[f"regressors.{part}"] = torch.from_numpy(np.ascontiguousarray(getattr(estimator.regressors_, part)))
    if estimator.seasonal_ is not None:
        for part in ("edges", "weights", "variance"):
            weights[f"seasonal.{part}"] = torch.from_numpy(getattr(estimator.seasonal_, part))
        for part in ("shares", "spread"):
            weights[f"bridges.{part}"] = torch.from_numpy(getattr(estimator.bridges_, part))
    for kind, calibration in enumerate(estimator.intervals_.calibrations):
        for channel, cells in enumerate(calibration.centrality):
            weights[f"intervals.{kind}.{channel}"] = cells
    return state, {name: tensor.cpu().clone() for name, tensor in weights.items()}


def restore(estimator: Any, state: dict[str, Any], weights: dict[str, Tensor]) -> None:
    """Set the fitted state of an estimator from what `stored` gave."""
    estimator.schema_ = SeriesSchema.from_dict(state["schema"])
    estimator.scales_ = Scales.from_dict(state["scales"], from_json)
    size = estimator.size_ = Size(*state["size"])
    estimator.season_, estimator.horizon_ = state["season"], state["horizon"]
    estimator.cycles_ = tuple(state["cycles"])
    estimator.known_ = tuple(from_json(each) for each in state["known"])
    estimator.history_, estimator.n_iter_ = state["history"], state["n_iter"]
    estimator.n_features_in_ = n_channels = state["n_features_in"]
    groups = [list(group) for group in state["groups"]]
    experts = [Stationary(size.window, len(group)) for group in groups] if state["ridges"] else []
    for expert, ridge in zip(experts, state["ridges"], strict=True):
        expert.ridge = ridge
    model = build(size, n_channels, experts, groups, torch.Generator(), state["loss"])
    model.load_state_dict(part_of(weights, "model."))
    estimator.model_ = model.to(base.device_or_cpu(estimator)).eval()
    estimator.forecaster_ = restored(state["forecaster"])
    estimator.forecaster_.load_state_dict(part_of(weights, "forecaster."))
    estimator.detector_ = SeriesDetector.restored(state["detector"], part_of(weights, "detector."))
    tail = state["tail"]
    arrays = (weights[f"tail.{part}"].numpy() for part in ("values", "future"))
    starts = tuple(stamp(start) for start in tail["starts"])
    estimator.tail_ = Panel(tuple(from_json(each) for each in tail["ids"]), starts, tuple(tail["lengths"]), *arrays)
    parts = (weights[f"regressors.{part}"].numpy() for part in ("mean", "deviation", "coefficients"))
    estimator.regressors_ = Regressors(*parts, multiplies=state["multiplies"])
    estimator.settled_ = Settled([Rule(*rule) for rule in state["settled"]])
    estimator.seasonal_ = estimator.bridges_ = None
    if state["seasonal"] is not None:
        parts = (weights[f"seasonal.{part}"].numpy() for part in ("edges", "weights", "variance"))
        estimator.seasonal_ = Seasonal(*state["seasonal"], *parts)
    if "bridges.shares" in weights:
        estimator.bridges_ = Bridges(weights["bridges.shares"].numpy(), weights["bridges.spread"].numpy())
    estimator.intervals_ = CellIntervals(
        [
            Calibration([weights[f"intervals.{kind}.{channel}"] for channel in range(n_channels)])
            for kind in range(N_KINDS)
        ]
    )
    estimator.quality_ = pd.DataFrame(state["quality"])


def written(start: Any) -> Any:
    """A stamp for JSON: times as number, unit and zone, periods as text and frequency, numbers as they are."""
    if isinstance(start, pd.Period):
        return [str(start), start.freqstr]
    if isinstance(start, pd.Timestamp):
        return [int(start.asm8.astype(np.int64)), start.unit, None if start.tz is None else str(start.tz)]
    return int(start)


def stamp(written: Any) -> Any:
    """Undo `written`."""
    if not isinstance(written, list):
        return written
    if len(written) == 2:
        return pd.Period(*written)
    value, unit, zone = written
    time = pd.Timestamp(np.datetime64(value, unit))
    return time if zone is None else time.tz_localize("UTC").tz_convert(zone)

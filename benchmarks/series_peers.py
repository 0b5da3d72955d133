"""One run of a method of series in a process of its own; and the methods.

Contract: reads `job.json` and `job.npz` of a folder, where hidden cells are NaN and nothing lies that is scored; writes
`result.json` and `found.f32` there: float32 forecasts (n, 1 + 2 * levels, H, C) or completed windows (n, W, C). Runs
in any environment with NumPy and pandas; a method's packages are imported when it is made, before the clock starts.
"""

import importlib
import importlib.metadata
import json
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
import pandas as pd
from numpy.lib.stride_tricks import sliding_window_view

from benchmarks.series_data import bound_names, carry_forward, channel_names, interpolate, long_frame, stacked
from benchmarks.worker import cpu_seconds, peak_mb, versions

VARIANTS: dict[str, dict[str, Any]] = {"tabmae": {}, "tabmae-experts": {"max_epochs": 0}}
"""What `TimeSeriesMAE` is given beside horizon and seed, by the method's name."""

CONTEXT = 336
"""Steps that the peers forecast from. Source: DLinear, Zeng et al. 2023."""

LONG_CONTEXT = 1440
PATCH_CONTEXT = 512
"""Steps of PatchTST/64, Nie et al. 2023."""

BATCH = 256
RIDGE = 1e-3
"""Share of a step's variance on the diagonal of the least squares."""

MAX_CALIBRATION = 5_000
"""Windows whose errors make the conformal intervals."""

POTS_WINDOW, POTS_WINDOWS = 96, 10_000
"""Steps of the windows that a longer series is cut into, and the most of them that a network is trained on."""

POTS_EPOCHS, POTS_PATIENCE, POTS_HELD_OUT = 100, 10, 0.1
"""Passes, those without a gain that end the training, and the share of validation cells that tells a gain."""

POTS_SIZES: dict[str, dict[str, Any]] = {
    "SAITS": {"n_layers": 2, "d_model": 256, "n_heads": 4, "d_k": 64, "d_v": 64, "d_ffn": 128, "dropout": 0.1},
    "BRITS": {"rnn_hidden_size": 128},
    "TimesNet": {"n_layers": 2, "top_k": 3, "d_model": 64, "d_ffn": 64, "n_kernels": 6, "dropout": 0.1},
}


class Task(NamedTuple):
    """What is to be forecast: steps ahead, steps of the season, distance of the steps as pandas writes it, steps of the
    training part of each series, and shares that the intervals are asked to hold."""

    horizon: int
    season: int
    freq: str
    n_train: list[int]
    levels: list[float]


class Forecaster(Protocol):
    """`context` steps before an origin are what `forecast` gets, None for all of them."""

    context: int | None

    def fit(self, history: list[np.ndarray], task: Task) -> None:
        """Learn from series (T, C), NaN where hidden."""

    def forecast(self, contexts: list[np.ndarray], origins: list[int]) -> np.ndarray:
        """Forecast what follows contexts (L, C) that end before a step: (n, 1 + 2 * levels, H, C), point first."""


class Imputer(Protocol):
    def fit(self, train: np.ndarray, validation: np.ndarray, phases: np.ndarray, period: int) -> None:
        """Learn from windows (n, T, C), NaN where missing, that begin at phases of a period."""

    def impute(self, windows: np.ndarray, phases: np.ndarray) -> np.ndarray:
        """Complete windows (n, W, C)."""


class Conformal(ABC):
    """A point forecast from interpolated contexts, and conformal intervals around it.

    A half width is a quantile of the absolute errors on the validation part, the training part without one, over the
    context's standard deviation; for each step ahead and channel.
    """

    context: int | None = CONTEXT

    def fit(self, history: list[np.ndarray], task: Task) -> None:
        self.task = task
        self.learn([interpolate(values[None, :n])[0] for values, n in zip(history, task.n_train, strict=True)])
        self.reach = self._reach(history) if task.levels else None

    @abstractmethod
    def learn(self, history: list[np.ndarray]) -> None:
        """Learn from complete training parts."""

    @abstractmethod
    def point(self, contexts: np.ndarray) -> np.ndarray:
        """Forecast (n, H, C) from complete contexts (n, L, C)."""

    def forecast(self, contexts: list[np.ndarray], origins: list[int]) -> np.ndarray:
        complete = interpolate(np.stack(contexts))
        point = self.point(complete)[:, None]
        if self.reach is None:
            return point
        sides = np.stack([-self.reach, self.reach], axis=1).reshape(-1, *point.shape[2:])
        return np.concatenate([point, point + sides * complete.std(axis=1)[:, None, None]], axis=1)

    def _reach(self, history: list[np.ndarray]) -> np.ndarray:
        """Half widths (levels, H, C) in standard deviations of the context."""
        whole, n_train = CONTEXT + self.task.horizon, self.task.n_train
        starts = [max(0, n - CONTEXT) if n < len(values) else 0 for values, n in zip(history, n_train, strict=True)]
        count = sum(len(values) - start - whole + 1 for values, start in zip(history, starts, strict=True))
        every = -(-count // MAX_CALIBRATION)
        errors = []
        for values, start in zip(history, starts, strict=True):
            windows = np.moveaxis(sliding_window_view(values[start:], whole, axis=0)[::every], -1, 1)
            complete = interpolate(windows[:, :CONTEXT])
            spread = np.maximum(complete.std(axis=1, keepdims=True), np.finfo(np.float32).eps)
            errors.append(np.abs(windows[:, CONTEXT:] - self.point(complete)) / spread)
        pooled = np.concatenate(errors)
        shares = np.minimum(1, np.array(self.task.levels) * (1 + 1 / len(pooled)))
        return np.nanquantile(pooled, shares, axis=0, method="higher")


class SeasonalNaive(Conformal):
    """The last season once more."""

    def learn(self, history: list[np.ndarray]) -> None:
        """Do without: the contexts hold the last season."""

    def point(self, contexts: np.ndarray) -> np.ndarray:
        season = contexts[:, -self.task.season :]
        return season[:, np.arange(self.task.horizon) % self.task.season]


class LeastSquares(Conformal):
    """One set of coefficients for all channels and series, on contexts less their mean; fitted on the training part."""

    def learn(self, history: list[np.ndarray]) -> None:
        gram = np.zeros((CONTEXT, CONTEXT + self.task.horizon))
        for values in history:
            for channel in (values / np.where(values.std(axis=0) > 0, values.std(axis=0), 1)).T:
                windows = sliding_window_view(channel, gram.shape[1])
                for start in range(0, len(windows), MAX_CALIBRATION):
                    part = windows[start : start + MAX_CALIBRATION]
                    part = part - part[:, :CONTEXT].mean(axis=1, keepdims=True)
                    gram += part[:, :CONTEXT].T @ part
        inner = gram[:, :CONTEXT]
        ridge = RIDGE * np.trace(inner) / CONTEXT * np.eye(CONTEXT)
        self.coefficients = np.linalg.solve(inner + ridge, gram[:, CONTEXT:])

    def point(self, contexts: np.ndarray) -> np.ndarray:
        level = contexts.mean(axis=1, keepdims=True)
        return level + np.moveaxis(np.moveaxis(contexts - level, 1, 2) @ self.coefficients, 1, 2)


class Ours:
    """`TimeSeriesMAE`, by arrays; by a long frame where there are several series or intervals are asked for."""

    context: int | None = LONG_CONTEXT

    def __init__(self, seed: int, n_jobs: int, *, interpolated: bool = False, **changes: Any) -> None:
        self.make = partial(importlib.import_module("tabmae").TimeSeriesMAE, random_state=seed, **changes)
        self.interpolated = interpolated

    def fit(self, history: list[np.ndarray], task: Task) -> None:
        self.task, self.framed = task, len(history) > 1 or bool(task.levels)
        self.model = self.make(horizon=task.horizon).fit(self._shown(history, [len(values) for values in history]))

    def forecast(self, contexts: list[np.ndarray], origins: list[int]) -> np.ndarray:
        shown = self._shown(contexts, origins)
        if not self.framed:
            return np.asarray(self.model.forecast(shown))[:, None]
        level = [round(100 * level) for level in self.task.levels] or None
        names = channel_names(contexts[0].shape[1])
        return stacked(self.model.forecast(shown, level=level), bound_names("TimeSeriesMAE", self.task.levels), names)

    def _shown(self, parts: list[np.ndarray], origins: list[int]) -> np.ndarray | pd.DataFrame:
        filled = [interpolate(values[None])[0] for values in parts] if self.interpolated else parts
        return long_frame(filled, origins, self.task.freq) if self.framed else np.stack(filled)


class OursGaps:
    """`TimeSeriesMAE`, by arrays of windows."""

    def __init__(self, seed: int, n_jobs: int, **changes: Any) -> None:
        self.model = importlib.import_module("tabmae").TimeSeriesMAE(random_state=seed, **changes)

    def fit(self, train: np.ndarray, validation: np.ndarray, phases: np.ndarray, period: int) -> None:
        self.model.fit(train)

    def impute(self, windows: np.ndarray, phases: np.ndarray) -> np.ndarray:
        return np.asarray(self.model.impute(windows))


class Statistical:
    """A model of statsforecast for each series, on its interpolated history."""

    context: int | None = None

    def __init__(self, seed: int, n_jobs: int, *, model: str) -> None:
        self.model, self.n_jobs = model, n_jobs
        self.package, self.models = map(importlib.import_module, ("statsforecast", "statsforecast.models"))

    def fit(self, history: list[np.ndarray], task: Task) -> None:
        self.task = task

    def forecast(self, contexts: list[np.ndarray], origins: list[int]) -> np.ndarray:
        frame = long_frame([interpolate(values[None])[0] for values in contexts], origins, self.task.freq)
        models = [getattr(self.models, self.model)(season_length=self.task.season)]
        runner = self.package.StatsForecast(models=models, freq=self.task.freq, n_jobs=self.n_jobs)
        level = [round(100 * level) for level in self.task.levels] or None
        found = runner.forecast(df=frame, h=self.task.horizon, level=level)
        return stacked(found, bound_names(self.model, self.task.levels), ["y"])


class PatchTransformer:
    """PatchTST of neuralforecast with its defaults, each channel a series of its own; stops by the validation part."""

    context: int | None = PATCH_CONTEXT

    def __init__(self, seed: int, n_jobs: int, *, max_steps: int = 5_000) -> None:
        self.seed, self.max_steps = seed, max_steps
        self.package, self.models = map(importlib.import_module, ("neuralforecast", "neuralforecast.models"))

    def fit(self, history: list[np.ndarray], task: Task) -> None:
        self.task = task
        sizes = {"h": task.horizon, "input_size": PATCH_CONTEXT, "max_steps": self.max_steps, "random_seed": self.seed}
        model = self.models.PatchTST(**sizes, early_stop_patience_steps=5, logger=False)
        self.runner = self.package.NeuralForecast(models=[model], freq=task.freq)
        n_validation = max(len(history[0]) - task.n_train[0], task.horizon)
        self.runner.fit(df=self._shown(history, [len(values) for values in history]), val_size=n_validation)

    def forecast(self, contexts: list[np.ndarray], origins: list[int]) -> np.ndarray:
        found = stacked(self.runner.predict(df=self._shown(contexts, origins)), ["PatchTST"], ["y"])
        return np.moveaxis(found.reshape(len(contexts), -1, 1, self.task.horizon), 1, 3)

    def _shown(self, parts: list[np.ndarray], origins: list[int]) -> pd.DataFrame:
        channels = [channel[:, None] for values in parts for channel in interpolate(values[None])[0].T]
        return long_frame(channels, np.repeat(origins, parts[0].shape[1]).tolist(), self.task.freq)


class Filled:
    """Gaps filled by a rule within the window, a channel without any value by the training part's mean."""

    def __init__(self, seed: int, n_jobs: int, *, rule: Callable[[np.ndarray, np.ndarray], np.ndarray]) -> None:
        self.rule = rule

    def fit(self, train: np.ndarray, validation: np.ndarray, phases: np.ndarray, period: int) -> None:
        self.mean = np.nan_to_num(np.nanmean(train.astype(np.float64), axis=(0, 1)))

    def impute(self, windows: np.ndarray, phases: np.ndarray) -> np.ndarray:
        return self.rule(windows, self.mean)


class Seasonal:
    """The training part's mean at the same phase of the period."""

    def __init__(self, seed: int, n_jobs: int) -> None:
        pass

    def fit(self, train: np.ndarray, validation: np.ndarray, phases: np.ndarray, period: int) -> None:
        rows = pd.DataFrame(train.reshape(-1, train.shape[-1]), dtype=np.float64)
        at = ((phases[:, None] + np.arange(train.shape[1])) % period).ravel()
        means = rows.groupby(at).mean().reindex(range(period)).fillna(rows.mean()).fillna(0)
        self.means, self.period = means.to_numpy(), period

    def impute(self, windows: np.ndarray, phases: np.ndarray) -> np.ndarray:
        at = (phases[:, None] + np.arange(windows.shape[1])) % self.period
        return np.where(np.isnan(windows), self.means[at], windows)


class Pots:
    """A network of PyPOTS on windows, a longer series cut into them; stops by cells held out of the validation part."""

    def __init__(self, seed: int, n_jobs: int, *, model: str, epochs: int = POTS_EPOCHS) -> None:
        importlib.import_module("pypots.utils.random").set_random_seed(seed)
        self.make = partial(
            getattr(importlib.import_module("pypots.imputation"), model),
            **POTS_SIZES[model],
            epochs=epochs,
            patience=min(POTS_PATIENCE, epochs),
            verbose=False,
        )
        self.rng = np.random.default_rng(seed)

    def fit(self, train: np.ndarray, validation: np.ndarray, phases: np.ndarray, period: int) -> None:
        n_steps, n_channels = train.shape[1:]
        window = POTS_WINDOW if len(train) == 1 else n_steps
        held = validation if validation.size else train
        shown, whole = self._cut(train, window), self._cut(held, window)
        hidden = self.rng.random(whole.shape) < POTS_HELD_OUT
        self.model = self.make(n_steps=window, n_features=n_channels)
        self.model.fit({"X": shown}, {"X": np.where(hidden, np.nan, whole), "X_ori": whole})
        self.window = window

    def impute(self, windows: np.ndarray, phases: np.ndarray) -> np.ndarray:
        n_steps = windows.shape[1]
        starts = [*range(0, n_steps - self.window, self.window), n_steps - self.window]
        parts = np.concatenate([windows[:, start : start + self.window] for start in starts])
        found = np.asarray(self.model.impute({"X": parts})).reshape(len(starts), len(windows), self.window, -1)
        completed = windows.copy()
        for start, part in zip(starts, found, strict=True):
            completed[:, start : start + self.window] = part
        return completed

    def _cut(self, series: np.ndarray, window: int) -> np.ndarray:
        """Give windows as they are, and those of one series at most `POTS_WINDOWS`."""
        every = max(1, (series.shape[1] - window + 1) // POTS_WINDOWS)
        views = sliding_window_view(series, window, axis=1)[:, ::every]
        return np.moveaxis(views, -1, 2).reshape(-1, window, series.shape[-1]).copy()


def fill_mean(windows: np.ndarray, mean: np.ndarray) -> np.ndarray:
    return np.where(np.isnan(windows), mean, windows)


FORECASTERS: dict[str, Callable[..., Forecaster]] = {
    "seasonal-naive": lambda seed, n_jobs: SeasonalNaive(),
    "ols": lambda seed, n_jobs: LeastSquares(),
    "autotheta": partial(Statistical, model="AutoTheta"),
    "autoets": partial(Statistical, model="AutoETS"),
    "patchtst": PatchTransformer,
    "tabmae-interpolated": partial(Ours, interpolated=True),
    **{name: partial(Ours, **changes) for name, changes in VARIANTS.items()},
}
IMPUTERS: dict[str, Callable[..., Imputer]] = {
    "mean": partial(Filled, rule=fill_mean),
    "locf": partial(Filled, rule=carry_forward),
    "linear": partial(Filled, rule=interpolate),
    "seasonal": Seasonal,
    "saits": partial(Pots, model="SAITS"),
    "brits": partial(Pots, model="BRITS"),
    "timesnet": partial(Pots, model="TimesNet"),
    **{name: partial(OursGaps, **changes) for name, changes in VARIANTS.items()},
}
ENVIRONMENTS = {
    **dict.fromkeys(["autotheta", "autoets"], "statsforecast"),
    "patchtst": "neuralforecast",
    **dict.fromkeys(["saits", "brits", "timesnet"], "pypots"),
}
"""Packages that lie in environments of their own, by the methods that need them."""


def forecast_all(method: Forecaster, job: dict[str, Any], arrays: Any, write: Callable[[np.ndarray], None]) -> float:
    """Fit, then forecast from every origin; give the clock between the two."""
    task = Task(**job["task"])
    series = [arrays[f"series{number}"] for number in range(len(job["n_fitted"]))]
    method.fit([values[:n_steps] for values, n_steps in zip(series, job["n_fitted"], strict=True)], task)
    fitted, origins = time.perf_counter(), arrays["origins"]
    # several series go in at once: a method knows them again by their place
    size = len(origins) if len(series) > 1 else BATCH
    for start in range(0, len(origins), size):
        batch = origins[start : start + size].tolist()
        contexts = [series[number][max(0, step - (method.context or step)) : step] for number, step in batch]
        found = method.forecast(contexts, [step for _, step in batch])
        expected = (len(batch), 1 + 2 * len(task.levels), task.horizon, contexts[0].shape[1])
        if found.shape != expected:
            raise ValueError(f"Forecasts must have shape {expected}; got {found.shape}. Mend the method.")
        write(found)
    return fitted


def impute_all(method: Imputer, job: dict[str, Any], arrays: Any, write: Callable[[np.ndarray], None]) -> float:
    """Fit, then complete the windows; give the clock between the two."""
    method.fit(arrays["train"], arrays["validation"], arrays["train_phase"], job["period"])
    fitted, windows, phases = time.perf_counter(), arrays["windows"], arrays["phases"]
    for start in range(0, len(windows), BATCH):
        write(method.impute(windows[start : start + BATCH], phases[start : start + BATCH]))
    return fitted


def main(folder: Path) -> None:
    job: dict[str, Any] = json.loads((folder / "job.json").read_text())
    with np.load(folder / "job.npz") as stored:
        arrays = dict(stored)
    is_forecast = job["kind"] == "forecast"
    run: Callable[..., float] = forecast_all if is_forecast else impute_all
    makers: dict[str, Any] = {**FORECASTERS} if is_forecast else {**IMPUTERS}
    method = makers[job["method"]](seed=job["seed"], n_jobs=job["n_jobs"])
    before_mb, before_cpu, start = peak_mb(), cpu_seconds(), time.perf_counter()
    with (folder / "found.f32").open("wb") as out:
        fitted = run(method, job, arrays, lambda found: out.write(np.asarray(found, dtype=np.float32).tobytes()))
    end, end_cpu = time.perf_counter(), cpu_seconds()
    there = {found.metadata["Name"].lower(): found.version for found in importlib.metadata.distributions()}
    measured = {
        "fit_seconds": fitted - start,
        "transform_seconds": end - fitted,
        "cpu_seconds": end_cpu - before_cpu,
        "peak_mb": peak_mb(),
        "import_mb": before_mb,
        "versions": {**versions(), **{name: there[name] for name in ENVIRONMENTS.values() if name in there}},
    }
    (folder / "result.json").write_text(json.dumps(measured))


if __name__ == "__main__":
    main(Path(sys.argv[1]))

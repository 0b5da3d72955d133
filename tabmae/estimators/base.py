"""What every estimator shares: device, seeds, building a model, training it, predicting in batches, its state to save.

Contract: a row's prediction depends on that row alone; weights, masks and dropout are drawn under `random_state` only.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, NamedTuple, TypeVar, cast

import torch
from numpy.random import RandomState
from sklearn.utils import check_random_state
from torch import Tensor

from tabmae import stacking
from tabmae.backbones import Backbone, build_backbone
from tabmae.errors import ParameterError, TrainingError
from tabmae.estimators.parameters import expert_names
from tabmae.experts.gaussian import Gaussian
from tabmae.experts.trees import Forest
from tabmae.masks import get_mask
from tabmae.model import MaskedAutoencoder
from tabmae.tokenizers import CellDistribution, CellTokenizer
from tabmae.training import Plan, draw_held_out, draw_seed, train

DEFAULT_RATIO = (0.1, 0.9)
"""Bounds of the share of cells hidden in a row: narrower ones were not better at 30 % of missing cells."""

MAX_BATCH_OUTPUTS = 2_000_000
"""Outputs (bins of numbers, levels of categories) predicted at once: some hundred megabytes with all between."""

MIN_FOREST_ROWS = 20
MIN_ROWS_OF_LEVEL = 3
MAX_FOREST_LEVELS = 64
MAX_FOREST_ROWS = 5_000
MAX_FOREST_CELLS = 400_000
"""Rows, and cells of them, that grow a forest; it grows with them in time and in size on disk."""
MAX_FOREST_COLUMNS = 300
MAX_GAUSSIAN_COLUMNS = 1_000
"""Expert columns (numbers, frequent levels) beyond which trees and Gaussian are left out: they would take hours."""
SHORTER_WHEN_GOING_ON = 10
"""A model that goes on learning takes this share of a new one's steps."""
MAX_JUDGED_ROWS = 5_000
MAX_WEIGHED_OUTPUTS = 10_000_000
"""Rows that judge the members and calibrate, and their outputs when the members are weighed."""

INFERENCE = torch.float64
"""Precision of predictions: a row's result does not feel the other rows of its batch."""

Result = TypeVar("Result")


class Size(NamedTuple):
    """Network and schedule for a table: what "auto" means."""

    backbone: Any
    d_token: int
    depth: int
    dropout: float
    n_steps: int
    batch_size: int
    lr: float


def auto_size(n_rows: int) -> Size:
    """Defaults by the number of rows; what was tried around them is in `benchmarks/README.md`."""
    if n_rows < 2000:
        return Size("mlp", 12, 3, 0.15, 600, 128, 4e-3)
    return Size("mlp", 16, 3, 0.1, 1200, 128, 3e-3)


def pick_device(device: str) -> torch.device:
    """The device of a name; "auto" takes a CUDA GPU where there is one.

    Raises
    ------
    ParameterError : there is no such device.
    """
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        chosen = torch.device(device)
        torch.zeros(1, dtype=torch.float64, device=chosen)
    except (RuntimeError, AssertionError, NotImplementedError, TypeError) as error:
        raise ParameterError(
            f"`device` must name a device of this machine; got {device!r}. Pass 'auto', 'cpu' or, with a GPU, 'cuda'."
        ) from error
    return chosen


def new_generator(random_state: int | RandomState | None, device: torch.device | None = None) -> torch.Generator:
    """The one generator of a fit, seeded by scikit-learn's `random_state`."""
    seed = int(check_random_state(random_state).randint(2**31 - 1))
    return torch.Generator(device or torch.device("cpu")).manual_seed(seed)


@contextmanager
def out_of_memory_explained(batch_size: int) -> Iterator[None]:
    """Turn the device's error into one that says what to do."""
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise TrainingError(
            f"A batch must fit in the device's memory; {batch_size} rows did not. Lower `batch_size` or `d_token`, "
            "or pass device='cpu'."
        ) from error


def build_model(
    estimator: Any,
    values: Tensor,
    observed: Tensor,
    held_out: Tensor,
    n_levels: Sequence[int],
    size: Size,
    generator: torch.Generator,
) -> MaskedAutoencoder:
    """Fit tokenizer and expert to the observed cells and draw the network's first weights under the generator."""
    has_gaussian = "gaussian" in expert_names(estimator.experts)
    with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
        torch.manual_seed(draw_seed(generator))
        tokenizer = CellTokenizer.fit(
            values.cpu(), observed.cpu(), n_levels, size.d_token, _loss(estimator), with_guess=has_gaussian
        )
        network = build_network(estimator, len(n_levels), size)
    expert = None
    if has_gaussian and 0 < tokenizer.n_expert_columns <= MAX_GAUSSIAN_COLUMNS:
        tokenizer.to(values.device)
        cells, shown = tokenizer.expand(values, observed)
        expert = Gaussian(tokenizer.n_expert_columns).fit(cells, shown, tokenizer.expand(values, held_out)[1])
    return MaskedAutoencoder(tokenizer, network, expert)


class Run(NamedTuple):
    """What a training run leaves: the model, what "auto" became, the history, the cells that were held out."""

    model: MaskedAutoencoder
    size: Size
    history: list[dict[str, float]]
    held_out: Tensor


def fit_model(
    estimator: Any,
    values: Tensor,
    observed: Tensor,
    n_levels: Sequence[int],
    sample_weight: Tensor | None,
    model: MaskedAutoencoder | None,
) -> Run:
    """Train a new model, or the given one further, as the estimator's parameters say.

    Parameters
    ----------
    values : float32 (n, F); observed : bool (n, F), on the CPU; they are moved to the device once.
    n_levels : for each feature, 0 for a number.
    """
    device = pick_device(estimator.device)
    generator = new_generator(estimator.random_state, device)
    values, observed = values.to(device), observed.to(device)
    size = chosen_size(estimator, len(values))
    if model is not None:
        size = estimator.size_._replace(n_steps=size.n_steps, batch_size=size.batch_size, lr=size.lr)
    feature_shape = None if estimator.feature_shape is None else tuple(estimator.feature_shape)
    mask = get_mask(estimator.mask)
    held_out = draw_held_out(observed, estimator.validation_fraction, generator)
    n_epochs = estimator.max_epochs
    if n_epochs == "auto":
        n_steps = size.n_steps if model is None else size.n_steps // SHORTER_WHEN_GOING_ON
        n_epochs = max(1, round(n_steps / max(1, round(len(values) / size.batch_size))))
    with out_of_memory_explained(size.batch_size):
        is_new = model is None
        if model is None:
            model = build_model(estimator, values, observed & ~held_out, held_out, n_levels, size, generator)
        model.to(device)
        set_precision(model, torch.float32)
        history = train(
            model,
            values,
            observed & ~held_out,
            Plan(
                mask=partial(mask, feature_shape=feature_shape),
                mask_ratio=DEFAULT_RATIO if estimator.mask_ratio == "auto" else estimator.mask_ratio,
                visible_weight=estimator.visible_weight,
                max_epochs=n_epochs,
                patience=max(1, n_epochs // 3) if estimator.patience == "auto" else estimator.patience,
                batch_size=size.batch_size,
                lr=size.lr,
                bf16=device.type == "cuda" and estimator.precision != "float32",
            ),
            generator,
            held_out=held_out,
            sample_weight=sample_weight,
            callbacks=estimator.callbacks or (),
            checkpoint=estimator.checkpoint,
            verbose=estimator.verbose,
        )
        set_precision(model, INFERENCE)
        if is_new:
            if "trees" in expert_names(estimator.experts):
                grow_forests(model, values, observed & ~held_out, generator)
            weigh_members(model, values, observed & ~held_out, held_out)
    return Run(model, size, history, held_out.cpu())


def grow_forests(model: MaskedAutoencoder, values: Tensor, observed: Tensor, generator: torch.Generator) -> None:
    """Fit a forest for every column with enough observed cells, each on a sample of rows."""
    weight = next(model.parameters())
    n_columns = model.tokenizer.n_expert_columns
    if not 0 < n_columns <= MAX_FOREST_COLUMNS:
        return
    most = min(MAX_FOREST_ROWS, MAX_FOREST_CELLS // n_columns)
    for feature, n_levels in enumerate(model.tokenizer.n_levels):
        seed = draw_seed(generator)
        rows = torch.nonzero(observed[:, feature])[:, 0]
        if n_levels <= MAX_FOREST_LEVELS and len(rows) >= max(MIN_FOREST_ROWS, MIN_ROWS_OF_LEVEL * n_levels):
            rows = rows[:: -(-len(rows) // most)]
            model.grow_forest(values[rows].to(weight.dtype), observed[rows], feature, seed)


def judged_rows(held_out: Tensor) -> Tensor:
    """Positions of the rows with held-out cells, thinned to `MAX_JUDGED_ROWS`."""
    rows = torch.nonzero(held_out.any(1))[:, 0]
    return rows[:: max(1, -(-len(rows) // MAX_JUDGED_ROWS))]


@torch.no_grad()
def weigh_members(model: MaskedAutoencoder, values: Tensor, visible: Tensor, held_out: Tensor) -> None:
    """Set how far each column believes each member, by held-out cells."""
    weight, tokenizer = next(model.parameters()), model.tokenizer
    rows = judged_rows(held_out)
    rows = rows[:: max(1, round(len(rows) * tokenizer.n_outputs / MAX_WEIGHED_OUTPUTS))]
    n_numbers, n_categories = len(tokenizer.numbers), len(tokenizer.categories)
    has_expert, has_trees = float(model.expert is not None), float(len(model.forests) > 0)
    start = torch.tensor([has_expert * (1 - has_trees), 1.0, has_trees])
    start = start / start.sum()
    model.number_weights = torch.cat([torch.zeros(1), start]).double().repeat(n_numbers, 1).to(weight.device)
    model.level_weights = start.double().repeat(n_categories, 1).to(weight.device)
    if not len(rows):
        return
    batch = rows_at_once(model)
    found = [
        model.members(part.to(weight.dtype), shown)
        for part, shown in zip(values[rows].split(batch), visible[rows].split(batch), strict=True)
    ]
    target, judged = values[rows], held_out[rows]
    numbers = torch.cat([members.numbers for members in found], 1)
    model.number_weights = stacking.fit(
        numbers, target[:, tokenizer.numbers], judged[:, tokenizer.numbers], torch.cat([torch.zeros(1), start])
    ).to(weight.device)
    levels = torch.cat([members.levels for members in found], 1)
    for place, (feature, n_levels) in enumerate(zip(tokenizer.categories, tokenizer.n_modelled, strict=True)):
        chosen = judged[:, feature]
        codes = target[chosen, feature].long().clamp_max(int(n_levels) - 1)
        model.level_weights[place] = stacking.fit_levels(levels[:, chosen, place, : int(n_levels)], codes, start)


def refit_expert(model: MaskedAutoencoder, values: Tensor, observed: Tensor) -> None:
    """Give the expert the held-out cells, too, once they have judged it; its shrinkage stays."""
    if model.expert is not None:
        device = next(model.parameters()).device
        cells, shown = model.tokenizer.expand(values.to(device), observed.to(device))
        model.expert.fit(cells, shown, shrinkage=float(model.expert.shrinkage), warm_start=True)


def chosen_size(estimator: Any, n_rows: int) -> Size:
    """Network and schedule of an estimator, "auto" filled in by the number of rows."""
    auto = auto_size(n_rows)
    given = {name: getattr(estimator, name) for name in ("backbone", "d_token", "depth", "dropout", "batch_size", "lr")}
    return auto._replace(**{name: value for name, value in given.items() if not _is_auto(value)})


def _is_auto(value: object) -> bool:
    return isinstance(value, str) and value == "auto"


def restored_model(
    estimator: Any, size: Size, n_levels: Sequence[int], loss: str, weights: dict[str, Tensor]
) -> MaskedAutoencoder:
    """The model of a saved estimator, from its weights, on the estimator's device or, without it, on the CPU."""
    try:
        device = pick_device(estimator.device)
    except ParameterError:
        device = torch.device("cpu")
        warnings.warn(
            f"The model was saved with device={estimator.device!r}, which is not here; it is on the CPU.", stacklevel=2
        )
    edges, centres, discrete, prior = (weights[f"tokenizer.{name}"] for name in CellTokenizer.LEARNT)
    has_guess = len(weights["tokenizer.guess_embedding"]) > 0
    with torch.random.fork_rng(devices=[]):
        tokenizer = CellTokenizer(n_levels, edges, centres, discrete, prior, size.d_token, loss, with_guess=has_guess)
        network = build_network(estimator, len(n_levels), size)
    has_expert = "expert.mean" in weights
    model = MaskedAutoencoder(tokenizer, network, Gaussian(tokenizer.n_expert_columns) if has_expert else None)
    for name in {name.split(".")[1] for name in weights if name.startswith("forests.")}:
        nodes, leaves, roots = (weights[f"forests.{name}.{part}"] for part in ("feature", "value", "roots"))
        model.forests[name] = Forest(len(nodes), leaves.shape[0], leaves.shape[1], len(roots))
        model.forests[name].value = torch.zeros_like(leaves)
    set_precision(model, next(weight.dtype for name, weight in weights.items() if name.startswith("backbone")))
    model.load_state_dict(weights)
    for forest in model.forests.values():
        cast(Forest, forest).check(tokenizer.n_expert_columns)
    model.to(device).eval()
    set_precision(model, INFERENCE)
    return model


def _loss(estimator: Any) -> str:
    return "mse" if estimator.loss == "auto" else str(estimator.loss)


def build_network(estimator: Any, n_tokens: int, size: Size) -> Backbone:
    """The estimator's backbone, its weights drawn from torch's current generator."""
    return build_backbone(
        size.backbone,
        n_tokens=n_tokens,
        d_token=size.d_token,
        depth=size.depth,
        dropout=size.dropout,
        feature_shape=None if estimator.feature_shape is None else tuple(estimator.feature_shape),
    )


def set_precision(model: MaskedAutoencoder, dtype: torch.dtype) -> None:
    """Cast the network; the expert's moments stay float64, which collinear columns need."""
    model.tokenizer.to(dtype)
    model.backbone.to(dtype)


def rows_at_once(model: MaskedAutoencoder) -> int:
    """Rows of a batch of predictions."""
    return max(1, MAX_BATCH_OUTPUTS // model.tokenizer.n_outputs)


@torch.no_grad()
def predict_in_batches(
    model: MaskedAutoencoder,
    values: Tensor,
    visible: Tensor,
    answer: Callable[[CellDistribution, slice], Result],
) -> list[Result]:
    """Ask the model for the distribution of rows, a batch at a time, and collect the answers.

    Parameters
    ----------
    values, visible : (n, F), on any device; batches travel to the model's.
    answer : what is wanted of a batch's distribution; also given the rows of the batch.
    """
    weight = next(model.parameters())
    batch = rows_at_once(model)
    results = []
    for start in range(0, len(values), batch):
        rows = slice(start, start + batch)
        shown = visible[rows].to(weight.device)
        results.append(answer(model(values[rows].to(weight.device, weight.dtype), shown), rows))
    return results


@torch.no_grad()
def latent_width(model: MaskedAutoencoder) -> int:
    """Width of the latent, and so of the embeddings."""
    weight = next(model.parameters())
    row = torch.zeros(1, len(model.tokenizer.n_levels), dtype=weight.dtype, device=weight.device)
    return int(model.encode(row, torch.zeros_like(row, dtype=torch.bool)).shape[-1])

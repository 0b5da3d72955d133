"""What every estimator shares: device, seeds, building a model, training it, predicting in batches, its state to save.

Contract: a row's prediction depends on that row alone; weights, masks and dropout are drawn under `random_state` only.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import torch
from numpy.random import RandomState
from sklearn.utils import check_random_state
from torch import Tensor, nn

from tabmae.backbones import Backbone, build_backbone
from tabmae.deadline import NEVER, Deadline
from tabmae.errors import ParameterError, TrainingError, warn
from tabmae.estimators.clocks import check_clocks, clocks_of
from tabmae.estimators.copying import fit_copies
from tabmae.estimators.growing import Phases, grow_trees, planned
from tabmae.estimators.members import check_parts, make_room, weigh_members
from tabmae.estimators.parameters import EXPERTS, expert_names, is_auto
from tabmae.estimators.validation import Validation, split_held_out
from tabmae.experts.em import MAX_ROWS, sampled
from tabmae.experts.gaussian import Gaussian
from tabmae.generators import generators_kept, seed_generators
from tabmae.masks import get_mask
from tabmae.model import MaskedAutoencoder
from tabmae.schedule import rises
from tabmae.tokenizers import CellTokenizer
from tabmae.training import History, Plan, draw_held_out, draw_seed, train

MAX_GAUSSIAN_COLUMNS = 1_000
"""Expert columns (numbers, frequent levels) beyond which the Gaussian is left out: it would take hours."""
SHORTER_WHEN_GOING_ON = 10
"""A model that goes on learning takes this share of a new one's steps."""
LARGE = 2000
"""Rows from which on the network is larger and trained for longer, the more rows the longer."""
STEPS_OF_SMALL, MANY_FEATURES = 600, 150
"""Steps for fewer rows; features beyond which a step, which learns from so many cells, is one of fewer."""
STEPS_OF_LARGE, GROWTH_OF_STEPS, MAX_STEPS = 500, 0.8, 2500
"""Steps at so many rows, the power of the rows by which they grow, and where they end."""
TAUGHT_ON = 0.25
"""Epochs and rate, as shares of training's, with which the network learns held-out cells once they have judged."""
MOST_RISE = 0.01
"""Rise of the held-out error that training does not wait out."""
MIN_WIDTH_OF_THREADS = 512
"""Numbers that an MLP reads, columns times `d_token`, from which on a second thread saves a third of a fit's time."""

INFERENCE = torch.float64
"""Precision of predictions: a row's result does not feel the other rows of its batch."""


class Size(NamedTuple):
    """Network and schedule for a table: what "auto" means."""

    backbone: Any
    d_token: int
    depth: int
    dropout: float
    n_steps: int
    batch_size: int
    lr: float


def auto_size(n_rows: int, n_features: int = 1) -> Size:
    """Defaults by the size of the table; what was tried around them is in `benchmarks/README.md`."""
    share = min(1.0, (MANY_FEATURES / n_features) ** 0.5)
    if n_rows < LARGE:
        return Size("mlp", 12, 2, 0.15, round(share * STEPS_OF_SMALL), 128, 4e-3)
    n_steps = min(MAX_STEPS, round(STEPS_OF_LARGE * (n_rows / LARGE) ** GROWTH_OF_STEPS))
    return Size("mlp", 16, 2, 0.1, round(share * n_steps), 256, 6e-3)


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
    has_gaussian = "gaussian" in chosen_experts(estimator)
    with generators_kept(values.device):
        seed_generators(values.device, draw_seed(generator))
        tokenizer = CellTokenizer.fit(
            values.cpu(),
            observed.cpu(),
            n_levels,
            size.d_token,
            _loss(estimator),
            with_guess=has_gaussian,
            clocks=clocks_of(estimator.schema_.columns, values.cpu(), observed.cpu()) if has_gaussian else None,
        )
        network = build_network(len(n_levels), size, estimator.feature_shape)
    expert = None
    if has_gaussian and 0 < tokenizer.n_expert_columns <= MAX_GAUSSIAN_COLUMNS:
        tokenizer.to(values.device)
        rows = sampled(len(values), MAX_ROWS)
        cells, shown = tokenizer.expand(values[rows], observed[rows])
        expert = Gaussian(tokenizer.n_expert_columns, estimator.expert_diagonal)
        hidden = tokenizer.expand(values[rows], held_out[rows])[1]
        # A row that is a little off a sharp conditional is no anomaly, but it is imputed well.
        indicators = tokenizer.expert_level >= 0 if expert.diagonal == 0 else None
        expert.fit(cells, shown, hidden, indicators=indicators)
    return MaskedAutoencoder(tokenizer, network, expert)


class Run(NamedTuple):
    """What a training run leaves: the model, what "auto" became, the history, the folds of the held-out cells, how it
    was trained and how many seconds that took."""

    model: MaskedAutoencoder
    size: Size
    history: History
    validation: Validation
    plan: Plan
    generator: torch.Generator
    seconds: float


def fit_model(
    estimator: Any,
    values: Tensor,
    observed: Tensor,
    n_levels: Sequence[int],
    sample_weight: Tensor | None,
    model: MaskedAutoencoder | None,
    deadline: Deadline = NEVER,
) -> Run:
    """Train a new model, or the given one further, as the estimator's parameters say.

    Parameters
    ----------
    values : float32 (n, F); observed : bool (n, F), on the CPU; they are moved to the device once.
    n_levels : for each feature, 0 for a number.
    deadline : when the fit has to end; what comes after this function has its share.
    """
    device = pick_device(estimator.device)
    generator = new_generator(estimator.random_state, device)
    values, observed = values.to(device), observed.to(device)
    size = chosen_size(estimator, *values.shape)
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
        names = chosen_experts(estimator)
        is_new, has_trees, has_copies = model is None, "trees" in names, "copies" in names
        phases = Phases(deadline, deadline)
        if model is None:
            begun = deadline.elapsed()
            model = build_model(estimator, values, observed & ~held_out, held_out, n_levels, size, generator).to(device)
            if deadline.exists:
                set_precision(model, INFERENCE)
                phases = planned(model, values, observed, deadline, deadline.elapsed() - begun, has_trees)
        model.to(device)
        plan = Plan(
            mask=partial(mask, feature_shape=feature_shape),
            mask_ratio=estimator.default_ratio if estimator.mask_ratio == "auto" else estimator.mask_ratio,
            visible_weight=estimator.visible_weight,
            max_epochs=n_epochs,
            patience=max(1, n_epochs // 3) if estimator.patience == "auto" else estimator.patience,
            most_rise=MOST_RISE if estimator.patience == "auto" else math.inf,
            batch_size=size.batch_size,
            lr=size.lr,
            bf16=device.type == "cuda" and estimator.precision != "float32",
        )
        begun = deadline.elapsed()
        with _network_alone(model):
            history = train(
                model,
                values,
                observed & ~held_out,
                plan,
                generator,
                held_out=held_out,
                sample_weight=sample_weight,
                deadline=phases.training,
                callbacks=estimator.callbacks or (),
                checkpoint=estimator.checkpoint,
                verbose=estimator.verbose,
            )
        seconds = deadline.elapsed() - begun
        folds = split_held_out(held_out, generator)
        validation = Validation(model, values, observed, folds)
        if is_new:
            if has_copies:
                phases = fit_copies(model, values, observed, folds, validation, phases)
            else:
                weigh_members(model, validation)
            if has_trees:
                ends, row = phases.forests, phases.seconds_of_row
                grow_trees(model, values, observed, folds, validation, generator, ends, row)
    return Run(model, size, history, validation, plan, generator, seconds)


def teach_held_out(
    run: Run, values: Tensor, observed: Tensor, sample_weight: Tensor | None, deadline: Deadline = NEVER
) -> None:
    """Teach the network of a new model all observed cells (n, F), once the held-out ones have judged it.

    A run of few epochs is left as it is, so is one that stopped before its end, as more training would make the network
    surer of new cells than those that judged it allow, or was to stop, and one whose deadline is too near.
    """
    best = min(run.history, key=lambda record: record["held_out_error"])["epoch"]
    n_epochs = round(TAUGHT_ON * best)
    # one that ended as its error rose would have waited, as far as its epochs reach
    end = run.plan.max_epochs if rises(run.history, run.plan.most_rise) else run.history[-1]["epoch"]
    stopped = run.history.cut_short or end - best >= run.plan.patience
    if n_epochs < 1 or stopped or deadline.left() < 2 * TAUGHT_ON * run.seconds:
        return
    device = next(run.model.parameters()).device
    plan = replace(run.plan, max_epochs=n_epochs, patience=n_epochs, lr=TAUGHT_ON * run.plan.lr)
    with _network_alone(run.model), out_of_memory_explained(plan.batch_size):
        train(
            run.model,
            values.to(device),
            observed.to(device),
            plan,
            run.generator,
            sample_weight=sample_weight,
            deadline=deadline,
        )


@contextmanager
def _network_alone(model: MaskedAutoencoder) -> Iterator[None]:
    """The model without its trees and its copies, in the precision of training."""
    others = model.sweeps, model.direct, model.copies
    set_precision(model, torch.float32)
    model.sweeps, model.direct, model.copies = nn.ModuleList(), nn.ModuleDict(), None
    try:
        yield
    finally:
        model.sweeps, model.direct, model.copies = others
        set_precision(model, INFERENCE)


def chosen_size(estimator: Any, n_rows: int, n_features: int) -> Size:
    """Network and schedule of an estimator, "auto" filled in by the size of the table."""
    auto = auto_size(n_rows, n_features)
    given = {name: getattr(estimator, name) for name in ("backbone", "d_token", "depth", "dropout", "batch_size", "lr")}
    return auto._replace(**{name: value for name, value in given.items() if not is_auto(value)})


def chosen_experts(estimator: Any) -> tuple[str, ...]:
    """The experts of an estimator; its class may say what "auto" is, by `auto_experts`."""
    return expert_names(
        getattr(estimator, "auto_experts", EXPERTS) if is_auto(estimator.experts) else estimator.experts
    )


def pays_threads(size: Size, n_features: int) -> bool:
    """Whether the network is so large that OpenMP's threads should share its work."""
    return size.backbone != "mlp" or n_features * size.d_token >= MIN_WIDTH_OF_THREADS


def device_or_cpu(estimator: Any) -> torch.device:
    """The device of a saved estimator; where it is not here, a warning and the CPU."""
    try:
        return pick_device(estimator.device)
    except ParameterError:
        warn(f"The model was saved with device={estimator.device!r}, which is not here; it is on the CPU.")
        return torch.device("cpu")


def restored_model(
    estimator: Any,
    size: Size,
    n_levels: Sequence[int],
    loss: str,
    weights: dict[str, Tensor],
    feature_shape: tuple[int, ...] | None = None,
) -> MaskedAutoencoder:
    """The model of a saved estimator, from its weights, on the estimator's device or, without it, on the CPU.

    `feature_shape` : that of fit, which parameters set since may not be.
    """
    device = device_or_cpu(estimator)
    edges, centres, single, prior, clocks = (weights[f"tokenizer.{name}"] for name in CellTokenizer.LEARNT)
    check_clocks(clocks, n_levels)
    has_guess = len(weights["tokenizer.guess_embedding"]) > 0
    with generators_kept():
        tokenizer = CellTokenizer(
            n_levels, edges, centres, single, prior, clocks, size.d_token, loss, with_guess=has_guess
        )
        network = build_network(len(n_levels), size, feature_shape)
    has_expert = "expert.mean" in weights
    model = MaskedAutoencoder(tokenizer, network, Gaussian(tokenizer.n_expert_columns) if has_expert else None)
    make_room(model, weights)
    set_precision(model, next(weight.dtype for name, weight in weights.items() if name.startswith("backbone")))
    model.load_state_dict(weights)
    check_parts(model)
    model.to(device).eval()
    set_precision(model, INFERENCE)
    return model


def _loss(estimator: Any) -> str:
    return "mse" if estimator.loss == "auto" else str(estimator.loss)


def build_network(n_tokens: int, size: Size, feature_shape: Iterable[int] | None) -> Backbone:
    """The backbone of an estimator, its weights drawn from torch's current generator."""
    return build_backbone(
        size.backbone,
        n_tokens=n_tokens,
        d_token=size.d_token,
        depth=size.depth,
        dropout=size.dropout,
        feature_shape=None if feature_shape is None else tuple(feature_shape),
    )


def set_precision(model: MaskedAutoencoder, dtype: torch.dtype) -> None:
    """Cast the network; the expert's moments stay float64, which collinear columns need."""
    model.tokenizer.to(dtype)
    model.backbone.to(dtype)


@torch.no_grad()
def latent_width(model: MaskedAutoencoder) -> int:
    """Width of the latent, and so of the embeddings."""
    weight = next(model.parameters())
    row = torch.zeros(1, len(model.tokenizer.n_levels), dtype=weight.dtype, device=weight.device)
    return int(model.encode(row, torch.zeros_like(row, dtype=torch.bool)).shape[-1])

from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tabmae.backbones import (
    BACKBONES,
    AsymmetricTransformer,
    Attention,
    Backbone,
    Conv,
    Dropout,
    LineConvolution,
    Transformer,
    build_backbone,
)
from tabmae.errors import ParameterError

N_TOKENS, D_TOKEN = 12, 16
KINDS = [*((name, None) for name in BACKBONES), ("conv", (3, 4))]
every_kind = pytest.mark.parametrize(("name", "feature_shape"), KINDS)


def build(name: str, feature_shape: tuple[int, ...] | None = None, *, seed: int = 0, dropout: float = 0.0) -> Backbone:
    torch.manual_seed(seed)
    return build_backbone(
        name, n_tokens=N_TOKENS, d_token=D_TOKEN, depth=2, dropout=dropout, feature_shape=feature_shape
    )


def draw(n_rows: int = 6, seed: int = 1) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    tokens = torch.randn(n_rows, N_TOKENS, D_TOKEN, generator=generator)
    return tokens, torch.rand(n_rows, N_TOKENS, generator=generator) < 0.6


def draw_equal(n_rows: int, n_seen: int) -> tuple[Tensor, Tensor]:
    tokens, _ = draw(n_rows)
    order = torch.rand(n_rows, N_TOKENS, generator=torch.Generator().manual_seed(2)).argsort(1)
    return tokens, order < n_seen


@every_kind
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_shape_and_dtype_are_kept(name: str, feature_shape: tuple[int, ...] | None, dtype: torch.dtype) -> None:
    tokens, seen = draw()
    tokens = tokens.to(dtype)
    backbone = build(name, feature_shape).to(dtype)
    for output in (backbone(tokens, seen), backbone(tokens), backbone.decode(backbone.encode(tokens, seen), seen)):
        assert output.shape == tokens.shape
        assert output.dtype == dtype


@every_kind
def test_a_gradient_reaches_every_parameter(name: str, feature_shape: tuple[int, ...] | None) -> None:
    tokens, seen = draw()
    backbone = build(name, feature_shape, dropout=0.2)
    backbone(tokens, seen).square().sum().backward()
    for parameter_name, parameter in backbone.named_parameters():
        assert parameter.grad is not None, parameter_name
        assert parameter.grad.abs().max() > 1e-8, parameter_name


@every_kind
def test_a_row_does_not_depend_on_the_others(name: str, feature_shape: tuple[int, ...] | None) -> None:
    tokens, seen = draw()
    backbone = build(name, feature_shape).double().eval()
    whole = backbone(tokens.double(), seen)
    single = backbone(tokens[2:3].double(), seen[2:3])
    reversed_rows = backbone(tokens.flip(0).double(), seen.flip(0)).flip(0)
    torch.testing.assert_close(single[0], whole[2], rtol=0, atol=1e-12)
    torch.testing.assert_close(reversed_rows, whole, rtol=0, atol=1e-12)


@every_kind
def test_every_token_hears_of_another(name: str, feature_shape: tuple[int, ...] | None) -> None:
    tokens, _ = draw(1)
    backbone = build(name, feature_shape).eval()
    changed = tokens.clone()
    changed[0, 5] = tokens[0, 0]
    neighbours = [4, 6]
    assert (backbone(changed) - backbone(tokens))[0, neighbours].abs().amax(1).min() > 1e-6


@every_kind
def test_tokens_are_told_apart_by_their_position(name: str, feature_shape: tuple[int, ...] | None) -> None:
    output = build(name, feature_shape).eval()(torch.ones(1, N_TOKENS, D_TOKEN))
    assert torch.pdist(output[0]).min() > 1e-4


@every_kind
def test_same_seed_same_weights_and_dropout(name: str, feature_shape: tuple[int, ...] | None) -> None:
    tokens, seen = draw()

    def run(seed: int) -> Tensor:
        output: Tensor = build(name, feature_shape, seed=seed, dropout=0.3)(tokens, seen)
        return output

    assert torch.equal(run(3), run(3))
    assert not torch.allclose(run(3), run(4))


@every_kind
def test_dropout_is_on_in_training_only(name: str, feature_shape: tuple[int, ...] | None) -> None:
    tokens, seen = draw()
    backbone = build(name, feature_shape, dropout=0.5)
    assert not torch.equal(backbone(tokens, seen), backbone(tokens, seen))
    backbone.eval()
    assert torch.equal(backbone(tokens, seen), backbone(tokens, seen))


@every_kind
def test_bfloat16_autocast_stays_close_to_float32(name: str, feature_shape: tuple[int, ...] | None) -> None:
    tokens, seen = draw()
    backbone = build(name, feature_shape)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        reduced = backbone(tokens, seen)
    reduced.float().sum().backward()
    torch.testing.assert_close(reduced.float(), backbone(tokens, seen), rtol=0, atol=0.05)


def test_attention_equals_the_textbook() -> None:
    torch.manual_seed(0)
    attention = Attention(32, dropout=0.0)
    tokens = torch.randn(2, 4, 32)
    attended = torch.tensor([[True, True, False, True], [True, True, True, True]])
    query, key, value = attention.project(tokens).chunk(3, dim=2)
    parts = []
    for head in (slice(0, 16), slice(16, 32)):
        scores = query[..., head] @ key[..., head].transpose(1, 2) / 16**0.5
        weights = scores.masked_fill(~attended[:, None, :], -torch.inf).softmax(2)
        parts.append(weights @ value[..., head])
    expected = attention.output(torch.cat(parts, dim=2))
    torch.testing.assert_close(attention(tokens, attended), expected)


@pytest.mark.parametrize("n_seen", [1, 5, N_TOKENS])
def test_gathered_encoder_equals_key_masked_attention(n_seen: int) -> None:
    tokens, seen = draw_equal(6, n_seen)
    backbone = build("asymmetric").eval()
    assert isinstance(backbone, AsymmetricTransformer)
    masked = tokens + backbone.position
    for block in backbone.blocks:
        masked = block(masked, seen)
    masked = backbone.norm(masked) * seen.unsqueeze(2)
    torch.testing.assert_close(backbone.encode(tokens, seen), masked, rtol=0, atol=1e-6)


def test_rows_of_equal_counts_are_encoded_like_rows_of_unequal_counts() -> None:
    tokens, seen = draw_equal(6, 5)
    longer = torch.ones(1, N_TOKENS, dtype=torch.bool)
    backbone = build("asymmetric").eval()
    together = backbone.encode(torch.cat([tokens, tokens[:1]]), torch.cat([seen, longer]))[:-1]
    torch.testing.assert_close(backbone.encode(tokens, seen), together, rtol=0, atol=1e-6)


def test_asymmetric_encoder_works_on_seen_tokens_only() -> None:
    tokens, seen = draw_equal(6, 5)
    backbone = build("asymmetric").eval()
    lengths: list[int] = []
    for module in backbone.modules():
        if isinstance(module, Attention):
            module.register_forward_hook(lambda _, arguments, output: lengths.append(output.shape[1]))
    backbone(tokens, seen)
    assert lengths == [5, 5, N_TOKENS]


def test_asymmetric_ignores_the_content_of_unseen_tokens() -> None:
    tokens, seen = draw()
    backbone = build("asymmetric").eval()
    changed = torch.where(seen.unsqueeze(2), tokens, tokens + 100.0)
    assert torch.equal(backbone(changed, seen), backbone(tokens, seen))


@pytest.mark.parametrize("rows", [[0], [0, 3], list(range(6))])
def test_asymmetric_rows_without_a_seen_token_are_finite(rows: list[int]) -> None:
    tokens, seen = draw()
    seen[rows] = False
    backbone = build("asymmetric", dropout=0.2)
    output = backbone(tokens, seen)
    output.sum().backward()
    assert output.isfinite().all()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in backbone.parameters())
    assert not backbone.encode(tokens, seen)[rows].any()


def test_asymmetric_never_asks_a_row_to_attend_to_nothing() -> None:
    tokens, seen = draw()
    seen[0] = False
    backbone = build("asymmetric").eval()
    attended: list[Tensor] = []
    block = backbone.get_submodule("blocks.0")
    block.register_forward_pre_hook(lambda _, arguments: attended.append(arguments[1]))
    backbone(tokens, seen)
    assert attended[0].any(1).all()


def test_two_dimensional_convolution_hears_of_the_row_above() -> None:
    torch.manual_seed(0)
    tokens, _ = draw(1)
    changed = tokens.clone()
    changed[0, 0] += torch.randn(D_TOKEN)
    line = Conv(N_TOKENS, D_TOKEN, 1, 0.0)
    grid = Conv(N_TOKENS, D_TOKEN, 1, 0.0, feature_shape=(2, 6))
    for backbone in (line, grid):  # one group spreads the scale of a token over all others
        backbone.set_submodule("blocks.0.residual.0", nn.Identity())
    assert not (line(changed) - line(tokens))[0, 6].any()
    assert (grid(changed) - grid(tokens))[0, 6].abs().max() > 1e-4


@pytest.mark.parametrize("dilation", [1, 2, 4])
def test_a_line_is_convolved_as_along_one_axis(dilation: int) -> None:
    torch.manual_seed(0)
    line = LineConvolution(D_TOKEN, D_TOKEN, 3, padding=dilation, dilation=dilation)
    plain = nn.Conv1d(D_TOKEN, D_TOKEN, 3, padding=dilation, dilation=dilation)
    plain.load_state_dict(line.state_dict())
    tokens = draw()[0].transpose(1, 2)
    torch.testing.assert_close(line(tokens[:, :, None])[:, :, 0], plain(tokens), rtol=0, atol=1e-5)


@pytest.mark.parametrize("feature_shape", [(3, 5), (2, 3, 2), (11,)])
def test_feature_shape_must_hold_the_tokens(feature_shape: tuple[int, ...]) -> None:
    with pytest.raises(
        ParameterError, match="`feature_shape` must be a pair whose product is the number of tokens, 12"
    ):
        build("conv", feature_shape)


@pytest.mark.parametrize("d_token", [2, 7, 20, 48, 65])
@pytest.mark.parametrize("name", ["transformer", "asymmetric"])
def test_any_width_finds_its_heads(name: str, d_token: int) -> None:
    backbone = build_backbone(name, n_tokens=3, d_token=d_token, depth=1, dropout=0.0)
    assert backbone(torch.randn(2, 3, d_token)).shape == (2, 3, d_token)


def test_a_misspelt_name_is_refused() -> None:
    with pytest.raises(ParameterError, match="transformer"):
        build("transfomer")


def test_a_factory_from_outside_becomes_encoder() -> None:
    tokens, seen = draw()
    backbone = build_backbone(
        lambda n_tokens, d_token: nn.Linear(d_token, d_token), n_tokens=N_TOKENS, d_token=D_TOKEN, depth=9, dropout=0.9
    )
    latent = backbone.encode(tokens, seen)
    assert torch.equal(backbone.decode(latent, seen), latent)
    assert torch.equal(backbone(tokens, seen), latent)
    assert len(list(backbone.parameters())) == 2


def test_the_trial_leaves_running_statistics_and_modes_alone() -> None:
    module = nn.Sequential(nn.BatchNorm1d(N_TOKENS), nn.Dropout().eval())
    backbone = build_backbone(
        lambda n_tokens, d_token: module, n_tokens=N_TOKENS, d_token=D_TOKEN, depth=1, dropout=0.0
    )
    assert module.state_dict()["0.num_batches_tracked"] == 0
    assert [part.training for part in (backbone, *module)] == [True, True, False]


def test_a_backbone_from_outside_is_taken_as_it_is() -> None:
    factory = partial(Transformer, depth=1, dropout=0.0)
    backbone = build_backbone(factory, n_tokens=N_TOKENS, d_token=D_TOKEN, depth=5, dropout=0.5)
    assert isinstance(backbone, Transformer)
    assert len(backbone.blocks) == 1


@pytest.mark.parametrize(
    ("backbone", "message"),
    [
        (lambda n_tokens, d_token: nn.Linear(d_token, 3), r"to the same shape; its module gave shape \(2, 12, 3\)"),
        (lambda n_tokens, d_token: nn.LSTM(d_token, d_token), "to the same shape; its module gave tuple"),
        (lambda n_tokens, d_token: None, "`backbone` must return a torch.nn.Module; got NoneType"),
        (nn.Linear(3, 3), "`backbone` must be a name or a function that builds a module; got Linear"),
        (3, "`backbone` must be a name or a function that builds a module; got int"),
    ],
)
def test_what_is_no_backbone_is_refused(backbone: Any, message: str) -> None:
    with pytest.raises(ParameterError, match=message):
        build_backbone(backbone, n_tokens=N_TOKENS, d_token=D_TOKEN, depth=1, dropout=0.0)


@pytest.mark.parametrize("p", [0.1, 0.5, 0.9])
def test_dropout_drops_its_share_scales_the_rest_and_passes_the_gradient_of_what_is_kept(p: float) -> None:
    torch.manual_seed(0)
    given = torch.randn(1001, 99, requires_grad=True)
    dropped = Dropout(p)(given)
    kept = dropped != 0
    assert float(kept.double().mean()) == pytest.approx(1 - p, abs=0.005)
    torch.testing.assert_close(dropped[kept], given[kept] / (1 - p))
    (gradient,) = torch.autograd.grad(dropped.sum(), given)
    torch.testing.assert_close(gradient, kept / (1 - p))
    assert abs(float((kept[:-1] == kept[1:]).double().mean()) - (p * p + (1 - p) ** 2)) < 0.005, "rows are independent"
    assert abs(float((kept[:, :-1] == kept[:, 1:]).double().mean()) - (p * p + (1 - p) ** 2)) < 0.005


def test_dropout_is_drawn_from_the_seed_and_rests_outside_of_training() -> None:
    given, dropout = torch.ones(50, 7), Dropout(0.3)
    found = []
    for _ in range(2):
        torch.manual_seed(5)
        found.append(dropout(given))
    assert torch.equal(*found) and not torch.equal(found[0], dropout(given))
    assert dropout.eval()(given) is given or torch.equal(dropout(given), given)
    assert torch.equal(Dropout(0.0)(given), given) and not Dropout(1.0)(given).any()

"""Networks over tokens: every backbone maps tokens (B, N, D) to (B, N, D).

Each is split in two halves, `decode(encode(tokens, seen), seen)`; a row's result depends on that row alone.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tabmae.errors import ParameterError, check_choice

D_HEAD = 16
D_DECODER_LOW = 8
POSITION_SCALE = 0.02


class Backbone(nn.Module, ABC):
    """Encoder and decoder over tokens.

    Shapes: tokens (B, N, D); seen bool (B, N), False where the token is the mask token, None when all are seen;
    latent (B, M, E), where M and E are the backbone's own.
    """

    @abstractmethod
    def encode(self, tokens: Tensor, seen: Tensor | None = None) -> Tensor:
        """Turn tokens (B, N, D) into latent (B, M, E)."""

    @abstractmethod
    def decode(self, latent: Tensor, seen: Tensor | None = None) -> Tensor:
        """Turn latent (B, M, E) into tokens (B, N, D)."""

    def forward(self, tokens: Tensor, seen: Tensor | None = None) -> Tensor:
        return self.decode(self.encode(tokens, seen), seen)


class Dropout(nn.Dropout):
    """`torch.nn.Dropout`; on the CPU one draw of 64 bits decides about four numbers, which saves time.

    >>> dropped = Dropout(0.25)(torch.ones(100, 100))
    >>> len(dropped.unique()) == 2 and abs(dropped.mean().item() - 1) < 0.05
    True
    """

    def forward(self, input: Tensor) -> Tensor:
        if not self.training or input.device.type != "cpu" or not 0 < self.p < 1:
            return super().forward(input)
        words = torch.empty(-(-input.numel() // 4), dtype=torch.int64).random_(-(2**63), None)
        drawn = words.view(torch.int16)[: input.numel()].view(input.shape)
        kept = drawn >= round(self.p * 2**16) - 2**15
        return input * kept.to(input.dtype).mul_(1 / (1 - self.p))


class MLP(Backbone):
    """Fully connected layers over all tokens of a row at once.

    Shapes: latent (B, 1, 16 * D). `seen` is not used.
    """

    def __init__(self, n_tokens: int, d_token: int, depth: int, dropout: float) -> None:
        super().__init__()
        width = 16 * d_token
        layers: list[nn.Module] = []
        for d_in in [n_tokens * d_token] + [width] * (depth - 1):
            layers += [nn.Linear(d_in, width), nn.ReLU(), Dropout(dropout)]
        self.encoder = nn.Sequential(*layers)
        self.decoder = nn.Linear(width, n_tokens * d_token)
        self.n_tokens, self.d_token = n_tokens, d_token

    def encode(self, tokens: Tensor, seen: Tensor | None = None) -> Tensor:
        latent: Tensor = self.encoder(tokens.flatten(1))
        return latent.unsqueeze(1)

    def decode(self, latent: Tensor, seen: Tensor | None = None) -> Tensor:
        predicted: Tensor = self.decoder(latent.squeeze(1))
        return predicted.view(-1, self.n_tokens, self.d_token)


class Attention(nn.Module):
    """Self-attention of heads of about 16 (Vaswani et al. 2017, section 3.2).

    `attended`, bool (B, N), is False at the keys that nobody may look at.
    """

    def __init__(self, d_token: int, dropout: float) -> None:
        super().__init__()
        # No bias: softmax cancels the one of the keys, which would never get a gradient.
        self.project = nn.Linear(d_token, 3 * d_token, bias=False)
        self.output = nn.Linear(d_token, d_token)
        self.n_heads, self.dropout = count_heads(d_token), dropout

    def forward(self, tokens: Tensor, attended: Tensor | None = None) -> Tensor:
        heads = self.project(tokens).unflatten(2, (3, self.n_heads, -1))  # (B, N, 3, H, D / H)
        query, key, value = heads.permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(
            query,
            key,
            value,
            attn_mask=None if attended is None else attended[:, None, None, :],
            dropout_p=self.dropout if self.training else 0.0,
        )
        output: Tensor = self.output(mixed.transpose(1, 2).flatten(2))
        return output


class Block(nn.Module):
    """Pre-norm Transformer block: attention, then a GELU feed-forward layer of four times the width."""

    def __init__(self, d_token: int, dropout: float) -> None:
        super().__init__()
        self.attention_norm = nn.LayerNorm(d_token)
        self.attention = Attention(d_token, dropout)
        self.feedforward_norm = nn.LayerNorm(d_token)
        self.feedforward = nn.Sequential(
            nn.Linear(d_token, 4 * d_token), nn.GELU(), Dropout(dropout), nn.Linear(4 * d_token, d_token)
        )
        self.dropout = Dropout(dropout)

    def forward(self, tokens: Tensor, attended: Tensor | None = None) -> Tensor:
        tokens = tokens + self.dropout(self.attention(self.attention_norm(tokens), attended))
        output: Tensor = tokens + self.dropout(self.feedforward(self.feedforward_norm(tokens)))
        return output


class Transformer(Backbone):
    """Pre-norm Transformer over full-length tokens, mask tokens included.

    Shapes: latent (B, N, D). `seen` is not used.
    """

    def __init__(self, n_tokens: int, d_token: int, depth: int, dropout: float) -> None:
        super().__init__()
        self.position = learned_vectors(n_tokens, d_token)
        self.blocks = nn.ModuleList(Block(d_token, dropout) for _ in range(depth))
        self.norm = nn.LayerNorm(d_token)
        self.decoder = nn.Linear(d_token, d_token)

    def encode(self, tokens: Tensor, seen: Tensor | None = None) -> Tensor:
        tokens = tokens + self.position
        for block in self.blocks:
            tokens = block(tokens)
        latent: Tensor = self.norm(tokens)
        return latent

    def decode(self, latent: Tensor, seen: Tensor | None = None) -> Tensor:
        predicted: Tensor = self.decoder(latent)
        return predicted


class AsymmetricTransformer(Backbone):
    """Transformer whose encoder works on the seen tokens only; a light decoder sees all.

    Shapes: latent (B, N, D), zero where a token is not seen. The seen tokens of each row are gathered to the length of
    the longest row: rows of equal counts need no attention mask and no padding.

    Source: He et al. 2022, section 3.
    Differs: rows of unequal counts are padded and their padding is never attended to, as tables need; the decoder has
    one block, of half the width.
    """

    def __init__(self, n_tokens: int, d_token: int, depth: int, dropout: float) -> None:
        super().__init__()
        d_decoder = max(d_token // 2, D_DECODER_LOW)
        self.position = learned_vectors(n_tokens, d_token)
        self.blocks = nn.ModuleList(Block(d_token, dropout) for _ in range(depth))
        self.norm = nn.LayerNorm(d_token)
        self.bridge = nn.Linear(d_token, d_decoder)
        self.mask_token = learned_vectors(1, d_decoder)
        self.decoder_position = learned_vectors(n_tokens, d_decoder)
        self.decoder_block = Block(d_decoder, dropout)
        self.decoder_norm = nn.LayerNorm(d_decoder)
        self.decoder = nn.Linear(d_decoder, d_token)

    def encode(self, tokens: Tensor, seen: Tensor | None = None) -> Tensor:
        tokens = tokens + self.position
        if seen is None:
            return self._encode_seen(tokens, None)
        counts = seen.sum(1)
        shortest, longest = torch.stack(counts.aminmax()).tolist()
        if shortest == tokens.shape[1]:
            return self._encode_seen(tokens, None)
        longest = max(longest, 1)
        index = seen.byte().argsort(dim=1, descending=True, stable=True)[:, :longest]
        index = index.unsqueeze(2).expand(-1, -1, tokens.shape[2])
        filled = torch.arange(longest, device=seen.device) < counts.unsqueeze(1)  # (B, longest)
        # A row without a seen token attends to its padding, since softmax over nothing is NaN; it is zeroed below.
        attended = None if shortest == longest else filled | (counts == 0).unsqueeze(1)
        latent = self._encode_seen(tokens.gather(1, index), attended)
        latent = torch.where(filled.unsqueeze(2), latent, latent.new_zeros(()))
        return torch.zeros_like(tokens, dtype=latent.dtype).scatter(1, index, latent)

    def decode(self, latent: Tensor, seen: Tensor | None = None) -> Tensor:
        tokens = self.bridge(latent)
        if seen is not None:
            tokens = torch.where(seen.unsqueeze(2), tokens, self.mask_token.to(tokens.dtype))
        predicted: Tensor = self.decoder(self.decoder_norm(self.decoder_block(tokens + self.decoder_position)))
        return predicted

    def _encode_seen(self, tokens: Tensor, attended: Tensor | None) -> Tensor:
        for block in self.blocks:
            tokens = block(tokens, attended)
        latent: Tensor = self.norm(tokens)
        return latent


class LineConvolution(nn.Conv1d):
    """A convolution over a line that is given as a grid of height 1, (B, D, 1, N).

    With two axes torch convolves tokens as they lie, channels last, and the network takes a fifth less time.
    """

    def forward(self, tokens: Tensor) -> Tensor:
        padding, dilation = (0, int(self.padding[0])), (1, self.dilation[0])
        return nn.functional.conv2d(tokens, self.weight[:, :, None], self.bias, padding=padding, dilation=dilation)


class ConvBlock(nn.Module):
    """Pre-norm residual block of two convolutions with kernel 3, over a grid of tokens (B, D, h, w) or a line of them.

    A line is a grid of height 1.
    """

    def __init__(self, d_token: int, n_axes: int, dilation: int, dropout: float) -> None:
        super().__init__()
        convolution = {1: LineConvolution, 2: nn.Conv2d}[n_axes]
        self.residual = nn.Sequential(
            nn.GroupNorm(1, d_token),
            convolution(d_token, d_token, 3, padding=dilation, dilation=dilation),
            nn.GELU(),
            Dropout(dropout),
            convolution(d_token, d_token, 3, padding=dilation, dilation=dilation),
            Dropout(dropout),
        )

    def forward(self, tokens: Tensor) -> Tensor:
        output: Tensor = tokens + self.residual(tokens)
        return output


class Conv(Backbone):
    """Residual convolutions over the line of tokens, or over their grid with `feature_shape` (h, w).

    Blocks look 1, 2, 4, 1, ... tokens far, so that few of them reach across a table. Shapes: latent (B, N, D). `seen`
    is not used.
    """

    def __init__(
        self,
        n_tokens: int,
        d_token: int,
        depth: int,
        dropout: float,
        feature_shape: tuple[int, ...] | None = None,
    ) -> None:
        super().__init__()
        self.shape = tuple(feature_shape) if feature_shape is not None else (n_tokens,)
        if len(self.shape) > 2 or torch.Size(self.shape).numel() != n_tokens:
            raise ParameterError(
                f"`feature_shape` must be a pair whose product is the number of tokens, {n_tokens}; "
                f"got {feature_shape}. Pass (height, width) of the features, or None."
            )
        self.position = learned_vectors(n_tokens, d_token)
        self.blocks = nn.Sequential(
            *(ConvBlock(d_token, len(self.shape), 2 ** (layer % 3), dropout) for layer in range(depth))
        )
        self.norm = nn.LayerNorm(d_token)
        self.decoder = nn.Linear(d_token, d_token)

    def encode(self, tokens: Tensor, seen: Tensor | None = None) -> Tensor:
        height, width = (1, *self.shape)[-2:]
        grid = (tokens + self.position).transpose(1, 2).unflatten(2, (height, width))  # channels lie last
        latent: Tensor = self.norm(self.blocks(grid).flatten(2).transpose(1, 2))
        return latent

    def decode(self, latent: Tensor, seen: Tensor | None = None) -> Tensor:
        predicted: Tensor = self.decoder(latent)
        return predicted


class Foreign(Backbone):
    """A module from outside: it is the encoder, and its output is taken as decoded."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def encode(self, tokens: Tensor, seen: Tensor | None = None) -> Tensor:
        latent = self.module(tokens)
        if not isinstance(latent, Tensor) or latent.shape != tokens.shape:
            given = f"shape {tuple(latent.shape)}" if isinstance(latent, Tensor) else type(latent).__name__
            raise ParameterError(
                f"`backbone` must map tokens of shape {tuple(tokens.shape)} to the same shape; its module gave {given}"
                ". Return a tensor (B, n_tokens, d_token)."
            )
        return latent

    def decode(self, latent: Tensor, seen: Tensor | None = None) -> Tensor:
        return latent


BACKBONES: dict[str, Callable[..., Backbone]] = {
    "mlp": MLP,
    "transformer": Transformer,
    "asymmetric": AsymmetricTransformer,
    "conv": Conv,
}


def build_backbone(
    backbone: str | Callable[..., nn.Module],
    *,
    n_tokens: int,
    d_token: int,
    depth: int,
    dropout: float,
    feature_shape: tuple[int, ...] | None = None,
) -> Backbone:
    """Build the backbone of that name, or the one that `backbone(n_tokens, d_token)` returns.

    A `Backbone` from outside is taken as it is; any other module is tried on zeros once and wrapped. `feature_shape`
    serves "conv" only. Weights are drawn from torch's current global generator.

    Raises
    ------
    ParameterError : unknown name; not a factory of modules; the module does not keep the shape (B, N, D).

    >>> backbone = build_backbone("mlp", n_tokens=5, d_token=4, depth=2, dropout=0.0)
    >>> backbone(torch.zeros(3, 5, 4)).shape
    torch.Size([3, 5, 4])
    """
    if callable(backbone) and not isinstance(backbone, nn.Module):
        return adopt(backbone(n_tokens, d_token), n_tokens, d_token)
    if not isinstance(backbone, str):
        raise ParameterError(
            f"`backbone` must be a name or a function that builds a module; got {type(backbone).__name__}. "
            "Pass for example backbone='mlp', or lambda n_tokens, d_token: torch.nn.Linear(d_token, d_token)."
        )
    check_choice("backbone", backbone, BACKBONES)
    shape = {"feature_shape": feature_shape} if backbone == "conv" else {}
    return BACKBONES[backbone](n_tokens, d_token, depth, dropout, **shape)


def adopt(module: object, n_tokens: int, d_token: int) -> Backbone:
    """Wrap a module from outside, after one trial on zeros that leaves its state alone."""
    if not isinstance(module, nn.Module):
        raise ParameterError(
            f"`backbone` must return a torch.nn.Module; got {type(module).__name__}. "
            "Return a module that maps (B, n_tokens, d_token) to the same shape."
        )
    if isinstance(module, Backbone):
        return module
    adopted = Foreign(module)
    like = next(module.parameters(), torch.empty(0))
    modes = {part: part.training for part in module.modules()}
    adopted.eval()
    with torch.no_grad():
        adopted(torch.zeros(2, n_tokens, d_token, dtype=like.dtype, device=like.device))
    adopted.training = True
    for part, training in modes.items():
        part.training = training
    return adopted


def count_heads(d_token: int) -> int:
    """Give the number of heads of about 16 that divides the width."""
    return max(n for n in range(1, max(d_token // D_HEAD, 1) + 1) if d_token % n == 0)


def learned_vectors(n: int, d_token: int) -> nn.Parameter:
    """Draw n small vectors to be learned: positions, or a mask token."""
    return nn.Parameter(POSITION_SCALE * torch.randn(n, d_token))

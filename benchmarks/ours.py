"""This project's methods: the defaults, one change at a time, and the Gaussian expert without any network."""

from typing import Any, ClassVar

import pandas as pd
import torch
from torch import Tensor

from tabmae import TabMAE
from tabmae.backbones import Backbone
from tabmae.experts.gaussian import Gaussian
from tabmae.schema import TableSchema
from tabmae.tokenizers import CellTokenizer


class TabMAEMethod:
    """`TabMAE` with its defaults, but for `changes`."""

    changes: ClassVar[dict[str, Any]] = {}

    def __init__(self, seed: int, n_jobs: int) -> None:
        self.model = TabMAE(random_state=seed, **self.changes)

    def fit_transform(self, train: pd.DataFrame) -> pd.DataFrame:
        return self.model.fit(train).transform(train)

    def transform(self, frame: pd.DataFrame) -> pd.DataFrame:
        return self.model.transform(frame)


class PureMAE(TabMAEMethod):
    """The masked autoencoder without an expert."""

    changes: ClassVar[dict[str, Any]] = {"experts": ()}


class NoTrees(TabMAEMethod):
    """The experts and the network, without any forest."""

    changes: ClassVar[dict[str, Any]] = {"experts": ("gaussian", "copies")}


class NoCopies(TabMAEMethod):
    """The Gaussian, the network and the forests, without rows that others may copy."""

    changes: ClassVar[dict[str, Any]] = {"experts": ("gaussian", "trees")}


class Silent(Backbone):
    """A network that says nothing: only the biases of the heads are left, which learn how far to believe the expert."""

    def __init__(self, n_tokens: int, d_token: int, **_: object) -> None:
        super().__init__()
        self.shape = n_tokens, d_token

    def encode(self, tokens: Tensor, seen: Tensor | None = None) -> Tensor:
        return tokens.new_zeros(len(tokens), 1, 1)

    def decode(self, latent: Tensor, seen: Tensor | None = None) -> Tensor:
        return latent.new_zeros(len(latent), *self.shape)


class NoNetwork(TabMAEMethod):
    """The experts and the forests, without any network."""

    changes: ClassVar[dict[str, Any]] = {"backbone": Silent, "lr": 0.05}


class TransformerMAE(TabMAEMethod):
    """Full-length tokens through a pre-norm Transformer."""

    changes: ClassVar[dict[str, Any]] = {"backbone": "transformer", "d_token": 32, "lr": 1e-3}


class ConvMAE(TabMAEMethod):
    """Convolutions over neighbouring columns."""

    changes: ClassVar[dict[str, Any]] = {"backbone": "conv", "d_token": 32, "lr": 1e-3}


class GaussianAlone:
    """The EM Gaussian expert: conditional means, and the level of the largest conditional mean."""

    def __init__(self, seed: int, n_jobs: int) -> None:
        pass

    def fit_transform(self, train: pd.DataFrame) -> pd.DataFrame:
        self.schema = TableSchema.fit(train)
        values, observed = map(torch.from_numpy, self.schema.encode(train))
        self.tokenizer = CellTokenizer.fit(values, observed, self.schema.n_levels, d_token=1)
        cells, shown = self.tokenizer.expand(values, observed)
        self.expert = Gaussian(self.tokenizer.n_expert_columns).fit(cells, shown)
        return self.transform(train)

    def transform(self, frame: pd.DataFrame) -> pd.DataFrame:
        values, observed = map(torch.from_numpy, self.schema.encode(frame))
        cells, shown = self.tokenizer.expand(values.double(), observed)
        mean, _ = self.expert.condition(cells, shown, with_variance=False)
        filled = values.double()
        for feature, n_levels in enumerate(self.schema.n_levels):
            columns = torch.nonzero(self.tokenizer.expert_feature == feature)[:, 0]
            if n_levels == 0:
                filled[:, feature] = mean[:, columns[0]]
            elif len(columns):
                filled[:, feature] = mean[:, columns].argmax(1).double()
        return self.schema.decode(filled.numpy(), frame)

"""`TabMAEEncoder`: embeddings of rows as a step of a pipeline."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.base import ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.utils import Tags

from tabmae.estimators import base
from tabmae.estimators.learner import MaskedTableEstimator
from tabmae.saving import register


@register
class TabMAEEncoder(ClassNamePrefixFeaturesOutMixin, TransformerMixin, MaskedTableEstimator):
    """Masked autoencoder as a transformer step that embeds rows: `transform` gives the (n, d) embeddings of `encode`.

    Parameters, attributes and inputs are those of `TabMAE`, but for `experts`: "auto" is ("gaussian",), whose guess the
    network reads. Embeddings ask neither trees nor copies; `quality_` and `score` tell of the network and the Gaussian
    alone, and so of less than a `TabMAE` of the same table imputes. Name the experts to have all.

    >>> from sklearn.datasets import load_iris
    >>> encoder = TabMAEEncoder(max_epochs=2, random_state=0).fit(load_iris().data)
    >>> encoder.transform(load_iris().data).shape
    (150, 192)
    """

    auto_experts = ("gaussian",)

    def transform(self, X: Any) -> NDArray[np.float32]:
        """Embed rows; float32 (n, d)."""
        return self.encode(X)

    @property
    def _n_features_out(self) -> int:
        return base.latent_width(self.model_)

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.transformer_tags.preserves_dtype = ["float32"]
        return tags

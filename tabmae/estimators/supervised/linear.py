"""A linear model of completed rows, kept as arrays.

Contract: an answer is a linear map of a row's features; nothing else enters.
"""

from __future__ import annotations

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression, Ridge, RidgeCV
from torch import Tensor, nn

RIDGES = (0.1, 1.0, 10.0, 100.0, 1000.0)
LEAST_ROWS, MIDDLE_RIDGE = 5, 10.0
"""Rows from which on the ridge is chosen by leaving each out, and the ridge of fewer."""
LEAST_SCALE = 1e-6


class LinearModel(nn.Module):
    """Ridge or logistic regression, as fitted by scikit-learn.

    Buffers: `coefficients` (E, K), `intercept` (K,); K = 1 for a number, else the levels.
    """

    coefficients: Tensor
    intercept: Tensor

    def __init__(self, n_features: int = 0, n_outputs: int = 1) -> None:
        super().__init__()
        self.register_buffer("coefficients", torch.zeros(n_features, n_outputs, dtype=torch.float64))
        self.register_buffer("intercept", torch.zeros(n_outputs, dtype=torch.float64))

    def fit(
        self,
        features: Tensor,
        target: Tensor,
        n_levels: int,
        strength: float = 1.0,
        sample_weight: Tensor | None = None,
    ) -> LinearModel:
        """Fit to features (n, E) and numbers, or codes below `n_levels` (n,); 0 for numbers. Rows count alike, or by
        their weights (n,)."""
        inputs, truth = features.double().cpu().numpy(), target.cpu().numpy()
        weight = None if sample_weight is None else sample_weight.cpu().numpy()
        centre, scale = inputs.mean(0), inputs.std(0)
        scale = np.where(scale > LEAST_SCALE, scale, 1.0)
        inputs = (inputs - centre) / scale
        if n_levels:
            found = LogisticRegression(C=strength, max_iter=1000).fit(inputs, truth, weight)
            rows, intercept = found.coef_, found.intercept_
            if len(rows) == 1:
                rows, intercept = np.stack([0 * rows[0], rows[0]]), np.append(0.0, intercept)
            # A level that is not there gets the odds of one row among all.
            coefficients = np.zeros((n_levels, inputs.shape[1]))
            start = np.full(n_levels, intercept.min() - np.log(len(truth)))
            coefficients[found.classes_], start[found.classes_] = rows, intercept
        else:
            ridge = RidgeCV(RIDGES) if len(truth) >= LEAST_ROWS else Ridge(MIDDLE_RIDGE)
            ridge.fit(inputs, truth, weight)
            coefficients, start = ridge.coef_[None], np.array([ridge.intercept_])
        self.coefficients = torch.from_numpy((coefficients / scale).T.copy()).to(features.device)
        self.intercept = torch.from_numpy(start - coefficients @ (centre / scale)).to(features.device)
        return self

    def forward(self, features: Tensor) -> Tensor:
        """Numbers or log-odds (B, K) of features (B, E)."""
        return features.to(self.coefficients) @ self.coefficients + self.intercept

    def predict(self, features: Tensor) -> Tensor:
        """Numbers (B, 1), or probabilities of the levels (B, K)."""
        found = self(features)
        return found if found.shape[1] == 1 else found.softmax(1)

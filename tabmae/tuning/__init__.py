"""Tune an estimator's parameters by Optuna, on rows or steps that its fits do not see.

Contract: every trial learns from the same part and is scored on the same other one; the estimator that is passed in
stays as it was, and is what all trials have to beat.
"""

from tabmae.tuning.search import tune

__all__ = ["tune"]

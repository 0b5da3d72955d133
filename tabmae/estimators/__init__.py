"""Estimators: one file per task, and what they share in `base`."""

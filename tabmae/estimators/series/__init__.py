"""`TimeSeriesMAE`: one fitted object that imputes, forecasts, finds odd stretches of and encodes series."""

from tabmae.estimators.series.detecting import Detection
from tabmae.estimators.series.estimator import TimeSeriesMAE

__all__ = ["Detection", "TimeSeriesMAE"]

"""Odd steps of series: what judges them, and the answers."""

from tabmae.estimators.series.detecting.answers import AnswersOfDetection, Detection
from tabmae.estimators.series.detecting.detector import Reference, SeriesDetector

__all__ = ["AnswersOfDetection", "Detection", "Reference", "SeriesDetector"]

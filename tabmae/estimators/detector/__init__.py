"""Odd rows of a table, and which of their cells are odd: `TabMAEDetector`."""

from tabmae.estimators.detector.detector import TabMAEDetector

__all__ = ["TabMAEDetector"]

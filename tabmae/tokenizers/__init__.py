"""Cells to tokens and back, and the predictive distribution of every cell."""

from tabmae.tokenizers.cells import CellTokenizer, Guess
from tabmae.tokenizers.distribution import CellDistribution
from tabmae.tokenizers.patches import PatchTokenizer, SeriesDistribution, SeriesGuess

__all__ = ["CellDistribution", "CellTokenizer", "Guess", "PatchTokenizer", "SeriesDistribution", "SeriesGuess"]

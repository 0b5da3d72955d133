"""The command line, `tabmae`: the estimators for files of tables and series.

Contract: a result is written whole or not at all, and never over a file that is there unless asked to.
"""

from tabmae.cli.program import main

__all__ = ["main"]

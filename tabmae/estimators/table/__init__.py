"""Estimators for tables: `TabMAE` imputes, `TabMAEEncoder` embeds."""

from tabmae.estimators.table.encoder import TabMAEEncoder
from tabmae.estimators.table.imputer import TabMAE

__all__ = ["TabMAE", "TabMAEEncoder"]

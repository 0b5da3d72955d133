"""Pages on what was missing in a table or in series, what it was taken for, and how far that can be trusted.

Contract: a page is one text of HTML that fetches nothing; whatever comes from the data is escaped.
"""

from tabmae.report.cells import imputed_cells
from tabmae.report.page import html_report

__all__ = ["html_report", "imputed_cells"]

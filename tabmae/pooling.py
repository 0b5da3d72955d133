"""Pool an analysis that was run on each of several completed tables into one estimate and interval.

Contract: estimates and variances of the same m analyses give a row a coefficient, whatever the analysis was.
"""

from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from tabmae.errors import DataError, check_number, listed


def pool(estimates: Any, variances: Any, n_complete: float | None = None, level: float = 0.95) -> pd.DataFrame:
    """Pool the estimates of m analyses by Rubin's rules.

    Parameters
    ----------
    estimates : (m,) for one coefficient or (m, p), a row an analysis: array, DataFrame, or list of numbers, rows or
        Series. The names of a DataFrame or of Series name the rows of the result.
    variances : of the same shape, the squared standard errors; found by name where both have names, else by position.
    n_complete : degrees of freedom of the analysis had no cell been missing, for linear regression the rows less the
        coefficients. With it, intervals are fit for small tables; None takes it for infinite.
    level : share of intervals that are to hold the truth, in (0, 1).

    Returns
    -------
    DataFrame, a row for each coefficient:
        estimate : mean of the estimates.
        standard_error : root of the mean variance plus (1 + 1/m) times the variance between the estimates.
        low, high : ends of the interval, by Student's t.
        degrees_of_freedom : of that t, of Barnard and Rubin where `n_complete` is given, else of Rubin; infinite where
            the estimates are equal and `n_complete` is not given.
        fraction_missing : share of the information on the coefficient that is lost with the missing cells, in [0, 1]:
            the share of the squared standard error that comes from between the estimates, put up for the finite m.

    Raises
    ------
    DataError : fewer than two analyses, shapes or names that differ, missing values, or negative variances.
    ParameterError : `n_complete` or `level` is out of range.

    Source: Rubin 1987, Multiple Imputation for Nonresponse in Surveys, section 3.1, (3.1.10) for the fraction; the
    degrees of freedom with `n_complete`, Barnard and Rubin 1999, Small-sample degrees of freedom with multiple
    imputation.
    Differs: mice puts the degrees of freedom of Barnard and Rubin into the fraction, too, which then is not 0 where all
    estimates are equal.

    >>> pool([1.0, 2.0, 3.0], [0.5, 0.5, 0.5])[["estimate", "standard_error", "low", "high"]].round(2)
       estimate  standard_error   low  high
    0       2.0            1.35 -1.85  5.85
    """
    if n_complete is not None:
        hint = "Pass the rows less the coefficients, or None."
        check_number("n_complete", n_complete, low=0, low_open=True, hint=hint)
    hint = "Pass the share of intervals to hold the truth, for example 0.95."
    check_number("level", level, low=0, high=1, low_open=True, high_open=True, hint=hint)
    centres, spreads = _matched(_read("estimates", estimates), _read("variances", variances))
    n_analyses = len(centres)
    within = spreads.to_numpy().mean(axis=0)
    between = (1 + 1 / n_analyses) * centres.to_numpy().var(axis=0, ddof=1)
    total = within + between
    share = np.divide(between, total, out=np.zeros_like(total), where=total > 0)
    with np.errstate(divide="ignore"):
        large = (n_analyses - 1) / share**2
        degrees = large
        if n_complete is not None:
            observed = (n_complete + 1) / (n_complete + 3) * n_complete * (1 - share)
            degrees = 1 / (1 / large + 1 / observed)
    # Without variance within there are no degrees left: nothing is known.
    reach = np.where(degrees > 0, stats.t.ppf((1 + level) / 2, degrees), np.inf)
    mean, error = centres.to_numpy().mean(axis=0), np.sqrt(total)
    return pd.DataFrame(
        {
            "estimate": mean,
            "standard_error": error,
            "low": mean - reach * error,
            "high": mean + reach * error,
            "degrees_of_freedom": degrees,
            "fraction_missing": share + (1 - share) * 2 / (large + 3),
        },
        index=centres.columns,
    )


def _read(name: str, given: Any) -> pd.DataFrame:
    """Finite float64 (m, p), a row an analysis, m at least 2."""
    try:
        table = pd.DataFrame(np.asarray(given) if isinstance(given, pd.Series) else given)
        numbers = table.to_numpy(dtype=np.float64)
    except (TypeError, ValueError, pd.errors.InvalidIndexError) as error:
        raise DataError(
            f"`{name}` must hold numbers, a row an analysis; got what does not ({error}). Pass an array (m,) or (m, p)."
        ) from error
    if len(numbers) < 2 or not numbers.shape[1]:
        raise DataError(
            f"`{name}` must hold a coefficient and two analyses at least; got shape {numbers.shape}. "
            "Pass a row for each completed table."
        )
    wrong = ~np.isfinite(numbers).all(axis=0)
    if wrong.any():
        raise DataError(
            f"`{name}` must be finite; those of {listed(table.columns[wrong])} are not. Give every analysis the same "
            "coefficients, or leave those out."
        )
    return pd.DataFrame(numbers, columns=table.columns)


def _matched(centres: pd.DataFrame, spreads: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Estimates, and variances in their order."""
    if centres.shape != spreads.shape:
        raise DataError(
            f"`estimates` and `variances` must have one shape; got {centres.shape} and {spreads.shape}. "
            "Pass the squared standard error of each estimate."
        )
    if not any(isinstance(table.columns, pd.RangeIndex) for table in (centres, spreads)):
        apart = set(centres.columns) ^ set(spreads.columns)
        wrong = [
            name
            for names in (centres.columns, spreads.columns)
            for name, again in zip(names, names.duplicated(), strict=True)
            if again or name in apart
        ]
        if wrong:
            raise DataError(
                "`estimates` and `variances` must have the same names, each once; not so: "
                f"{listed(dict.fromkeys(wrong))}. Rename them, or pass arrays."
            )
        spreads = spreads[centres.columns]
    negative = (spreads < 0).any(axis=0).to_numpy()
    if negative.any():
        raise DataError(
            f"`variances` must not be negative; those of {listed(centres.columns[negative])} are. "
            "Pass squared standard errors."
        )
    return centres, spreads

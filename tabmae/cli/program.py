"""The program: its commands, and how it fails.

Contract: bad input ends in exit code 2 and one sentence on the standard error, never in a traceback.
"""

from __future__ import annotations

import re
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TextIO

import click

from tabmae import __version__
from tabmae.cli.detect import detect
from tabmae.cli.evaluate import evaluate
from tabmae.cli.forecast import forecast
from tabmae.cli.impute import impute
from tabmae.cli.info import info
from tabmae.cli.report import report
from tabmae.cli.tune import tune
from tabmae.errors import TabMAEError, TrainingInterruptedWarning

BAD_INPUT, INTERRUPTED = 2, 130
SENTENCE = re.compile(r"""(?:'[^']*'|"[^"]*"|`[^`]*`|[^.]|\.(?!\s+[A-Z"'`]))*\.?""")
"""Up to the first period that ends a sentence; those in quoted names end none."""


class Program(click.Group):
    """A group of commands that fails in one sentence."""

    def main(self, *args: Any, **extra: Any) -> Any:
        """Run a command line and exit: with 0, with 2 for bad input, with 130 when interrupted."""
        extra["standalone_mode"] = False
        try:
            with warnings_in_words():
                code = super().main(*args, **extra)
        except (click.exceptions.Abort, TrainingInterruptedWarning):
            fail("Interrupted; the result was not written.", INTERRUPTED)
        except click.ClickException as error:
            fail(error.format_message(), BAD_INPUT)
        except TabMAEError as error:
            fail(first_sentence(str(error)), BAD_INPUT)
        except OSError as error:
            where = "" if error.filename is None else f": {error.filename!r}"
            fail(f"{error.strerror or error}{where}.", BAD_INPUT)
        sys.exit(code if isinstance(code, int) else 0)


def fail(sentence: str, code: int) -> None:
    click.echo(f"Error: {' '.join(sentence.split())}", err=True)
    sys.exit(code)


def first_sentence(text: str) -> str:
    """What must hold and what was given; the rest of a message speaks of Python.

    >>> first_sentence("X lacks 'St. Gallen'; it has 2.5. Pass X[names].")
    "X lacks 'St. Gallen'; it has 2.5."
    """
    found = SENTENCE.match(text)
    return found.group() if found else text


@contextmanager
def warnings_in_words() -> Iterator[None]:
    """Show warnings for users as lines on the standard error, each once."""
    shown: set[str] = set()

    def show(
        message: Warning | str,
        category: type[Warning],
        filename: str,
        lineno: int,
        file: TextIO | None = None,
        line: str | None = None,
    ) -> None:
        text = str(message)
        if category is UserWarning and text not in shown:  # libraries warn in classes of their own
            shown.add(text)
            click.echo(f"Warning: {text}", err=True)

    with warnings.catch_warnings():
        warnings.filterwarnings("always", category=UserWarning)
        # Training alone would keep its best weights and go on to a result.
        warnings.simplefilter("error", TrainingInterruptedWarning)
        warnings.showwarning = show
        yield


@click.group(cls=Program, invoke_without_command=True, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="tabmae")
@click.pass_context
def main(context: click.Context) -> None:
    """Masked autoencoders for tables and series with holes: impute, forecast, detect.

    Tables are files of CSV, TSV, Parquet or Arrow (Feather), by their extension.
    """
    if context.invoked_subcommand is None:
        click.echo(context.get_help())


for command in (impute, forecast, detect, evaluate, tune, report, info):
    main.add_command(command)

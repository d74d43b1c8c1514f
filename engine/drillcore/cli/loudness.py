"""How much the command in hand says: `--quiet`, `--verbose` and `--debug`, given before or after its name."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass, replace

import typer

from drillcore.cli.tables import OutputClosed, write_line
from drillcore.system.progress import telling


@dataclass(frozen=True)
class Loudness:
    """quiet: errors, warnings and results only. verbose: details too. debug: the traceback of an error, too."""

    quiet: bool = False
    verbose: bool = False
    debug: bool = False


USUAL = Loudness()
_asked: ContextVar[Loudness] = ContextVar("loudness", default=USUAL)


def loudness() -> Loudness:
    """What the user asked for."""
    return _asked.get()


def ask(*, quiet: bool, verbose: bool, debug: bool) -> None:
    """Take the options given at one place; those after the command's name stand over those before it.

    Raises a usage error where both quiet and verbose are given there.
    """
    if quiet and verbose:
        raise typer.BadParameter("--quiet and --verbose exclude each other")
    before = _asked.get()
    if quiet or verbose:
        before = replace(before, quiet=quiet, verbose=verbose)
    _asked.set(replace(before, debug=before.debug or debug))


@contextmanager
def speaking() -> Iterator[None]:
    """Inside, a command is run: what parts say that know no listener goes to standard error, if it is asked for."""
    token = _asked.set(USUAL)
    try:
        with telling(_say, say_detail):
            yield
    finally:
        _asked.reset(token)


def _say(line: str) -> None:
    if not loudness().quiet:
        with suppress(OutputClosed):  # nobody listens any more; the command goes on
            write_line(line, sys.stderr)


def say_detail(line: str) -> None:
    """Say a line to a user who asked for details."""
    if loudness().verbose:
        _say(line)

"""Keeps what transformers and libraries in Rust print out of the terminal: it goes to the details of a run."""

from __future__ import annotations

import logging
import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from drillcore.system.logs import Teller, take_over_logs
from drillcore.system.progress import tell_detail

# Loggers that print by themselves.
PRINTING = ("transformers", "huggingface_hub", "accelerate")


@contextmanager
def quiet_transformers() -> Iterator[None]:
    """No progress bars, and log lines and warnings as details only; restores the former settings at the end."""
    from huggingface_hub.utils import logging as hub_logging
    from transformers.utils import logging as transformers_logging

    for of_library in (hub_logging, transformers_logging):
        of_library.get_verbosity()  # sets its logger up, if nothing has yet
    for library in (*PRINTING, "torch"):
        take_over_logs(library)
    loggers = [logging.getLogger(name) for name in PRINTING]
    former = [(logger, logger.handlers, logger.propagate, logger.level) for logger in loggers]
    bars = transformers_logging.is_progress_bar_enabled()
    transformers_logging.disable_progress_bar()
    for logger in loggers:
        logger.handlers, logger.propagate = [Teller(tell_detail)], False
        logger.setLevel(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("default")
            warnings.showwarning = _tell_warning
            yield
    finally:
        for logger, handlers, propagates, level in former:
            logger.handlers, logger.propagate = handlers, propagates
            logger.setLevel(level)
        if bars:
            transformers_logging.enable_progress_bar()


def _tell_warning(message: Warning | str, category: type[Warning], *_: object, **__: object) -> None:
    tell_detail(f"{category.__name__}: {message}")


@contextmanager
def without_panics() -> Iterator[None]:
    """Raise RuntimeError where a library written in Rust panics, and drop what it then writes to standard error.

    Its exception is no Exception, and its report goes to the file descriptor, past Python.
    """
    sys.stderr.flush()
    try:
        before = os.dup(2)
    except OSError:  # a process without standard error
        before = None
    if before is not None:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, 2)
        os.close(nowhere)
    try:
        yield
    except BaseException as error:
        if type(error).__name__ != "PanicException":
            raise
        raise RuntimeError(str(error)) from error
    finally:
        if before is not None:
            with suppress(OSError, ValueError):
                sys.stderr.flush()
            os.dup2(before, 2)
            os.close(before)

"""Keeps `transformers` from printing progress bars and advice."""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from logging import CRITICAL


@contextmanager
def quiet_transformers() -> Iterator[None]:
    """No log lines, since errors are raised too, and no progress bars; restores the former settings at the end."""
    from huggingface_hub.utils import logging as hub_logging
    from transformers.utils import logging

    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    hub_level = hub_logging.get_verbosity()
    logging.set_verbosity(CRITICAL)
    hub_logging.set_verbosity(CRITICAL)
    logging.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.set_verbosity(level)
        hub_logging.set_verbosity(hub_level)
        if bars:
            logging.enable_progress_bar()


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

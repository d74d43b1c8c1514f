"""Keeps what libraries print out of the terminal: it goes to the details of a run and its log."""

from __future__ import annotations

import logging
import os
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from drillcore.system.progress import tell_detail

# What libraries read when they are imported: warnings that they would print past Python stay unprinted.
VARIABLES = {"TORCH_CPP_LOG_LEVEL": "ERROR", "TF_CPP_MIN_LOG_LEVEL": "3", "TRANSFORMERS_NO_ADVISORY_WARNINGS": "1"}
# Loggers that print by themselves.
PRINTING = ("transformers", "huggingface_hub")

_is_command = False


class _Teller(logging.Handler):
    """Gives each line to a function, with the name of the logger."""

    def __init__(self, hear: Callable[[str], None]) -> None:
        super().__init__(logging.WARNING)
        self._hear = hear

    def emit(self, record: logging.LogRecord) -> None:
        """Tell one line."""
        with suppress(Exception):  # a record whose arguments do not fit is no reason to end
            self._hear(f"{record.name}: {record.getMessage()}")


@contextmanager
def quiet_libraries(hear: Callable[[str], None]) -> Iterator[None]:
    """Inside, the whole process is a command: warnings of libraries go to Python's root logger, and are not printed.

    hear: gets each line of theirs; a run's log hears them through the logger. A program that calls drillcore keeps its
    own settings, since only the command line enters this.
    """
    global _is_command
    for name, value in VARIABLES.items():
        os.environ.setdefault(name, value)
    root, teller = logging.getLogger(), _Teller(hear)
    root.addHandler(teller)
    logging.captureWarnings(True)
    _is_command = True
    try:
        yield
    finally:
        _is_command = False
        logging.captureWarnings(False)
        root.removeHandler(teller)


def take_over_logs(library: str) -> None:
    """Let an imported library's loggers print nothing by themselves, where the process is a command."""
    if not _is_command:
        return
    for name, logger in list(logging.root.manager.loggerDict.items()):
        if isinstance(logger, logging.Logger) and name.split(".")[0] == library:
            for handler in list(logger.handlers):
                if isinstance(handler, logging.StreamHandler) and not isinstance(handler, logging.FileHandler):
                    logger.removeHandler(handler)
            logger.propagate = True


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
        logger.handlers, logger.propagate = [_Teller(tell_detail)], False
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

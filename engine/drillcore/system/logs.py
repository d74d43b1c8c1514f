"""Log lines of libraries: while the process is a command they go to the details of a run and its log, unprinted."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

# What libraries read when they are imported: warnings that they would print past Python stay unprinted.
VARIABLES = {"TORCH_CPP_LOG_LEVEL": "ERROR", "TF_CPP_MIN_LOG_LEVEL": "3", "TRANSFORMERS_NO_ADVISORY_WARNINGS": "1"}

_is_command = False


class Teller(logging.Handler):
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
    root, teller = logging.getLogger(), Teller(hear)
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

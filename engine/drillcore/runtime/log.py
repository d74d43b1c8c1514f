"""What a run says, kept in `log.txt` beside its manifest and passed to Python's logger `drillcore`."""

from __future__ import annotations

import logging
import sys
import time
from contextlib import suppress
from logging.handlers import MemoryHandler, RotatingFileHandler
from pathlib import Path

from drillcore.errors import DrillcoreError
from drillcore.system.progress import ProgressListener, counted, hearer_of_details
from drillcore.system.visible import visible

LOGGER = logging.getLogger("drillcore")
LOGGER.addHandler(logging.NullHandler())

NAME = "log.txt"
# A log that has grown to so many bytes becomes log.txt.1, in place of the one before.
MOST_BYTES = 5 * 2**20
FILES = (NAME, f"{NAME}.1")


class RunLog:
    """Passes progress on to a listener, and writes it to the logger and, once there is a place for it, to a file.

    Lines from before `open` are written then; without it, none are. What libraries log as a warning or worse while the
    log is there goes to the file only. Writing to the file never raises: no run fails for its log.
    """

    def __init__(self, listener: ProgressListener) -> None:
        self._listener, self._hear_details = listener, hearer_of_details()
        # While there is no file, it keeps every line.
        self._lines = MemoryHandler(sys.maxsize, logging.CRITICAL + 1, flushOnClose=False)
        self._libraries = _Libraries(self._lines)
        logging.getLogger().addHandler(self._libraries)
        self._file: _File | None = None
        self._begun = time.time()

    def start(self, stage: str, total: int, unit: str) -> None:
        """A stage begins."""
        self._log(logging.INFO, f"{stage}: {counted(total, unit)}")
        self._listener.start(stage, total, unit)

    def advance(self, count: int) -> None:
        """Pass on; the log has no counts."""
        self._listener.advance(count)

    def finish(self, summary: str) -> None:
        """The stage ended."""
        self._log(logging.INFO, summary)
        self._listener.finish(summary)

    def say(self, message: str) -> None:
        """Log and show a message."""
        self._log(logging.INFO, message)
        self._listener.say(message)

    def warn(self, message: str) -> None:
        """Log and show a warning."""
        self._log(logging.WARNING, message)
        self._listener.warn(message)

    def detail(self, line: str) -> None:
        """Log a line, and pass it on to whoever heard details when this log was made."""
        self._log(logging.DEBUG, line)
        if self._hear_details is not None:
            self._hear_details(line)

    def open(self, folder: Path, *first: str) -> None:
        """Write to the log of a folder from now on: `first`, all lines of before, and what follows."""
        path = folder / NAME
        self._file = _File(path, maxBytes=MOST_BYTES, backupCount=1, encoding="utf-8", delay=True)
        self._file.setFormatter(_Visible("%(asctime)s %(levelname)-7s %(name)s: %(message)s", "%FT%T%z"))
        for line in first:
            record = _record(logging.INFO, line)
            record.created = self._begun
            self._file.handle(record)
        self._lines.setTarget(self._file)
        self._lines.flush()
        self._lines.capacity = 1

    def end(self, error: BaseException | None) -> None:
        """Write how the run ended, with the traceback of an error."""
        if error is None:
            line = _record(logging.INFO, "done")
        elif isinstance(error, KeyboardInterrupt):
            line = _record(logging.ERROR, "interrupted; what was committed is kept")
        else:
            hint = f"\n  {error.hint}" if isinstance(error, DrillcoreError) and error.hint else ""
            line = _record(logging.ERROR, f"failed: {error}{hint}")
            line.exc_info = (type(error), error, error.__traceback__)
        self._lines.handle(line)

    def close(self) -> None:
        """Let go of the file; more lines only go on to the listener and the logger."""
        logging.getLogger().removeHandler(self._libraries)
        self._lines.setLevel(logging.CRITICAL + 1)
        self._lines.setTarget(None)
        self._lines.buffer.clear()
        if self._file is not None:
            with suppress(OSError, ValueError):
                self._file.close()
            self._file = None

    def _log(self, level: int, line: str) -> None:
        record = _record(level, line)
        if level >= self._lines.level:
            self._lines.handle(record)
        if LOGGER.isEnabledFor(level):
            LOGGER.handle(record)


class _Libraries(logging.Handler):
    """Hands on what other loggers say; ours has its own way."""

    def __init__(self, lines: logging.Handler) -> None:
        super().__init__(logging.WARNING)
        self._lines = lines

    def emit(self, record: logging.LogRecord) -> None:
        """Hand on a line."""
        if record.name.split(".")[0] != LOGGER.name:
            self._lines.handle(record)


class _File(RotatingFileHandler):
    """Writes lines, and passes over what cannot be written, on a full disk for one."""

    def handleError(self, record: logging.LogRecord) -> None:
        """Go on."""


class _Visible(logging.Formatter):
    """Lines without control characters."""

    def format(self, record: logging.LogRecord) -> str:
        """One record, its traceback included."""
        return visible(super().format(record))


def _record(level: int, line: str) -> logging.LogRecord:
    return LOGGER.makeRecord(LOGGER.name, level, __file__, 0, line, (), None)

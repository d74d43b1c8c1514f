"""Runs drillcore's commands inside this process, and does so in forks that a hang or a crash cannot spread from."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import json
import os
import re
import signal
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SAYS_FAULT = re.compile(r"bug in drillcore|Traceback \(most recent|unexpected [A-Z]\w+:")


@dataclass(frozen=True)
class Outcome:
    """How a command ended, and all that it printed."""

    status: int
    said: str

    @property
    def is_fault(self) -> bool:
        """Whether it says that drillcore itself is at fault."""
        return SAYS_FAULT.search(self.said) is not None


def drill(*argv: str) -> Outcome:
    """Run a command of the command line; its exit status and what it printed."""
    from drillcore.cli.main import main

    said, status = io.StringIO(), 0
    before, sys.argv = sys.argv, ["drillcore", *argv]
    try:
        with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
            main()
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else int(end.code is not None)
    except Exception:
        status = 1
        said.write(traceback.format_exc())
    finally:
        sys.argv = before
    return Outcome(status, said.getvalue())


def warm_up() -> None:
    """What every fork shall find done: imports, one thread, and pictures as plain text, which is quick."""
    import torch
    import xarray  # noqa: F401

    import drillcore.runtime.stages.render.stage as stage
    from drillcore.system.files import replacing

    def write_curves(charts: object, path: Path, **_: object) -> Path:
        with replacing(path) as scratch:
            scratch.write_text(repr(plain(charts)), encoding="utf-8")
        return path

    stage.write_curves = write_curves
    stage.write_grid = lambda grid, path, **_: [write_curves(grid, path)]
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")


def plain(value: Any) -> Any:
    """All that a picture shows as plain values; panels are read."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if callable(value):
        return plain(value())
    if hasattr(value, "tolist"):
        return value.tolist()
    return [plain(each) for each in value] if isinstance(value, list | tuple) else value


class NoEnd(Exception):
    """A fork did not end in time and was killed."""


class NoAnswer(RuntimeError):
    """A fork was killed, or ended itself, before it gave its answer."""


def forked(work: Callable[[], Any], seconds: float) -> Any:
    """Do something in a fork of this process; what it returns, which must be JSON-ready.

    Raises NoEnd where it takes longer than `seconds`, NoAnswer where it was killed, and RuntimeError with the traceback
    where it fails.
    """
    with tempfile.TemporaryFile("w+", encoding="utf-8") as answer:
        pid = start(work, answer)
        status = wait(pid, seconds)
        answer.seek(0)
        text = answer.read()
    if status is None:
        raise NoEnd
    if not text:
        raise NoAnswer(f"ended with {status} and without an answer")
    found = json.loads(text)
    if "failed" in found:
        raise RuntimeError(found["failed"])
    return found["answer"]


def start(work: Callable[[], Any], answer: io.TextIOBase) -> int:
    """Start a fork that writes what `work` returns to `answer`; its process id. It leads a process group of its own."""
    pid = os.fork()
    if pid:
        with contextlib.suppress(OSError):  # the fork has done so itself, or has ended
            os.setpgid(pid, pid)
        return pid
    os.setpgid(0, 0)
    try:
        result = {"answer": work()}
    except BaseException:
        result = {"failed": traceback.format_exc()}
    with contextlib.suppress(BaseException):
        answer.write(json.dumps(result))
        answer.flush()
    os._exit(0)


def wait(pid: int, seconds: float) -> int | None:
    """Exit status of a fork, negative where a signal ended it; None where it had to be killed."""
    until, pause = time.monotonic() + seconds, 0.001
    while True:
        found, status = os.waitpid(pid, os.WNOHANG)
        if found:
            return os.waitstatus_to_exitcode(status)
        if time.monotonic() > until:
            os.killpg(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            return None
        time.sleep(pause)
        pause = min(0.02, 1.3 * pause)

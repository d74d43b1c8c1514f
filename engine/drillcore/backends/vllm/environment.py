"""What vLLM takes from its environment rather than from arguments: variables, logging, the OpenMP library.

What it and its workers have to say goes to one file, unless the user set VLLM_LOGGING_LEVEL: it is read when they fail.
"""

from __future__ import annotations

import json
import logging
import os
import re
import sys
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from functools import cache
from pathlib import Path

OPENMP = "libiomp5.so"
# Names our folder, by which what we set is told from what the user did, also where another drillcore started this one.
PREFIX = "drillcore-vllm-"


@contextmanager
def quiet_vllm() -> Iterator[None]:
    """Import and call vLLM inside: it and what it imports warn of much that concerns nobody here."""
    if "vllm" not in sys.modules and not _user_wants_to_see():
        _log_to_file()
    # It reports its use to its makers unless told not to.
    os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _user_wants_to_see() -> bool:
    given = os.environ.get("VLLM_LOGGING_CONFIG_PATH", "")
    return "VLLM_LOGGING_LEVEL" in os.environ or (given != "" and PREFIX not in given)


@cache
def _folder() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(prefix=PREFIX)


def _log() -> Path:
    return Path(_folder().name) / "vllm.log"


def _log_to_file() -> None:
    """Make this process and its workers log to the file."""
    handler = {"class": "logging.FileHandler", "filename": str(_log()), "formatter": "plain"}
    config = {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {"plain": {"format": "%(levelname)s %(message)s"}},
        "handlers": {"file": handler},
        "loggers": {"vllm": {"handlers": ["file"], "level": "WARNING", "propagate": False}},
    }
    path = _log().with_name("logging.json")
    path.write_text(json.dumps(config), encoding="utf-8")
    os.environ["VLLM_LOGGING_CONFIG_PATH"] = str(path)
    # It speaks while it is imported, before it reads that.
    logging.getLogger("vllm").addHandler(logging.NullHandler())


@contextmanager
def _stderr_to_log() -> Iterator[None]:
    """What is started inside keeps the file as its standard error; ours comes back after."""
    with _log().open("ab") as log:
        sys.stderr.flush()
        ours = os.dup(2)
        os.dup2(log.fileno(), 2)
        try:
            yield
        finally:
            sys.stderr.flush()
            os.dup2(ours, 2)
            os.close(ours)


def last_error() -> str:
    """The last exception in the log, as `Kind: what it says`; nothing where there is no log of ours."""
    try:
        lines = _log().read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return ""
    found = [line.strip() for line in lines if re.match(r"\s*[\w.]*(Error|Exception)\b: \S", line)]
    return found[-1] if found else ""


@contextmanager
def worker_environment(threads: int, kv_gib: int | None) -> Iterator[None]:
    """Variables that workers start with; what was there before comes back after.

    threads: of one worker. kv_gib: memory for the prefix cache on a CPU, unless the user set it.
    """
    wanted = {
        "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
        "VLLM_WORKER_MULTIPROC_METHOD": "spawn",
        "OMP_NUM_THREADS": str(max(1, threads)),
        "VLLM_CPU_OMP_THREADS_BIND": os.environ.get("VLLM_CPU_OMP_THREADS_BIND", "nobind"),
        "LD_PRELOAD": _preloaded(),
    }
    if kv_gib is not None:
        wanted["VLLM_CPU_KVCACHE_SPACE"] = str(kv_gib)
    before = {name: os.environ.get(name) for name in wanted}
    os.environ.update(wanted)
    try:
        with nullcontext() if _user_wants_to_see() else _stderr_to_log():
            yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def _preloaded() -> str:
    """LD_PRELOAD with the OpenMP library that vLLM's CPU kernels want, where its wheel brought it."""
    given = os.environ.get("LD_PRELOAD", "")
    library = Path(sys.prefix) / "lib" / OPENMP
    return f"{given}:{library}".strip(":") if library.exists() and "libiomp" not in given else given

"""What vLLM takes from its environment instead of arguments: variables, logging, the OpenMP library.

The output of vLLM and its workers goes to one file, which is read when they fail, unless the user set
VLLM_LOGGING_LEVEL.
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
# Prefix of our log folder: it tells our logging settings from the user's, even if another drillcore started this one.
PREFIX = "drillcore-vllm-"


@contextmanager
def quiet_vllm() -> Iterator[None]:
    """Import and call vLLM inside: hides warnings of vLLM and its imports that do not concern users."""
    if "vllm" not in sys.modules and not _user_wants_to_see():
        _log_to_file()
    # vLLM reports usage statistics unless told not to.
    os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _user_wants_to_see() -> bool:
    path = os.environ.get("VLLM_LOGGING_CONFIG_PATH", "")
    return "VLLM_LOGGING_LEVEL" in os.environ or (path != "" and PREFIX not in path)


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
    # vLLM logs while it is imported, before it reads that file.
    logging.getLogger("vllm").addHandler(logging.NullHandler())


@contextmanager
def _stderr_to_log() -> Iterator[None]:
    """Processes started inside write their standard error to the log; ours is restored afterwards."""
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
    """The last exception in the log, as `Kind: message`; empty where there is no log of ours."""
    try:
        lines = _log().read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return ""
    errors = [line.strip() for line in lines if re.match(r"\s*[\w.]*(Error|Exception)\b: \S", line)]
    return errors[-1] if errors else ""


@contextmanager
def worker_environment(threads: int, kv_gib: int | None) -> Iterator[None]:
    """Sets the variables that workers start with; restores the earlier ones afterwards.

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
    """LD_PRELOAD with the OpenMP library that vLLM's CPU kernels need, if its wheel brought one."""
    value = os.environ.get("LD_PRELOAD", "")
    library = Path(sys.prefix) / "lib" / OPENMP
    return f"{value}:{library}".strip(":") if library.exists() and "libiomp" not in value else value

"""Bounds on what a user's files can do: kinds and sizes of files, JSON of any shape, time and memory of what they run.

Reading a pipe or a device may never end, a number in a configuration may ask for a billion layers, and a chat template
is a program. Each ends here as an error, within seconds.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import stat
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

# Bytes of a file of settings. The largest known, the vocabularies of tokenizers, have a quarter of it.
MOST_BYTES = 128 * 2**20
ABSENT, BROKEN = "there is no such file", "is a link to a file that is not there"
FOLDER = "is a directory, not a file"
PAGE_BYTES = resource.getpagesize()


class BeyondBounds(BaseException):
    """What runs inside `bounded` took more time or memory than it may.

    No Exception, so that the code which is stopped cannot take it for an error of its own and go on.
    """


def problem_with(path: Path, most: int | None = None) -> str:
    """Why a file cannot be read, or empty. A pipe or a device is refused: it may have no end, and gives its bytes once.

    most: bytes that it may have.

    >>> problem_with(Path("/dev/zero")), problem_with(Path("/"))
    ('is not an ordinary file', 'is a directory, not a file')
    """
    try:
        found = path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return BROKEN if path.is_symlink() else ABSENT
    except OSError as error:
        return f"cannot be read: {error.strerror}"
    except ValueError:
        return "cannot be the name of a file"
    if stat.S_ISDIR(found.st_mode):
        return FOLDER
    if not stat.S_ISREG(found.st_mode):
        return "is not an ordinary file"
    if most is not None and found.st_size > most:
        return f"has {found.st_size:,} bytes, more than the {most:,} that such a file may have"
    return ""


def real_path(path: Path) -> Path:
    """An absolute path without links and relative parts, as `Path.resolve` gives it, and links in a circle as they are.

    >>> real_path(Path("/tmp/../dev/./null")).as_posix()
    '/dev/null'
    """
    return Path(os.path.realpath(path))


def problem_with_output(path: Path, most: int | None = None) -> str:
    """Why no file can take the place of what is at a path, or empty. A device or a pipe is not to be replaced by one.

    most: bytes that a file there may have, because it is read before.

    >>> problem_with_output(Path("/dev/null")), problem_with_output(Path("/tmp/nothing-there"))
    ('is not an ordinary file', '')
    """
    problem = problem_with(path, most)
    return "" if problem in (ABSENT, BROKEN) else problem


def problem_with_folder(path: Path) -> str:
    """Why no folder can be at a path, or empty where there is one, or could be.

    >>> problem_with_folder(Path("/tmp")), problem_with_folder(Path("/dev/null"))
    ('', 'is a file')
    >>> problem_with_folder(Path("/dev/null/below"))
    'lies below /dev/null, which is a file'
    """
    problem = problem_with(path)
    if problem == ABSENT:
        above = next(place for place in path.absolute().parents if place.exists())
        return "" if above.is_dir() else f"lies below {above}, which is a file"
    if problem in (BROKEN, FOLDER):
        return ""
    return problem if problem.startswith("cannot") else "is a file"


def read_bytes(path: Path, most: int = MOST_BYTES) -> bytes:
    """All bytes of an ordinary file; raises OSError, whose text says why, for anything else."""
    problem = problem_with(path, most)
    if problem:
        raise OSError(problem)
    with path.open("rb") as stream:
        return stream.read(most)


def parse_json(text: str | bytes) -> Any:
    """A JSON document; raises ValueError, in plain words, whatever is wrong with it.

    >>> parse_json("[" * 100_000)
    Traceback (most recent call last):
    ValueError: it is nested too deeply
    """
    try:
        value = json.loads(text)
        # A half of a surrogate pair, which JSON can escape, could not be written again.
        json.dumps(value, ensure_ascii=False).encode()
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    except UnicodeEncodeError:
        raise ValueError("it holds half of a surrogate pair") from None
    except json.JSONDecodeError:
        raise
    except ValueError as error:
        raise ValueError("it holds a number too long to read" if "int_max_str" in str(error) else str(error)) from None
    return value


def read_json(path: Path, most: int = MOST_BYTES) -> Any:
    """A file of JSON; raises OSError where it cannot be read, ValueError where it is not JSON."""
    return parse_json(read_bytes(path, most))


def read_object(path: Path) -> dict[str, Any]:
    """A JSON object that drillcore wrote; empty where there is no such file, or it is damaged or something else."""
    try:
        found = read_json(path)
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def objects_in(value: object) -> dict[str, dict[str, Any]]:
    """Those entries of a JSON object that are objects themselves; none where it is no object.

    >>> objects_in({"a": {}, "b": 5}), objects_in([])
    ({'a': {}}, {})
    """
    return {name: v for name, v in value.items() if isinstance(v, dict)} if isinstance(value, dict) else {}


@contextmanager
def bounded(seconds: float, memory_bytes: int) -> Iterator[None]:
    """Raise BeyondBounds where what runs inside takes more processor time of this process, or more memory than now.

    For Python, and libraries that survive a failed allocation. The time is bounded in the main thread only, the memory
    where the system can bound it (Linux). Not to be nested. Threads that are inside at the same time share one bound of
    memory, which has room for all of them.
    """
    try:
        with _memory_bounded(memory_bytes), _time_bounded(seconds):
            yield
    except MemoryError:
        raise BeyondBounds(f"needed more than {memory_bytes / 2**30:g} GiB of memory") from None


@dataclass
class _Bound:
    """How many threads are inside, and the limits that hold outside: the process has one of each for all threads."""

    lock: threading.Lock
    inside: int = 0
    outside: tuple[int, int] = (resource.RLIM_INFINITY, resource.RLIM_INFINITY)


_bound = _Bound(threading.Lock())


@contextmanager
def _memory_bounded(memory_bytes: int) -> Iterator[None]:
    with _bound.lock:
        soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
        if not _bound.inside:
            _bound.outside = soft, hard
        _bound.inside += 1
        used = soft if _bound.inside > 1 else _data_bytes()
        if used and _bound.outside[0] == resource.RLIM_INFINITY:
            resource.setrlimit(resource.RLIMIT_DATA, (used + memory_bytes, hard))
    try:
        yield
    finally:
        with _bound.lock:
            _bound.inside -= 1
            if not _bound.inside:
                resource.setrlimit(resource.RLIMIT_DATA, _bound.outside)


@contextmanager
def _time_bounded(seconds: float) -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    is_over = False

    def stop(number: int, frame: FrameType | None) -> None:
        if not is_over:
            raise BeyondBounds(f"took more than {seconds:g} seconds of processor time")

    before = signal.signal(signal.SIGVTALRM, stop)
    try:
        # Again each second: code that clears up after one exception may be as slow.
        signal.setitimer(signal.ITIMER_VIRTUAL, seconds, 1.0)
        try:
            yield
        finally:
            is_over = True  # it may still be raised right before
    finally:
        is_over = True
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)


def _data_bytes() -> int:
    """Memory of this process's own data, as RLIMIT_DATA counts it; 0 where the system does not say."""
    try:
        return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[5]) * PAGE_BYTES
    except (OSError, IndexError, ValueError):
        return 0

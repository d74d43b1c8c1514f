"""Watches every file operation by which a process changes a folder, and records what is on disk before each.

What a kill with SIGKILL leaves is what is on disk at that moment, so one recorded run stands for a kill before each of
its operations. `Disk` also follows what was flushed, so that the states after a loss of power can be made of it.
"""

from __future__ import annotations

import contextlib
import os
import random
import re
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
EVENTS = ("os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.truncate", "os.link", "os.symlink")
# The log of runs: no command reads it.
LOG = "log.txt"
RANDOM_NAME = re.compile(r"[0-9a-f]{32}|rows-\w+\.tmp")
# Content of files by path, None for a folder.
State = dict[str, bytes | None]


def watch(folder: Path, before: Callable[[str, str], None], flushed: Callable[[int], None]) -> None:
    """Call `before` with the name and path of each operation that changes the folder; there is no way to end it.

    flushed: called with the descriptor after each fsync. Operations of all threads wait for each other.
    """
    lock, inside = threading.RLock(), str(folder.resolve()) + os.sep

    def seen(name: str, path: str) -> None:
        if path.startswith(inside):
            with lock:
                before(name, path.removeprefix(inside))

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if event == "open" and arguments[0] is not None and int(arguments[2] or 0) & WRITING:
            if not isinstance(arguments[0], int):
                seen("open", _absolute(arguments[0], -1))
        elif event in EVENTS:
            at = next((a for a in arguments[1:] if isinstance(a, int) and event in ("os.remove", "os.rmdir")), -1)
            seen(event.removeprefix("os."), _absolute(arguments[0], at))
        elif event == "fcntl.flock":
            seen("flock", _path_of(arguments[0]))

    fsync = os.fsync

    def watched_fsync(descriptor: Any) -> None:
        number = descriptor if isinstance(descriptor, int) else descriptor.fileno()
        seen("fsync", _path_of(number))
        fsync(number)
        with lock:
            flushed(number)

    os.fsync = watched_fsync
    sys.addaudithook(hook)


def _absolute(path: Any, at: int) -> str:
    if isinstance(path, int):
        return _path_of(path)
    return str(Path(_path_of(at) if at >= 0 else Path.cwd()) / os.fsdecode(path))


def _path_of(descriptor: Any) -> str:
    number = descriptor if isinstance(descriptor, int) else descriptor.fileno()
    try:
        return str(Path(f"/proc/self/fd/{number}").readlink())
    except OSError:
        return ""


@dataclass
class Node:
    """A file or folder. kept: what of it is on the disk itself: content, or entries by name; None for nothing yet."""

    kept: bytes | dict[str, Node] | None


@dataclass
class Disk:
    """A folder as the system shows it, and as the disk has it."""

    folder: Path
    _nodes: dict[int, Node] = field(default_factory=dict)
    _read: dict[tuple[int, ...], bytes] = field(default_factory=dict)
    _numbers: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for path, content in self.now().items():
            self._node(path).kept = content
        for path in ["", *(p for p, content in self.now().items() if content is None)]:
            self.flush(path)

    def _node(self, path: str) -> Node:
        """The file or folder that the system shows under a path now."""
        return self._nodes.setdefault(self._numbers[path], Node(None))

    def flush(self, path: str) -> None:
        """A file's content, or a folder's entries, are on disk from now on."""
        shown = self.now()
        if path and shown.get(path) is not None:
            self._node(path).kept = shown[path]
        elif not path or path in shown:
            self._node(path).kept = {name: self._node(below) for name, below in _entries(shown, path).items()}

    def now(self) -> State:
        """What the system shows; looked at again until nothing changes: another thread may be in an operation."""
        found, numbers = self._look()
        while (again := self._look()) != (found, numbers):
            found, numbers = again
        self._numbers = numbers
        alive = set(numbers.values())
        self._nodes = {number: node for number, node in self._nodes.items() if number in alive}
        for number in alive:
            self._nodes.setdefault(number, Node(None))
        return found

    def _look(self) -> tuple[State, dict[str, int]]:
        found: State = {}
        numbers = {"": self.folder.stat().st_ino}
        folders = [""]
        while folders:
            top = folders.pop()
            with contextlib.suppress(FileNotFoundError), os.scandir(self.folder / top) as entries:
                for entry in entries:
                    path, numbers_of = f"{top}{entry.name}", entry.stat(follow_symlinks=False)
                    numbers[path] = numbers_of.st_ino
                    if entry.is_dir(follow_symlinks=False):
                        found[path] = None
                        folders.append(f"{path}/")
                    else:
                        found[path] = self._content(path, numbers_of)
        return found, numbers

    def _content(self, path: str, status: os.stat_result) -> bytes:
        mark = (status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
        if mark not in self._read:
            self._read[mark] = (self.folder / path).read_bytes()
        return self._read[mark]

    def after_power_loss(self, shown: State, draw: random.Random | None) -> State:
        """What a loss of power leaves of what the system shows now.

        Without `draw` only what was flushed; with it, each folder has its old entries or its new ones, and each file
        that was not flushed is empty, half there, or whole.
        """
        left: State = {}
        self._leave(self._node(""), "", shown, draw, left)
        return left

    def _leave(self, node: Node, path: str, shown: State, draw: random.Random | None, left: State) -> None:
        entries = dict(node.kept) if isinstance(node.kept, dict) else {}
        if draw is not None and draw.random() < 0.5 and (not path or shown.get(path, b"") is None):
            entries = {name: self._node(below) for name, below in _entries(shown, path).items()}
        for name, child in entries.items():
            below = f"{path}/{name}" if path else name
            if isinstance(child.kept, dict) or shown.get(below, b"") is None:
                left[below] = None
                self._leave(child, below, shown, draw, left)
            else:
                is_shown = below in shown and self._node(below) is child
                left[below] = self._survives(child, shown[below] if is_shown else None, draw)

    def _survives(self, node: Node, shown: bytes | None, draw: random.Random | None) -> bytes:
        flushed = node.kept if isinstance(node.kept, bytes) else b""
        if draw is None or shown is None or shown == flushed:
            return flushed
        return draw.choice([flushed, shown[: len(shown) // 2], bytes(len(shown)), shown])


def _entries(shown: State, folder: str) -> dict[str, str]:
    """Paths of what is directly in a folder, by name."""
    begin = f"{folder}/" if folder else ""
    return {p[len(begin) :]: p for p in shown if p.startswith(begin) and "/" not in p[len(begin) :]}


@cache
def plain_path(path: str) -> str:
    """A path without the random part of a scratch file's name."""
    return RANDOM_NAME.sub("x", path)


def key_of(state: State) -> int:
    """A hash of a state, the same for two whose scratch files differ in nothing but random parts of their names.

    What the log says is no difference either.
    """
    return hash(
        frozenset((plain_path(path), b"" if path.endswith(LOG) else content) for path, content in state.items())
    )


def write_state(state: State, folder: Path) -> None:
    """Make a folder that holds a state."""
    folder.mkdir(parents=True)
    for path, content in sorted(state.items()):
        if content is None:
            (folder / path).mkdir(exist_ok=True)
        else:
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).write_bytes(content)


def half_written(before: State, now: State) -> Iterator[State]:
    """States in which a file that was written since the last operation is only half there; a renamed one is whole."""
    known = set(before.values())
    for path, content in now.items():
        if content and content not in known and not path.endswith(LOG):
            yield {**now, path: content[: len(content) // 2]}

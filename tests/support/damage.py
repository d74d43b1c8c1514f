"""What happens to files of a cache: every kind of damage, by name, with a path that it changes."""

from __future__ import annotations

import os
import random
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

Damage = Callable[[Path], None]
SAMPLED = 6


def _folder(path: Path) -> None:
    path.unlink()
    path.mkdir()
    (path / "inside").write_bytes(b"x")


def _link(path: Path) -> None:
    path.unlink()
    path.symlink_to(path.with_name("nowhere"))


def _pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def damages(raw: bytes, other: bytes, draw: random.Random) -> Iterator[tuple[str, Damage]]:
    """Every kind of damage of a file of these bytes. other: those of another file of its kind."""
    size = len(raw)
    # The digest and the note before it are the last bytes.
    places = {0, 1, size // 2, size - 1, size - 8, size - 17, size - 40, *draw.sample(range(size), min(SAMPLED, size))}
    for place in sorted(places):
        bit = draw.randrange(8)
        flipped = bytes([*raw[:place], raw[place] ^ 1 << bit, *raw[place + 1 :]])
        yield f"bit {bit} of byte {place} of {size}", _written(flipped)
    for kept in (0, 1, size // 2, size - 1):
        yield f"cut to {kept} of {size}", _written(raw[:kept])
    yield "a byte more", _written(raw + b"\0")
    yield "zeroed", _written(bytes(size))
    yield "half zeroed", _written(raw[: size // 2] + bytes(size - size // 2))
    yield "another file", _written(other)
    for text in ("{}", "[]", "null", "0" * 64, "1" * 5000):
        yield f"text {text[:9]}", _written(text.encode())
    yield "a folder", _folder
    yield "a broken link", _link
    yield "a named pipe", _pipe


def _written(data: bytes) -> Damage:
    def write(path: Path) -> None:
        # Under a new name: what has the old file mapped keeps it.
        scratch = path.with_name("scratch")
        scratch.write_bytes(data)
        scratch.replace(path)

    return write


def restore(path: Path, raw: bytes) -> None:
    """The file as it was."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    _written(raw)(path)

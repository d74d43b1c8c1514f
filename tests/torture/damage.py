"""Every way in which one thing of a finished store, of the folder beside it, or of the cache is damaged.

The name of a `Damage` says all of it, such as `swapped runs/job.zarr/ma/d/label/c/0 | runs/job.zarr/mb/d/label/c/0`, so
that one of them can be repeated. `all_damages` lists them for a place.
"""

from __future__ import annotations

import json
import shutil
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torture.job import CACHE, STORE

# Files whose bytes mean nothing to a store or a run: the lock's note for people, what a run drew, and times of a run.
NO_MEANING = (
    "runs/job/lock",
    "runs/job/pictures/*.png",
    "runs/job/report.html",
    "runs/job/manifest.json",
    "runs/job/log.txt",
)

# What a reader of JSON may meet.
SHAPES = {
    "null": b"null",
    "number": b"5",
    "list": b"[]",
    "nothing": b"{}",
    "not UTF-8": bytes(range(256)),
    "deep": b"[" * 100_000,
    "digits": b'{"attributes": {"format": ' + b"9" * 5_000 + b"}}",
    "infinite": b'{"zarr_format": 3, "node_type": "group", "attributes": {"format": 1e999}}',
    "attributes": b'{"zarr_format": 3, "node_type": "group", "attributes": 5}',
    "members": b'{"zarr_format": 3, "node_type": "group", "attributes": {"format": 2, "members": 5}}',
    "array": b'{"zarr_format": 3, "node_type": "array", "shape": [-1], "chunk_grid": 5}',
    "former": b'{"zarr_format": 2, "shape": [10000000000000000000000]}',
}


@dataclass(frozen=True)
class Damage:
    """One damage. kind: its class. where: a path below the place. how: which variant, or the path of a partner."""

    kind: str
    where: str
    how: str = ""

    def __str__(self) -> str:
        return f"{self.kind} {self.where}" + (f" | {self.how}" if self.how else "")

    @property
    def row(self) -> str:
        """The row of the table that counts it."""
        place = "store" if self.where.startswith(STORE) else "cache" if self.where.startswith(CACHE) else "beside"
        return f"{place}: {self.kind}"

    def apply(self, folder: Path, donors: dict[str, Path]) -> None:
        """Do it to a place. donors: places of other versions of the inputs."""
        APPLY[self.kind](folder, self.where, self.how, donors)


def _flip(folder: Path, where: str, how: str, _: object) -> None:
    """One bit of a binary file, one letter or digit of a text; `how` is a share of the file's length, 0 to 100."""
    path = folder / where
    data = bytearray(path.read_bytes())
    if not data:
        return
    at = min(len(data) - 1, len(data) * int(how) // 100)
    if _is_text(path):
        places = [i for i in range(at, len(data)) if chr(data[i]).isalnum()] or [at]
        at = places[0]
        data[at] = ord("1" if data[at] == ord("0") else "0") if chr(data[at]).isdigit() else data[at] ^ 1
    else:
        data[at] ^= 1 << zlib.crc32(f"{where}{how}".encode()) % 8
    path.write_bytes(data)


def _is_text(path: Path) -> bool:
    return path.suffix in (".json", ".notes", ".sha256") or path.name in ("lock", "sha256")


def _cut(folder: Path, where: str, how: str, _: object) -> None:
    data = (folder / where).read_bytes()
    (folder / where).write_bytes(data[: len(data) * int(how) // 100 if how != "last" else -1])


def _zero(folder: Path, where: str, *_: object) -> None:
    (folder / where).write_bytes(bytes((folder / where).stat().st_size))


def _delete(folder: Path, where: str, *_: object) -> None:
    path = folder / where
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink()


def _folder(folder: Path, where: str, *_: object) -> None:
    (folder / where).unlink()
    (folder / where).mkdir()


def _shape(folder: Path, where: str, how: str, _: object) -> None:
    """JSON, or nearly JSON, of another shape."""
    (folder / where).write_bytes(SHAPES[how])


def _swap(folder: Path, where: str, how: str, _: object) -> None:
    """`where` and `how` name as many files or folders each, separated by spaces; each takes its partner's place."""
    for one, other in zip(where.split(), how.split(), strict=True):
        scratch = folder / "scratch"
        (folder / one).rename(scratch)
        (folder / other).rename(folder / one)
        scratch.rename(folder / other)


def _older(folder: Path, where: str, how: str, donors: dict[str, Path]) -> None:
    """Files or folders of a store that was made with other inputs."""
    for one in where.split():
        target, source = folder / one, donors[how] / one
        if source.is_dir():
            shutil.rmtree(target)
            shutil.copytree(source, target, copy_function=shutil.copyfile)
        else:
            shutil.copyfile(source, target)


def _stray(folder: Path, where: str, how: str, _: object) -> None:
    path = folder / where / how
    if how.endswith(".txt"):
        path.write_text("not of this store\n", encoding="utf-8")
    else:
        path.mkdir()
        group = {"zarr_format": 3, "node_type": "group", "attributes": {}}
        (path / "zarr.json").write_text(json.dumps(group), encoding="utf-8")


def _edit(folder: Path, where: str, how: str, _: object) -> None:
    """Change a document of metadata and keep it valid JSON. how: what to do, and the path of the key.

    `both` does the same to the copy of the document in the consolidated metadata.
    """
    what, _, key = how.partition(" ")
    path = folder / where
    document = json.loads(path.read_text(encoding="utf-8"))
    _change(document, key.split("/"), what.removesuffix("+both"))
    path.write_text(json.dumps(document, indent=2), encoding="utf-8")
    if what.endswith("+both"):
        root = folder / STORE / "zarr.json"
        document = json.loads(root.read_text(encoding="utf-8"))
        own = where.removeprefix(f"{STORE}/").removesuffix("/zarr.json")
        _change(document["consolidated_metadata"]["metadata"][own], key.split("/"), what.removesuffix("+both"))
        root.write_text(json.dumps(document, indent=2), encoding="utf-8")


def _change(document: Any, keys: list[str], what: str) -> None:
    for part in keys[:-1]:
        document = document[_key(document, part)]
    key = _key(document, keys[-1])
    if what == "removed":
        del document[key]
    elif what == "added":
        document[f"{key}_2"] = document.get(key)
    else:
        document[key] = other(document[key])


def _key(container: object, part: str) -> str | int:
    """A part of a key's path, whose own slashes are written as backslashes; a position where it is one of a list."""
    return int(part) if isinstance(container, list) else part.replace("\\", "/")


def other(value: object) -> object:
    """A value of the same kind that is not this one.

    >>> other(3), other("ab"), other([1, 2]), other({"a": None})
    (4, 'ac', [2], {'a': 0})
    """
    if isinstance(value, bool):
        return not value
    if isinstance(value, int | float):
        return value + 1
    if isinstance(value, str):
        return value[:-1] + chr(ord(value[-1]) ^ 1) if value else "x"
    if isinstance(value, list):
        return value[1:] if value else [0]
    if isinstance(value, dict):
        first = next(iter(value), None)
        return {**value, first: other(value[first])} if first is not None else {"x": 0}
    return 0


APPLY: dict[str, Callable[[Path, str, str, dict[str, Path]], None]] = {
    "flipped": _flip,
    "cut": _cut,
    "zeroed": _zero,
    "emptied": lambda folder, where, how, donors: _cut(folder, where, "0", donors),
    "deleted": _delete,
    "made a folder": _folder,
    "of another shape": _shape,
    "swapped": _swap,
    "swapped in its group": _swap,
    "shard's files swapped": _swap,
    "of an older version": _older,
    "shard's files of an older version": _older,
    "metadata edited": _edit,
    "consolidated metadata edited": _edit,
    "stray": _stray,
    "removed": _delete,
}

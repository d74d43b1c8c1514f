"""Token ids in the cache: one folder a key, checked when it is read. Never trusted on its name alone.

A folder holds `ids.npy`, `offsets.npy` and `sha256`, the checksum of the two.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np

from drillcore.errors import ModelError
from drillcore.system.files import cache_dir, file_digest
from drillcore.tokens.sequences import Sequences

# Rows that are encoded again and compared whenever a folder is read.
NUM_COMPARED = 16
FILES = ("ids.npy", "offsets.npy")


def cached(
    kind: str,
    key: str,
    num_rows: int,
    encode: Callable[[Sequence[int]], list[list[int]]],
    every: Callable[[], Iterable[list[int]]],
) -> Sequences:
    """Token ids of all rows from the folder `kind`/`key` of the cache, or computed and written there; memory-mapped.

    encode: ids of some rows, given by their numbers. every: ids of all rows, in order. Whatever is found, a few rows
    are encoded again and compared; a folder that differs, or is damaged, is written again. Raises ModelError where
    rows that were just encoded come out differently.
    """
    folder = cache_dir() / kind / key
    found = _read(folder, num_rows)
    if found is not None and _agrees(found, encode):
        return found
    _write(folder, every())
    found = _read(folder, num_rows)
    if found is None or not _agrees(found, encode):
        shutil.rmtree(folder, ignore_errors=True)
        raise ModelError(
            "the tokenizer gives other tokens when the same sentence is encoded again",
            hint="It draws at random (`dropout` in tokenizer.json, `enable_sampling`), or its chat template writes the "
            "time: turn that off. If midnight just passed, run the same command again.",
        )
    return found


def _agrees(found: Sequences, encode: Callable[[Sequence[int]], list[list[int]]]) -> bool:
    """Whether a few rows, the longest among them, have the ids that the tokenizer gives now."""
    if not len(found):
        return True
    spread = np.linspace(0, len(found) - 1, min(NUM_COMPARED, len(found))).astype(int).tolist()
    rows = sorted({*spread, int(found.lengths_N.argmax())})
    same = all(found[row].tolist() == list(ids) for row, ids in zip(rows, encode(rows), strict=True))
    found.release()
    return same


def _read(folder: Path, num_rows: int) -> Sequences | None:
    """What a folder holds; None where it is missing, damaged, or of another number of rows."""
    try:
        if (folder / "sha256").read_text(encoding="ascii") != _checksum(folder):
            return None
        ids_T, bounds_N1 = (np.load(folder / name, mmap_mode="r") for name in FILES)
    except (OSError, ValueError, EOFError):
        return None
    return Sequences(ids_T, bounds_N1) if len(bounds_N1) == num_rows + 1 and bounds_N1[-1] == len(ids_T) else None


def _checksum(folder: Path) -> str:
    return hashlib.sha256("".join(file_digest(folder / name) for name in FILES).encode()).hexdigest()


def _write(folder: Path, rows: Iterable[list[int]]) -> None:
    """Write a folder under a scratch name, then give it its own: nobody reads a half-written one."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(dir=folder.parent, prefix=".writing-"))
    try:
        _write_arrays(scratch, rows)
        (scratch / "sha256").write_text(_checksum(scratch), encoding="ascii")
        shutil.rmtree(folder, ignore_errors=True)
        try:
            scratch.rename(folder)
        except OSError:
            # Another process was faster. Its folder is read, and compared, next.
            if not (folder / "sha256").exists():
                raise
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _write_arrays(folder: Path, rows: Iterable[list[int]]) -> None:
    lengths, raw = [0], folder / "ids.raw"
    with raw.open("wb") as stream:
        for ids in rows:
            lengths.append(len(ids))
            stream.write(np.asarray(ids, dtype=np.int32).tobytes())
        stream.flush()
        os.fsync(stream.fileno())
    offsets = np.cumsum(np.array(lengths, np.int64))
    np.save(folder / "offsets.npy", offsets)
    # An .npy file is a header and the raw bytes: write it without holding them.
    ids_T = np.memmap(raw, np.int32, "r", shape=(int(offsets[-1]),)) if offsets[-1] else np.zeros(0, np.int32)
    np.save(folder / "ids.npy", ids_T)
    raw.unlink()

"""Token ids in the cache: one entry a key, checked when it is read, and compared with what the tokenizer gives now.

The data of an entry are the ids of all rows one after the other, int32, and where each row begins and ends, int64; the
facts are how many rows and ids there are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import numpy as np

from drillcore.errors import ModelError
from drillcore.system.cached import Draft, Entry, Opened, WrongEntry
from drillcore.system.files import cache_dir
from drillcore.tokens.sequences import Sequences

# Rows that are encoded again and compared whenever an entry is read.
NUM_COMPARED = 16
# Rows that are written in one go.
STEP = 4096
# The bounds begin at a multiple of their size.
ALIGNED = 8


def cached(
    kind: str,
    key: str,
    num_rows: int,
    encode: Callable[[Sequence[int]], list[list[int]]],
    every: Callable[[], Iterable[list[int]]],
) -> Sequences:
    """Token ids of all rows from the entry `key` of the cache's folder `kind`, or computed and kept; memory-mapped.

    encode: ids of some rows, given by their numbers. every: ids of all rows, in order. Whatever is found, a few rows
    are encoded again and compared; an entry that differs, or is damaged, is written again, and that is said. Raises
    ModelError where rows that were just encoded come out differently, RunError where the cache cannot be written.
    """
    entry = Entry(cache_dir() / kind, key, {"tokens": "token ids"}.get(kind, kind))

    def checked(opened: Opened) -> Sequences:
        found = _sequences(opened, num_rows)
        if not _agrees(found, encode):
            raise WrongEntry("differs from what the tokenizer gives now")
        return found

    found = entry.read(checked)
    if found is not None:
        return found
    with entry.writing() as draft:
        _write(draft, every())
    found = entry.read_back(lambda opened: _sequences(opened, num_rows))
    if not _agrees(found, encode):
        entry.remove()
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


def _sequences(opened: Opened, num_rows: int) -> Sequences:
    """What an entry holds; raises ValueError or the like where that is not so many rows."""
    num_ids, bounds_at = int(opened.facts["ids"]), _aligned(int(opened.facts["ids"]) * 4)
    ids_T = np.frombuffer(opened.data, "<i4", num_ids)
    bounds_N1 = np.frombuffer(opened.data[bounds_at:], "<i8")
    if opened.facts["rows"] != num_rows or len(bounds_N1) != num_rows + 1 or bounds_N1[-1] != num_ids:
        raise ValueError
    return Sequences(ids_T, bounds_N1)


def _aligned(num_bytes: int) -> int:
    return -(-num_bytes // ALIGNED) * ALIGNED


def _write(draft: Draft, rows: Iterable[list[int]]) -> None:
    lengths, waiting = [0], list[list[int]]()
    for ids in rows:
        lengths.append(len(ids))
        waiting.append(ids)
        if len(waiting) == STEP:
            draft.write(_joined(waiting))
            waiting.clear()
    draft.write(_joined(waiting))
    bounds_N1 = np.cumsum(np.array(lengths, "<i8"))
    draft.write(bytes(_aligned(draft.num_bytes) - draft.num_bytes))
    draft.write(bounds_N1.tobytes())
    draft.facts = {"rows": len(lengths) - 1, "ids": int(bounds_N1[-1])}


def _joined(rows: list[list[int]]) -> bytes:
    return np.array([token for ids in rows for token in ids], "<i4").tobytes()

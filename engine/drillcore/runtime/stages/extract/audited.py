"""What an audit looks at beside states: the places that they were taken at, and the coordinates of their rows.

Shape legend: C audited sentences, K layers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from drillcore.backends.alone import Alone
from drillcore.runtime.audit import column_rows
from drillcore.runtime.preflight import Input
from drillcore.runtime.stages.extract.pending import Target
from drillcore.texts.rows import row_ids
from drillcore.tokens.places import Places
from drillcore.tokens.sequences import Sequences

# Share of the audited means that one token must outweigh for a note.
OFTEN = 0.5
# Of so few tokens one always outweighs the others.
FEW = 4


def places_at(pair: Input, rows_C: NDArray[np.int64], sentences: Sequences) -> Places | None:
    """The places of some sentences, which were encoded again; None where they are the last tokens."""
    if pair.placed is None:
        return None
    found = pair.placed.places_of(rows_C)
    # Tokens that are others now are found by the coordinates.
    last_Q = np.repeat(sentences.lengths_N - 1, np.diff(found.bounds_N1))
    return replace(found, index_Q=np.minimum(found.index_Q, last_Q))


def dominated(alone: Alone, places: Places | None, layers: Sequence[int]) -> str:
    """A line for means that one token of their sentence outweighs; empty where that is so for few of them.

    places: of the means, of which those over few tokens say nothing.
    """
    if alone.peaks_CK3 is None or places is None:
        return ""
    alone = alone.take(np.flatnonzero(np.diff(places.bounds_N1) >= FEW))
    if alone.peaks_CK3 is None or not len(alone):
        return ""
    outweighs_CK = alone.peaks_CK3[:, :, 1] > 1
    slots = np.flatnonzero(outweighs_CK.mean(axis=0) >= OFTEN)
    if not len(slots):
        return ""
    slot = int(slots[np.median(alone.peaks_CK3[:, slots, 0], axis=0).argmax()])
    times, token = np.median(alone.peaks_CK3[:, slot, 0]), int(np.median(alone.peaks_CK3[:, slot, 2]))
    which = f"layer {layers[slots[0]]}" if len(slots) == 1 else f"{len(slots)} of {len(layers)} layers"
    return (
        f"at {which} one token's state outweighs all others of its sentence together (token {token} at layer "
        f"{layers[slot]}: {times:,.0f} times the middle one), and the mean is nearly that token's; "
        f"`mean: {{skip_first: {token + 1}}}` leaves it out"
    )


def wrong_columns(target: Target, rows_C: NDArray[np.int64], tokens: Sequences) -> list[str]:
    """Coordinates of audited rows that are not those of the dataset's file, each in a few words."""
    group, rows, placed = target.writer.group, rows_C.tolist(), target.pair.placed
    numbers = rows if placed is None else placed.sentences_of(rows_C)[0].tolist()
    texts = [target.pair.rows.texts(n, n + 1)[0] for n in numbers]
    want: dict[str, list[Any]] = {
        "text": texts,
        "row_id": row_ids(texts),
        "n_tokens": tokens.lengths_N.tolist(),
        "last_token_id": [int(ids[-1]) for ids in tokens],
    }
    if placed is not None:
        known = [placed.columns_of(row) for row in rows]
        want |= {name: [each[name] for each in known] for name in (known[0] if known else ())}
    wrong, unit = [], "row" if "row_size" in group else "sentence"
    for name, values in want.items():
        stored = column_rows(group, name, rows_C)
        differing = [row for row, old, new in zip(rows, stored, values, strict=True) if old != new]
        if differing:
            wrong.append(f"{name} of {unit} {differing[0]} is not that of the dataset's file")
    return wrong

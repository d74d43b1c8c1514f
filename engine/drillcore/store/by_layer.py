"""Writes a result one layer at a time, so that a large one is never in memory as a whole."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from drillcore.store.arrays import ARRAYS
from drillcore.store.attributes import CONTENTS
from drillcore.store.contents import array_digests
from drillcore.store.group import GroupWriter
from drillcore.store.layout import COLUMN_CHUNK, create_array
from drillcore.system.files import without_nan


def write_by_layer(
    writer: GroupWriter,
    name: str,
    shape: tuple[int, ...],
    layers: Iterable[tuple[int, NDArray[Any]]],
    made_from: str,
    facts: Callable[[], Mapping[str, Any]],
) -> None:
    """Write an array of `arrays.ARRAYS` whose first dimension is the layer, and record it once all layers are there.

    layers: position and values of each, in any order. facts: asked at the end; recorded beside the array. A run that is
    killed before leaves an array that no reader knows. Raises ValueError where values do not fit the table.
    """
    spec = ARRAYS[name]
    writer.drop_results([name])
    rows = spec.with_rows() if "rows" in writer.attributes.get("shape", {}) else spec
    array = create_array(writer.group, rows, shape, (1, *(min(n, COLUMN_CHUNK) for n in shape[1:])))
    for slot, values in layers:
        spec.check(values[np.newaxis])
        array[slot] = values
    before = writer.attributes
    recorded = {"made_from": made_from, **without_nan(facts())}
    contents = {**before[CONTENTS], name: array_digests(writer.group, array)}
    writer.describe(**{"results": {**before["results"], name: recorded}, CONTENTS: contents})

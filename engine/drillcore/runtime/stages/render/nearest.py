"""The nearest sentences that the report shows, read from the store layer by layer when the page is written."""

from __future__ import annotations

import json
from functools import partial

import numpy as np
import zarr
from numpy.typing import NDArray

from drillcore.job.stages import Render
from drillcore.pictures.data import Nearest
from drillcore.runtime.results import result_facts
from drillcore.runtime.stages.nearest import NEAREST
from drillcore.runtime.stages.render.layers import slots_of
from drillcore.store.layout import array_of, read_array


def nearest_of(group: zarr.Group, settings: Render, store: str) -> Nearest:
    """The nearest sentences of the layers of a group that are drawn. store: the store's name, for who reads it."""
    python = f"drillcore.open({json.dumps(store, ensure_ascii=False)})[{json.dumps(group.path)}].nearest"
    facts = result_facts(group, NEAREST)
    if facts is None:
        return Nearest(python, why="The nearest sentences are not in the store; `drillcore measure` finds them.")
    slots = slots_of(settings, [int(number) for number in read_array(group, "layer")])
    return Nearest(python, partial(_layer, group, slots), tuple(int(facts["tied"][slot]) for slot in slots))


def _layer(group: zarr.Group, slots: list[int], place: int) -> NDArray[np.int32]:
    return np.asarray(array_of(group, NEAREST)[slots[place]], np.int32)

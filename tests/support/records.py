"""Makes the records of a store fit what a test changed in it, as if a faulty drillcore had written that."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import zarr

from drillcore.store.attributes import CONTENTS, MEMBERS, SEAL, checked_attributes, put_attributes
from drillcore.store.contents import array_digests
from drillcore.store.layout import shape_of
from drillcore.store.places.location import Location
from drillcore.store.record import read_seal, record_key, write_record, write_seal
from drillcore.store.states import StatesReader
from drillcore.store.upgrade import record_of
from drillcore.store.writer import consolidate


def as_written(address: str | Path) -> None:
    """Record every array and attribute as it is now. The layer maxima become those of the states."""
    store = Location(str(address)).open()
    root = checked_attributes(store, "")
    for path in [*dict.fromkeys(p.split("/")[0] for p in root[MEMBERS]), *root[MEMBERS]]:
        group = zarr.open_group(store, path=path, mode="r+", use_consolidated=False)
        attributes = {k: v for k, v in dict(group.attrs).items() if k != SEAL}
        put_attributes(store, path, attributes)
        if "shape" in attributes:
            _record_shards(group, attributes)
        contents = {name: array_digests(group, group[name]) for name in attributes.get(CONTENTS, {})}
        put_attributes(store, path, {**attributes, CONTENTS: contents})
    finished = root.pop(CONTENTS, None) is not None
    put_attributes(store, "", root)
    if finished:
        consolidate(store, root)


def _record_shards(group: zarr.Group, attributes: dict) -> None:
    store, path, shape = group.store, group.path, shape_of(attributes)
    reader, states = StatesReader(group, recorded=False), group["hidden_states"]
    for shard in range(shape.num_shards):
        if read_seal(store, path, shard):
            first, stop = shape.bounds(shard)
            absmax_K = np.abs(np.asarray(states[first:stop])).max(axis=(0, 2)).astype(np.float32)
            group["layer_absmax"][shard] = absmax_K
            before = json.loads((store.root / record_key(path, shard)).read_bytes()[8:-4])
            record = record_of(reader, shape, shard, before["fingerprint"])
            write_record(store, path, shard, record)
            write_seal(store, path, shard, record.seal)

"""Writing a store: whole shards, each followed by its fingerprint; coordinates; results with what they came from.

A shard counts once its fingerprint is there, and that is written only after its data is on disk.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numcodecs.blosc
import numpy as np
import zarr
from numpy.typing import NDArray
from zarr.errors import GroupNotFoundError

from drillcore.errors import CommitError, StoreError
from drillcore.store.consolidate import consolidate, drop_consolidated
from drillcore.store.layout import (
    COLUMN_CHUNK,
    FORMAT,
    KIND,
    Shape,
    array_of,
    attributes_of,
    create_array,
    create_extract_arrays,
)
from drillcore.store.location import Location

# Two threads gave many different outputs for one input: bytes must repeat.
numcodecs.blosc.use_threads = False


class GroupWriter:
    """The group of one model and dataset."""

    def __init__(self, group: zarr.Group) -> None:
        self.group = group

    def ensure(self, shape: Shape, columns: Sequence[tuple[str, str]]) -> None:
        """Create the arrays, anew where their shape changed. `columns`: names and dtypes of the coordinates."""
        names = ["layer_name", *(name for name, _ in columns)]
        described: dict[str, Any] = {"shape": shape.as_attribute(), "columns": [list(c) for c in columns]}
        if {k: self.group.attrs.get(k) for k in described} == described:
            return
        self.group.attrs.put({})
        for name in list(self.group.array_keys()):
            del self.group[name]
        create_extract_arrays(self.group, shape)
        chunk = min(COLUMN_CHUNK, shape.num_sentences)
        for name, dtype in [("sentence", "int64"), *columns]:
            create_array(self.group, name, (shape.num_sentences,), dtype, ("sentence",), (chunk,))
        self.group.attrs.put({"position": "last", "coordinates": " ".join(names), "results": {}, **described})

    def fingerprints(self) -> list[str]:
        """Hex digest of each shard, empty where it is not committed (or its record is damaged)."""
        array = array_of(self.group, "shard_fingerprint")
        found = []
        for shard in range(array.shape[0]):
            try:
                raw = np.asarray(array[shard])
            except (ValueError, RuntimeError):
                raw = np.zeros(32, np.uint8)
            found.append(raw.tobytes().hex() if raw.any() else "")
        return found

    def commit(
        self, start: int, shard: int, states_SKH: NDArray[Any], absmax_K: NDArray[np.float32], fingerprint: str
    ) -> None:
        """Write shard number `shard`, whose first sentence is `start`, and then its fingerprint.

        Raises CommitError where the place refuses.
        """
        try:
            array_of(self.group, "hidden_states")[start : start + len(states_SKH)] = states_SKH
            array_of(self.group, "layer_absmax")[shard] = absmax_K
            array_of(self.group, "shard_fingerprint")[shard] = np.frombuffer(bytes.fromhex(fingerprint), np.uint8)
        except OSError as error:
            raise CommitError(
                f"shard {shard} (sentences {start} to {start + len(states_SKH) - 1}) of {self.group.path} "
                f"could not be written: {error}",
                hint="Make room or mend the place, then run the same command again: what is committed is kept.",
            ) from error

    def retract(self, shards: Sequence[int]) -> None:
        """Take back the fingerprints of shards that are about to be computed again."""
        for shard in shards:
            array_of(self.group, "shard_fingerprint")[shard] = np.zeros(32, np.uint8)

    def write_columns(self, start: int, columns: dict[str, Any]) -> None:
        """Write coordinates of the sentences from `start` on."""
        for name, values in columns.items():
            array = array_of(self.group, name)
            array[start : start + len(values)] = np.asarray(values, dtype=array.dtype)

    def write_result(self, name: str, values: NDArray[Any], dims: Sequence[str], made_from: str, **facts: Any) -> None:
        """Write a later stage's array and then record the hash of its inputs and parameters."""
        results = dict(attributes_of(self.group).get("results", {}))
        if results.pop(name, None) is not None:
            self.group.attrs["results"] = results
        dtype = "string" if values.dtype.kind in "UOT" else str(values.dtype)
        chunks = tuple(min(n, COLUMN_CHUNK) for n in values.shape)
        array = create_array(self.group, name, values.shape, dtype, dims, chunks)
        array[...] = values.astype(np.dtypes.StringDType()) if dtype == "string" else values
        self.group.attrs["results"] = {**results, name: {"made_from": made_from, **facts}}

    def result_made_from(self, name: str) -> str:
        """The recorded hash of a result, empty where there is none."""
        found = attributes_of(self.group).get("results", {})
        return str(found.get(name, {}).get("made_from", "")) if name in self.group else ""


class StoreWriter:
    """A store opened for a run of one job."""

    def __init__(self, location: Location, job_name: str, version: str) -> None:
        self.location = location
        store = location.open()
        try:
            self.root = zarr.open_group(store, mode="r+", zarr_format=3, use_consolidated=False)
        except (FileNotFoundError, GroupNotFoundError):
            self._refuse_strange_folder()
            self.root = zarr.create_group(
                store, attributes={"kind": KIND, "format": FORMAT, "job": job_name, "drillcore": version}
            )
        check_ours(dict(self.root.attrs), location.address, job_name)
        drop_consolidated(self.root)
        self._sweep()

    def _refuse_strange_folder(self) -> None:
        if not self.location.is_s3 and self.location.path.exists() and any(self.location.path.iterdir()):
            raise StoreError(
                f"store {self.location.address} exists and is not a drillcore store",
                hint="Name a folder that is not there yet.",
            )

    def _sweep(self) -> None:
        """Remove what a killed run left half-written."""
        if not self.location.is_s3:
            for partial in Path(self.location.path).rglob("*.partial"):
                partial.unlink(missing_ok=True)

    def model(self, name: str) -> zarr.Group:
        """The group of a model, whose attributes hold its numerics."""
        return self.root.require_group(name)

    def dataset(self, model: str, dataset: str) -> GroupWriter:
        """The group of a model and dataset."""
        return GroupWriter(self.root.require_group(f"{model}/{dataset}"))

    def finish(self) -> None:
        """Write consolidated metadata: the run is complete."""
        consolidate(self.root)


def check_ours(attributes: dict[str, Any], address: str, job_name: str | None) -> None:
    """Raise StoreError unless the root's attributes are those of a store of ours, of this format and job."""
    if attributes.get("kind") != KIND:
        raise StoreError(
            f"store {address} is not a drillcore store", hint="Name a folder that is not there yet, or another store."
        )
    if attributes.get("format") != FORMAT:
        raise StoreError(
            f"store {address} has format {attributes.get('format')}, this version reads format {FORMAT}",
            hint="Use the version that wrote it, or give the job another store.",
        )
    if job_name is not None and attributes.get("job") != job_name:
        raise StoreError(
            f"store {address} belongs to the job {attributes.get('job')}, not {job_name}",
            hint="Give this job another store, or its name back.",
        )

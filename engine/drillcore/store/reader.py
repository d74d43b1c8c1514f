"""Reads a store for the later stages: one layer, one column or one small array at a time."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray
from zarr.errors import GroupNotFoundError

from drillcore.errors import DamageError, JobError, StoreError
from drillcore.job.file import load_job
from drillcore.store.attributes import MEND, UNREADABLE, attributes_of
from drillcore.store.checked import CheckedStore
from drillcore.store.layout import array_of, check_ours, read_array
from drillcore.store.places.location import Location
from drillcore.store.states import StatesReader

# How a root is opened: as Zarr version 3, and never by its consolidated metadata.
ROOT: Any = {"zarr_format": 3, "use_consolidated": False}


def open_root(location: Location, *, checked: bool = True) -> zarr.Group:
    """The root group, read-only.

    checked: whether every small file is compared with its record when it is read; what looks for damage wants it as it
    is. Raises StoreError where there is no drillcore store, DamageError for a damaged one.
    """
    if not location.is_remote:
        _refuse_files(location.path)
    location.check()
    if not location.is_remote and not location.path.is_dir():
        raise StoreError(f"there is no store at {location.address}", hint="Run the job first, or check the path.")
    store = location.open(read_only=True)
    try:
        root = zarr.open_group(CheckedStore(store) if checked else store, mode="r", **ROOT)
        check_ours(dict(root.attrs), location.address, None)
    except (FileNotFoundError, GroupNotFoundError):
        raise StoreError(f"store {location.address} is not a drillcore store", hint="Check the path.") from None
    except UNREADABLE as error:
        raise DamageError(f"{location.address}/zarr.json is damaged: {error}", hint=MEND) from None
    attributes_of(root)
    return root


def _refuse_files(path: Path) -> None:
    """Raise StoreError where a job file, or another file, is named in place of a store."""
    try:
        if not path.is_file():
            return
    except (OSError, ValueError):
        return
    if path.suffix.lower() not in (".yaml", ".yml"):
        raise StoreError(f"{path} is a file, not a store", hint="A store is a folder, such as runs/job.zarr.")
    try:
        store = load_job(path).store
    except JobError:
        raise StoreError(
            f"{path} is a file, not a store, and no job file that can be read",
            hint=f"Name the store itself; `drillcore plan {path}` says what is wrong with the file.",
        ) from None
    shown = store if store.startswith("s3://") else os.path.relpath(store)
    is_there = store.startswith("s3://") or (Path(store) / "zarr.json").exists()
    raise StoreError(
        f"{path} is a job file, not a store; its store is {shown}" + ("" if is_there else ", which does not exist yet"),
        hint=f"Name {shown} instead." if is_there else f"Run `drillcore run {path}` first, and then name {shown}.",
    )


def open_dataset(address: str, path: str) -> zarr.Group:
    """The group of one model and dataset, read-only and checked, without looking at the rest of the store.

    path: `model/dataset`. Raises zarr's GroupNotFoundError where there is none, DamageError where it is damaged.
    """
    store = CheckedStore(Location(address).open(read_only=True))
    return zarr.open_group(store, path=path, mode="r", use_consolidated=False)


def read_layer(group: zarr.Group, slot: int) -> NDArray[np.float32]:
    """States [N, H] of the layer at position `slot`, as float32; raises DamageError where bytes are damaged."""
    reader = StatesReader(group)
    states_NQH = reader.read(np.arange(reader.shape.num_sentences), np.array([slot]))
    return np.asarray(states_NQH[:, 0], dtype=np.float32)


def column(group: zarr.Group, name: str) -> NDArray[Any] | None:
    """A coordinate of all sentences, or rows, None where the group does not have it; raises DamageError for damage."""
    if name not in group:
        return None
    return Coordinate(group, name)[:]


def num_rows(group: zarr.Group) -> int:
    """Sentences of a group, or rows where a sentence has any number of them."""
    return StatesReader(group).shape.num_sentences


class Coordinate:
    """A coordinate by row: one of sentences is repeated for each row of its sentence, in groups that have several.

    Raises DamageError where it is damaged.
    """

    def __init__(self, group: zarr.Group, name: str) -> None:
        self._array, self._group = array_of(group, name), group
        dims: Any = self._array.metadata.dimension_names  # type: ignore[union-attr]
        self._sentence_R = read_array(group, "sentence") if tuple(dims or ()) == ("instance",) else None

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of the values."""
        return np.dtype(self._array.dtype)

    def __len__(self) -> int:
        return int(self._array.shape[0]) if self._sentence_R is None else len(self._sentence_R)

    def __getitem__(self, rows: slice | NDArray[np.int64]) -> NDArray[Any]:
        """Values of a range of rows, or of some of them; strings as objects."""
        index = rows if self._sentence_R is None else self._sentence_R[rows]
        try:
            values = np.asarray(self._read(index))
        except (ValueError, RuntimeError, TypeError) as error:
            raise DamageError(f"{self._group.path}: {self._array.name} cannot be read: {error}", hint=MEND) from None
        return values.astype(object) if values.dtype.kind == "T" else values

    def _read(self, index: slice | NDArray[np.int64]) -> Any:
        if isinstance(index, slice):
            return self._array[index]
        if self._sentence_R is None or not len(index):
            return self._array.get_orthogonal_selection((index,))
        # Rows lie in the sentences' order: those of a range are a range of sentences.
        first = int(index.min())
        return np.asarray(self._array[first : int(index.max()) + 1])[index - first]

"""The colours of a grid's points, from the labels or values of a coordinate of the store.

Shape legend: N sentences of a group.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray

from drillcore.errors import RunError
from drillcore.pictures.colors import place_labels
from drillcore.runtime.settings import OF_PLACES
from drillcore.store.attributes import attributes_of
from drillcore.store.layout import COLUMN_CHUNK
from drillcore.store.reader import Coordinate, num_rows


@dataclass(frozen=True)
class Coloring:
    """Colours of the points of several groups, with one legend.

    values: for each group the `Panel.values_N`. unlabelled: for each group the number of sentences without label or
    value. The other fields are those of `Grid`.

    >>> Coloring((np.array([0, 1], np.int32),), ("Montreal", "Toronto"), value_name="label").words
    'colour: label'
    """

    values: tuple[NDArray[Any], ...]
    categories: tuple[str, ...] = ()
    value_range: tuple[float, float] | None = None
    value_name: str = ""
    unlabelled: tuple[int, ...] = ()

    @property
    def words(self) -> str:
        """For a subtitle."""
        if self.value_range is not None:
            return f"colour: {self.value_name}"
        return f"colour: {self.value_name}" if self.categories else f"no {self.value_name}, one colour for all"


def coloring(groups: Sequence[zarr.Group], name: str, shown: str = "") -> Coloring:
    """The colours by a coordinate: numbers along a colour bar, everything else (and `label`, if not float) as labels.

    shown: what the coordinate is called in pictures; "" for its name. Where no group has labels, all points have one
    colour. Raises RunError for any other coordinate that no group has.
    """
    arrays = [Coordinate(g, name) if name in _columns(g) else None for g in groups]
    if all(a is None for a in arrays) and name not in ("label", *OF_PLACES):
        known = sorted({n for g in groups for n in _columns(g)} - {"text", "row_id"})
        raise RunError(
            f"render.color: {groups[0].path} has no coordinate {name}",
            hint=f"One of {', '.join(known)}; further fields of the texts come in by `keep`.",
        )
    kinds = [a.dtype.kind for a in arrays if a is not None]
    if kinds and (all(k == "f" for k in kinds) or (name != "label" and all(k in "if" for k in kinds))):
        return _values(groups, arrays, shown or name)
    return _labels(groups, arrays, shown or name)


def _columns(group: zarr.Group) -> list[str]:
    return [name for name, _ in attributes_of(group).get("columns", [])]


def _size(group: zarr.Group) -> int:
    return num_rows(group)


def _values(groups: Sequence[zarr.Group], arrays: Sequence[Coordinate | None], name: str) -> Coloring:
    values = [
        np.full(_size(g), np.nan, np.float32) if a is None else a[:].astype(np.float32)
        for g, a in zip(groups, arrays, strict=True)
    ]
    known = [v[np.isfinite(v)] for v in values]
    if not any(map(len, known)):
        return Coloring(tuple(np.zeros(_size(g), np.int32) for g in groups), value_name=name)
    low, high = min(float(v.min()) for v in known if len(v)), max(float(v.max()) for v in known if len(v))
    missing = tuple(len(v) - len(k) for k, v in zip(known, values, strict=True))
    return Coloring(tuple(values), value_range=(low, high), value_name=name, unlabelled=missing)


def _labels(groups: Sequence[zarr.Group], arrays: Sequence[Coordinate | None], name: str) -> Coloring:
    number_of: dict[str, int] = {}
    codes = [_numbered(g, a, number_of) for g, a in zip(groups, arrays, strict=True)]
    counts = sum(np.bincount(c, minlength=len(number_of)) for c in codes)
    categories, places = place_labels(list(number_of), np.asarray(counts))
    if not categories:
        return Coloring(tuple(np.zeros(len(c), np.int32) for c in codes), value_name=name)
    values = tuple(places[c] for c in codes)
    return Coloring(values, categories, value_name=name, unlabelled=tuple(int((v < 0).sum()) for v in values))


def _numbered(group: zarr.Group, array: Coordinate | None, number_of: dict[str, int]) -> NDArray[np.int32]:
    """A number for each sentence's label; adds new labels to `number_of`. Labels are read a piece at a time."""
    codes_N = np.empty(_size(group), np.int32)
    if array is None:
        codes_N[:] = number_of.setdefault("", len(number_of))
        return codes_N
    for start, labels in _pieces(array):
        names, index = np.unique(labels, return_inverse=True)
        # A string that reads `nan` is a label; a number that is not one is none.
        words = ["" if isinstance(n, float | np.floating) and np.isnan(n) else str(n) for n in names.tolist()]
        numbers = [number_of.setdefault(word, len(number_of)) for word in words]
        codes_N[start : start + len(labels)] = np.array(numbers, np.int32)[index]
    return codes_N


def _pieces(array: Coordinate) -> Iterator[tuple[int, NDArray[Any]]]:
    for start in range(0, len(array), COLUMN_CHUNK):
        yield start, array[start : start + COLUMN_CHUNK]

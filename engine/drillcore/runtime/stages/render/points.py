"""Points and texts of a group of the store, read when grids and report draw them.

Shape legend: N sentences, L layers, 2 axes.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cached_property
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray

from drillcore.job.positions import in_words
from drillcore.runtime.results import read_projection_facts
from drillcore.store.attributes import attributes_of
from drillcore.store.layout import COLUMN_CHUNK, array_of, read_array
from drillcore.store.reader import Coordinate

# A projection of at most this size is read once and stays in memory; a larger one is read layer by layer.
MEMORY_BYTES = 512 * 2**20
# Around the characters of a token in a text.
MARKS = ("⟦", "⟧")


class ProjectedPoints:
    """The projected points of a group."""

    def __init__(self, group: zarr.Group, method: str) -> None:
        self.group, self.method = group, method
        self.numbers = [int(k) for k in read_array(group, "layer")]
        self.names = [str(name).replace("_", " ") for name in read_array(group, "layer_name")]
        self.degenerate_L = read_array(group, "degenerate").astype(bool)
        self.num_sentences = int(array_of(group, method).shape[1])
        self.facts = read_projection_facts(group, method)

    @cached_property
    def _points_LN2(self) -> NDArray[np.float32] | None:
        return self._read(...) if 8 * self.num_sentences * len(self.names) <= MEMORY_BYTES else None

    def _read(self, part: Any) -> NDArray[np.float32]:
        return np.asarray(array_of(self.group, self.method)[part], np.float32)

    def layer(self, slot: int) -> NDArray[np.float32]:
        """Points [N, 2] of the layer at position `slot`."""
        return self._read(slot) if self._points_LN2 is None else self._points_LN2[slot]


class Texts(Sequence[str]):
    """A column of strings, read a chunk at a time; fast for ascending indexes.

    pattern: format of a text that is not empty.
    """

    def __init__(self, group: zarr.Group, name: str, pattern: str = "{}") -> None:
        self._array, self._pattern = Coordinate(group, name), pattern
        self._chunk, self._texts = -1, np.empty(0, object)

    def __len__(self) -> int:
        return len(self._array)

    def __getitem__(self, index: Any) -> Any:
        sentence = range(len(self))[index]
        chunk, place = divmod(sentence, COLUMN_CHUNK)
        if chunk != self._chunk:
            self._texts = self._array[chunk * COLUMN_CHUNK : (chunk + 1) * COLUMN_CHUNK]
            self._chunk = chunk
        text = str(self._texts[place])
        return self._pattern.format(text) if text else ""


def states_in_words(groups: Iterable[zarr.Group]) -> str:
    """Which tokens the states of some groups are of."""
    return in_words(attributes_of(group).get("position", "last") for group in groups)


class MarkedTexts(Sequence[str]):
    """Texts with the characters marked whose tokens' states are drawn; not where those are outside the text."""

    def __init__(self, texts: Sequence[str], start_N: NDArray[Any], stop_N: NDArray[Any]) -> None:
        self._texts, self._start_N, self._stop_N = texts, start_N, stop_N

    def __len__(self) -> int:
        return len(self._texts)

    def __getitem__(self, index: Any) -> Any:
        row = range(len(self))[index]
        text, start, stop = self._texts[row], int(self._start_N[row]), int(self._stop_N[row])
        return text if start < 0 else f"{text[:start]}{MARKS[0]}{text[start:stop]}{MARKS[1]}{text[stop:]}"


def texts_of(groups: Sequence[zarr.Group]) -> Sequence[str]:
    """What is shown of each row of some groups of the same rows: its text, or conversation, with the token marked.

    Where the groups are of models whose tokens differ there, nothing is marked.
    """
    first = groups[0]
    texts = Texts(first, "rendered" if "rendered" in first else "text")
    if "char_start" not in first:
        return texts
    marks = [tuple(Coordinate(group, name)[:] for name in ("char_start", "char_end")) for group in groups]
    if not all(np.array_equal(own, other) for each in marks[1:] for own, other in zip(each, marks[0], strict=True)):
        return texts
    return MarkedTexts(texts, *marks[0])

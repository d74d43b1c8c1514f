"""One thing that is wrong with a store, and the note of what the next run computes again."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

NOTE = "damage.json"


@dataclass(frozen=True)
class Finding:
    """What is wrong, and where.

    group: path in the store. array: its name, or zarr.json. shard: its number. sentences: first and last. layer: number
    of the layer contract. mend: what the next run discards and computes again: `shard`, `columns` or `result`; `rows`
    for a shard that holds the states of other sentences, which makes all results stale; empty where every run repairs
    it by itself.
    """

    group: str
    array: str
    what: str
    shard: int | None = None
    sentences: tuple[int, int] | None = None
    layer: int | None = None
    mend: str = ""

    def __str__(self) -> str:
        """One line: group, array, shard, sentences, layer, what."""
        place = []
        if self.shard is not None:
            place.append(f"shard {self.shard}")
        if self.sentences is not None:
            place.append("sentences {} to {}".format(*self.sentences))
        if self.layer is not None:
            place.append(f"layer {self.layer}")
        return ": ".join([self.group or "store", self.array, *([", ".join(place)] if place else []), self.what])

    def as_note(self) -> dict[str, Any]:
        """JSON-ready."""
        return asdict(self)

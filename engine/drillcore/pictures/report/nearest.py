"""Which datasets of a report hold the nearest sentences of every sentence, and what the page is told of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from drillcore.pictures.data import PanelRow, ReportDataset
from drillcore.pictures.report.encode import index_bytes, packed_indexes

# Of all datasets together, before they are deflated and written in base64.
MAX_NEAREST_BYTES = 6_000_000
# Nearest sentences of a sentence.
NUM_NEAREST = 10


def nearest_bytes(dataset: ReportDataset) -> int:
    """Bytes of a dataset's nearest sentences in the page; 0 where none are known."""
    layers = sum(len(row.panels) for row in dataset.grid.rows if row.nearest is not None and row.nearest.read)
    return layers * len(dataset.texts) * NUM_NEAREST * index_bytes(len(dataset.texts))


def why_not(datasets: Sequence[ReportDataset], is_sampled: Sequence[bool], room: int) -> list[str]:
    """Why each dataset's nearest sentences are not in the page; empty where they are, or where there are none.

    The smaller datasets have them first. One that recolours another shares what that one has.
    """
    why = [""] * len(datasets)
    sizes = {i: nearest_bytes(each) for i, each in enumerate(datasets) if not each.recolours}
    for i in sorted(sizes, key=lambda i: (sizes[i], i)):
        if sizes[i] and is_sampled[i]:
            why[i] = "the page holds a sample of the sentences"
        elif sizes[i] > room:
            why[i] = f"they would take {sizes[i] / 1e6:,.1f} MB"
        else:
            room -= sizes[i]
    for i, dataset in enumerate(datasets):
        if dataset.recolours:
            why[i] = why[i - 1]
    return why


def told(
    row: PanelRow, count: int, panels: Sequence[Mapping[str, Any] | None], why: str
) -> tuple[dict[str, Any], bytes | None] | None:
    """What the page is told of a row's nearest sentences, and these as a blob; None where there is nothing to tell.

    count: sentences. panels: what the page is told of the panels; the blob holds those that are drawn, one after the
    other. why: why the page does not hold them. Raises ValueError where they are not those of so many sentences.
    """
    nearest = row.nearest
    if nearest is None:
        return None
    about: dict[str, Any] = {"python": nearest.python, "why": nearest.why}
    if nearest.read is None:
        return about, None
    if why:
        return {**about, "why": f"The nearest sentences are not in this page: {why}."}, None
    drawn = [p for p, panel in enumerate(panels) if panel is not None and not panel.get("degenerate")]
    found = [nearest.read(p) for p in drawn]
    if any(each.shape != (count, NUM_NEAREST) for each in found):
        raise ValueError(f"{row.title}: nearest sentences must have shape [{count}, {NUM_NEAREST}] at every layer")
    tied = [nearest.tied[p] for p in drawn] if nearest.tied else [0] * len(drawn)
    return {**about, "most": NUM_NEAREST, "tied": tied}, packed_indexes(found, count)

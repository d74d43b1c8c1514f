"""A group that grows, and whose growth is cut short before the inputs change back, records all that it holds."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest

from drillcore.store import group as group_module
from drillcore.store.attributes import CONTENTS, attributes_of
from drillcore.store.layout import choose_shape
from drillcore.store.places.location import Location
from drillcore.store.writer import StoreWriter

COLUMNS = [("text", "string"), ("n_tokens", "int32")]


class Killed(Exception):
    """The run ends here."""


def shape_of(rows):
    return choose_shape(rows, [0, 1], ["embed", "block_1"], 8, "float32", 4)


def fill(writer, rows, results):
    """What a run does to a group: fit it, write its coordinates and shards, and results where they are missing."""
    shape = shape_of(rows)
    writer.ensure(shape, COLUMNS)
    columns = {"sentence": np.arange(rows), "text": [f"text {k}" for k in range(rows)], "n_tokens": np.arange(rows)}
    writer.write_columns(f"{rows} rows", iter([(0, columns)]))
    prints = [f"{rows if shard == shape.num_shards - 1 else 0:063d}{shard}" for shard in range(shape.num_shards)]
    writer.plan_fingerprints(prints)
    for shard, stored in enumerate(writer.committed()):
        if stored != prints[shard]:
            first, stop = shape.bounds(shard)
            states_SKH = np.random.default_rng(shard).normal(size=(stop - first, 2, 8)).astype(np.float32)
            writer.commit(first, shard, states_SKH, np.abs(states_SKH).max(axis=(0, 2)), prints[shard])
    for name in results:
        if not writer.result_made_from(name):
            writer.write_results(name, {name: np.zeros((2, rows, 2), np.float32)})


def dying(monkeypatch, moment):
    """Ends the run before the file operation of that number."""
    operations = itertools.count(1)

    def counted(real):
        def operation(*args):
            if next(operations) == moment:
                raise Killed
            real(*args)

        return operation

    for name in ("write_file", "remove_folder", "put_attributes"):
        monkeypatch.setattr(group_module, name, counted(getattr(group_module, name)))


@pytest.mark.parametrize("results_after", [("umap", "pca"), ("umap",)])
def test_growth_that_is_cut_short_leaves_nothing_unrecorded(tmp_path: Path, monkeypatch, results_after):
    for moment in itertools.count(1):
        store = StoreWriter(Location(str(tmp_path / f"{moment}.zarr")), "job", "0")
        store.set_groups(["m/d"])
        writer = store.dataset("m", "d")
        fill(writer, 10, ("umap", "pca"))
        with monkeypatch.context() as patch:
            dying(patch, moment)
            try:
                writer.ensure(shape_of(12), COLUMNS)
                finished = True
            except Killed:
                finished = False
        # The next run is of the former rows again, and may ask for fewer results.
        writer = store.dataset("m", "d")
        fill(writer, 10, results_after)
        recorded = attributes_of(writer.group)[CONTENTS]
        there = {path.name for path in (tmp_path / f"{moment}.zarr/m/d").iterdir() if path.is_dir()}
        assert there == set(recorded) and all(recorded.values()), moment
        if finished:
            assert moment > 8
            return

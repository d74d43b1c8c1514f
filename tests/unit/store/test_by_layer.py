"""A result that is written layer by layer counts once all layers are there."""

from __future__ import annotations

import numpy as np
import pytest
from zarr.storage import LocalStore

from drillcore.store.attributes import make_group
from drillcore.store.by_layer import write_by_layer
from drillcore.store.group import GroupWriter
from drillcore.store.layout import choose_shape

SHAPE, COLUMNS = choose_shape(4, (0, 1), ("embed", "block_1"), 8, "float32"), [("text", "string")]


@pytest.fixture
def writer(tmp_path):
    writer = GroupWriter(make_group(LocalStore(tmp_path / "s.zarr"), "m/d"))
    writer.ensure(SHAPE, COLUMNS)
    return writer


def write(writer, layers, made_from="first"):
    write_by_layer(writer, "nearest", (2, 4, 10), layers, made_from, lambda: {"tied": [0, 4]})


def test_layers_come_in_any_order_and_are_recorded_with_their_facts(writer, seed):
    values = np.random.default_rng(seed).integers(-1, 4, (2, 4, 10)).astype(np.int32)
    write(writer, [(1, values[1]), (0, values[0])])
    assert (np.asarray(writer.group["nearest"][...]) == values).all()
    assert writer.attributes["results"]["nearest"] == {"made_from": "first", "tied": [0, 4]}
    assert set(writer.attributes["contents"]["nearest"]) == {"zarr.json", "c/0/0/0", "c/1/0/0"}


def test_a_kill_between_layers_leaves_none_and_the_next_run_sweeps(writer):
    write(writer, [(k, np.zeros((4, 10), np.int32)) for k in (0, 1)])

    def dying():
        yield 0, np.ones((4, 10), np.int32)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write(writer, dying(), "second")
    assert writer.result_made_from("nearest") == "" and "nearest" not in writer.attributes["contents"]
    writer.ensure(SHAPE, COLUMNS)
    assert "nearest" not in writer.group


def test_values_that_the_table_does_not_allow_are_refused(writer):
    with pytest.raises(ValueError, match="int32"):
        write(writer, [(0, np.zeros((4, 10), np.int64))])
    assert writer.result_made_from("nearest") == ""

"""The table of arrays: what a user's column may not be named, and values that do not fit."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from zarr.storage import LocalStore

from drillcore.errors import TextError
from drillcore.job.inputs import Dataset
from drillcore.store import layout
from drillcore.store.arrays import ARRAYS, HEADLINES, PROJECTIONS, RESERVED, check_kept_names
from drillcore.store.attributes import make_group
from drillcore.store.checks.groups import check_group
from drillcore.store.group import GroupWriter
from drillcore.store.layout import choose_shape
from drillcore.store.places.files import read_file, write_file
from torture.damage import SHAPES

ODD = ["a/b", "", "..", "__x", " a", "a\nb", "x" * 201]


def dataset(*keep: str) -> Dataset:
    return Dataset(name="d", path="d.jsonl", keep=keep)


@pytest.mark.parametrize("name", [*sorted(RESERVED), *ODD])
def test_a_kept_column_may_not_take_a_name_of_the_store(name):
    with pytest.raises(TextError, match="dataset d: keep: "):
        check_kept_names(dataset(name))


def test_other_names_are_taken():
    check_kept_names(dataset("source", "Label", "id", "größe", "métrica"))


def test_a_column_named_twice_is_refused():
    with pytest.raises(TextError, match="`a` is named twice"):
        check_kept_names(dataset("a", "b", "a"))


def test_names_of_arrays_and_of_dimensions_are_reserved():
    assert {"trustworthiness", "shard_planned", "prediction", "candidate_logprob"} <= RESERVED
    assert {"hidden", "shard", "digest", "layer_2"} <= RESERVED
    assert set(HEADLINES) <= set(ARRAYS) and set(PROJECTIONS) == {"umap", "pca"}


@pytest.fixture
def writer(tmp_path):
    """A group with a user's column `source`."""
    group = make_group(LocalStore(tmp_path / "s.zarr"), "m/d")
    writer = GroupWriter(group)
    writer.ensure(choose_shape(4, (0, 1), ("embed", "block_1"), 8, "float32"), [("text", "string"), ("umap", "string")])
    return writer


@pytest.mark.parametrize("values", [np.zeros((2, 2), np.float64), np.zeros((2, 2, 1), np.float32), np.array(["x"])])
def test_a_result_that_does_not_fit_the_table_is_refused(writer, values):
    with pytest.raises(ValueError, match="layer_cka has 2 dimensions"):
        writer.write_results("inputs", {"layer_cka": values})
    assert "layer_cka" not in writer.group and writer.attributes["results"] == {}


def test_a_result_never_overwrites_a_column(writer):
    before = writer.group["umap"][:].tolist()
    with pytest.raises(ValueError, match="umap is a column"):
        writer.write_results("inputs", {"umap": np.zeros((2, 4, 2), np.float32)})
    assert writer.group["umap"][:].tolist() == before


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("name", ["hidden_states", "shard_record", "shard_fingerprint", "text", "layer"])
def test_metadata_of_any_shape_are_written_again(writer, name, shape):
    shape_of_group, columns = layout.shape_of(writer.attributes), writer.attributes["columns"]
    path = f"m/d/{name}/zarr.json"
    before = read_file(writer.group.store, path)
    write_file(writer.group.store, path, SHAPES[shape])
    writer.ensure(shape_of_group, [tuple(column) for column in columns])
    assert json.loads(read_file(writer.group.store, path)) == json.loads(before)


def test_verify_finds_a_result_of_another_form(writer):
    writer.write_results("inputs", {"degenerate": np.zeros(2, bool)})
    assert not list(check_group(writer.group.store, "m/d", list))
    writer.group.create_array("degenerate", shape=(2,), dtype="bool", dimension_names=["sentence"], overwrite=True)[
        :
    ] = 1
    findings = list(check_group(writer.group.store, "m/d", list))
    assert findings and {(f.array, f.mend) for f in findings} == {("degenerate", "result")}


def test_rows_of_blocks_lie_in_shards_of_their_own(seed):
    draw = np.random.default_rng(seed)
    sizes = draw.integers(0, 40, 9)
    sizes[draw.integers(0, 9)] = 0
    sizes[0] += 1
    rows = layout.Rows(9 * 7, 7, tuple(int(n) for n in sizes))
    shape = layout.Shape(int(sizes.sum()), (0,), ("embed",), 8, "float32", 16, 4, rows)
    place, want, first_row, shard = [], 0, 0, 0
    for block, size in enumerate(sizes.tolist()):
        assert shape.block_bounds(block) == (first_row, first_row + size)
        place += [want + n for n in range(size)]
        for start in range(0, size, 16):
            assert shape.bounds(shard) == (first_row + start, first_row + min(start + 16, size))
            assert shape.block_of_shard(shard) == block
            shard += 1
        want, first_row = want + -(-size // 16) * 16, first_row + size
    every = np.arange(len(place))
    assert shape.places_of(every).tolist() == place and shape.num_shards == shard
    assert shape.num_places == place[-1] + 1
    described = json.loads(json.dumps({"shape": shape.as_attribute()}))
    assert layout.shape_of(described) == shape and described["shape"] == shape.as_attribute()


@pytest.mark.parametrize(
    ("before", "after", "may"),
    [
        ((10, (4, 3)), (10, (4, 3)), True),
        ((10, (4, 3)), (14, (4, 5)), True),
        ((10, (4, 3)), (20, (4, 5, 2)), True),
        ((10, (4, 3)), (14, (5, 3)), False),
        ((10, (4, 3)), (10, (4, 4)), False),
        ((10, (4, 3)), (7, (4,)), False),
    ],
)
def test_which_rows_may_follow(before, after, may):
    shapes = [
        layout.Shape(sum(sizes), (0,), ("embed",), 8, "float32", 4, 2, layout.Rows(count, 7, sizes))
        for count, sizes in (before, after)
    ]
    assert shapes[0].may_grow_to(shapes[1]) is may
    assert not shapes[0].may_grow_to(replace(shapes[1], layers=(1,)))
    assert not shapes[0].may_grow_to(replace(shapes[1], rows=None))

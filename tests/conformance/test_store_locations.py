"""What every place of a store promises, here and in a bucket of a real S3 server; and what object storage adds."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import numpy as np
import obstore
import pytest
import xarray as xr

from drillcore.errors import DamageError, StoreError
from drillcore.store.attributes import put_attributes
from drillcore.store.checks.store import verify
from drillcore.store.layout import choose_shape
from drillcore.store.places.files import list_names, read_file, write_file
from drillcore.store.places.location import Location
from drillcore.store.places.lock import refuse_if_held, store_lock
from drillcore.store.places.s3 import open_bucket
from drillcore.store.reader import open_root, read_layer
from drillcore.store.tree import open_tree
from drillcore.store.writer import StoreWriter
from support.s3_server import BUCKET, aws_environment

pytest_plugins = ["support.run_fixtures", "support.s3_fixtures"]

SHAPE = choose_shape(40, [0, 2, 5], ["embed", "block_2", "final_norm"], 8, "float32", 16)
COLUMNS = [("text", "string"), ("weight", "float64")]


@pytest.fixture(params=["folder", "s3"])
def address(request, tmp_path):
    """A place where there is nothing yet."""
    if request.param == "folder":
        return str(tmp_path / "place" / "some.zarr")
    request.getfixturevalue("s3")
    return f"s3://{BUCKET}/{tmp_path.name}/some.zarr"


def states(seed):
    return np.random.default_rng(seed).normal(size=(40, 3, 8)).astype(np.float32)


def fill(address, values, *, shards=(0, 1, 2), job="job"):
    """A store with one group, of which some shards are committed."""
    store = StoreWriter(Location(address), job, "0")
    writer = store.dataset("m", "d")
    writer.ensure(SHAPE, COLUMNS)
    writer.plan_fingerprints([f"{i + 1:02x}" * 32 for i in range(3)])
    texts = [f"text {i} ✓" for i in range(40)]
    pieces = {"sentence": np.arange(40), "text": texts, "weight": np.arange(40) / 2}
    writer.write_columns("made", iter([(0, pieces)]))
    for shard in shards:
        start, stop = SHAPE.bounds(shard)
        part = values[start:stop]
        writer.commit(start, shard, part, np.abs(part).max(axis=(0, 2)), f"{shard + 1:02x}" * 32)
    if len(shards) == SHAPE.num_shards:
        store.finish()
    return writer


def test_what_is_committed_is_read_back(address, seed):
    values = states(seed)
    fill(address, values)
    tree = open_tree(address)
    group = tree["m/d"]
    np.testing.assert_array_equal(group.hidden_states.values, values)
    np.testing.assert_array_equal(group.hidden_states.sel(layer=2).values, values[:, 1])
    np.testing.assert_array_equal(group.hidden_states[[30, 3, 3], -1, 2:5].values, values[[30, 3, 3], -1, 2:5])
    np.testing.assert_array_equal(group.hidden_states[::-3, 1].values, values[::-3, 1])
    assert group.hidden_states[17, 2, 3].values == values[17, 2, 3]
    assert group.text.values.tolist()[:2] == ["text 0 ✓", "text 1 ✓"] and group.layer.values.tolist() == [0, 2, 5]
    root = open_root(Location(address))
    np.testing.assert_array_equal(read_layer(root["m/d"], 2), values[:, 2])


def test_others_read_the_same(address, seed):
    """zarr-python and xarray by themselves, with consolidated metadata and without a warning."""
    values = states(seed)
    fill(address, values)
    for consolidated in (True, False):
        with xr.open_zarr(Location(address).open(read_only=True), group="m/d", consolidated=consolidated) as group:
            np.testing.assert_array_equal(group.hidden_states.values, values)


def test_states_that_something_else_wrote_are_refused(address, seed):
    import zarr

    values = states(seed)
    writer = fill(address, np.zeros_like(values))
    zarr.open_group(Location(address).open(), path="m/d", mode="r+")["hidden_states"][:20] = values[:20]
    with pytest.raises(DamageError, match="not the one that its record names"):
        read_layer(writer.group, 1)
    assert writer.committed() == ["", "", "03" * 32]


def test_what_is_not_committed_is_nan(address, seed):
    values = states(seed)
    writer = fill(address, values, shards=(1,))
    assert writer.fingerprints() == ["", "02" * 32, ""] == writer.committed()
    found = open_tree(address)["m/d"].hidden_states.values
    assert np.isnan(found[:16]).all() and np.isnan(found[32:]).all()
    np.testing.assert_array_equal(found[16:32], values[16:32])


def test_a_retracted_shard_is_not_committed(address, seed):
    writer = fill(address, states(seed))
    writer.retract([1])
    assert [bool(p) for p in writer.fingerprints()] == [True, False, True]


def test_a_shard_that_is_missing_or_cut_short_is_not_committed(address, seed):
    writer = fill(address, states(seed))
    store = Location(address).open()
    raw = read_file(store, "m/d/hidden_states/c/0/0/0")
    write_file(store, "m/d/hidden_states/c/0/0/0", raw[:-9])
    write_file(store, "m/d/hidden_states/c/1/0/0", b"")
    assert [bool(p) for p in writer.committed()] == [False, False, True]
    assert all(writer.fingerprints())


def test_the_same_bytes_everywhere(s3, tmp_path, seed):
    places = [str(tmp_path / "some.zarr"), f"s3://{BUCKET}/{tmp_path.name}/bytes.zarr"]
    for place in places:
        fill(place, states(seed))
    stores = [Location(place).open() for place in places]
    keys = [f"m/d/{name}/c/{i}/0/0" for name in ("hidden_states",) for i in range(3)]
    keys += [f"m/d/{n}/zarr.json" for n in list_names(stores[0], "m/d") if n != "zarr.json"] + ["zarr.json"]
    for key in keys:
        assert read_file(stores[0], key) == read_file(stores[1], key), key


def test_arrays_of_another_shape_are_made_anew(address, seed):
    fill(address, states(seed))
    writer = StoreWriter(Location(address), "job", "0").dataset("m", "d")
    fewer = choose_shape(20, [0, 2], ["embed", "block_2"], 8, "float16", 16)
    writer.ensure(fewer, [])
    assert writer.committed() == ["", ""] and writer.group["hidden_states"].shape == (20, 2, 8)
    assert "text" not in writer.group and "hidden_states/c" not in list_names(writer.group.store, "m/d/hidden_states")


def test_results_and_what_they_were_made_from(address, seed):
    fill(address, states(seed))
    writer = StoreWriter(Location(address), "job", "0").dataset("m", "d")
    points = np.random.default_rng(seed).normal(size=(3, 40, 2)).astype(np.float32)
    writer.write_results("inputs", {"umap": points}, {"umap": {"backend": "x"}})
    writer.write_results("inputs", {"axis": np.array(["x", "y"])})
    again = StoreWriter(Location(address), "job", "0").dataset("m", "d")
    assert again.result_made_from("umap") == "inputs" and again.result_made_from("pca") == ""
    np.testing.assert_array_equal(open_tree(address)["m/d"].umap.values, points)
    assert "axis" in again.attributes["results"]
    again.drop_results(["axis"])
    assert "axis" not in again.attributes["results"] and again.result_made_from("umap") == "inputs"
    again.write_results("inputs", {"umap_raw": points, "axis": np.array(["x", "y"])})
    again.drop_results(["umap_raw"])
    assert list(again.attributes["results"]) == ["axis"]


def test_a_place_with_something_else_is_refused(address):
    store = Location(address).open()
    if not address.startswith("s3"):
        Path(address).mkdir(parents=True)
        (Path(address) / "zarr.json").write_bytes(b'{"zarr_format": 3, "node_type": "group"}')
    write_file(store, "thesis.txt", b"precious")
    if not address.startswith("s3"):
        (Path(address) / "zarr.json").unlink()
    with pytest.raises(StoreError, match="not a drillcore store"):
        StoreWriter(Location(address), "job", "0")
    assert list_names(store, "") == ["thesis.txt"]


def test_another_job_and_another_format_are_refused(address, seed):
    fill(address, states(seed))
    with pytest.raises(StoreError, match="belongs to the job job, not other"):
        StoreWriter(Location(address), "other", "0")
    store = Location(address).open()
    document = json.loads(read_file(store, "zarr.json"))
    put_attributes(store, "", {**document["attributes"], "format": 3})
    uses = (lambda: StoreWriter(Location(address), "job", "0"), lambda: open_tree(address), lambda: [*verify(address)])
    for use in uses:
        with pytest.raises(StoreError, match="has format 3, this version reads formats 1 and 2"):
            use()


def test_there_is_no_store(address):
    with pytest.raises(StoreError):
        open_tree(address)


def test_consolidated_metadata_goes_before_changes_and_comes_back(address, seed):
    fill(address, states(seed))
    store = Location(address).open()
    assert "consolidated_metadata" in json.loads(read_file(store, "zarr.json"))
    opened = StoreWriter(Location(address), "job", "0")
    assert "consolidated_metadata" not in json.loads(read_file(store, "zarr.json"))
    opened.dataset("m", "e")
    opened.finish()
    assert "m/e" in json.loads(read_file(store, "zarr.json"))["consolidated_metadata"]["metadata"]


def test_the_lock_keeps_a_second_one_out_and_names_the_first(address, monkeypatch):
    monkeypatch.setattr("drillcore.store.places.lease.RENEW_SECONDS", 0.2)
    location = Location(address)
    refuse_if_held(location)
    assert not location.beside().exists()
    for _ in range(2):
        with store_lock(location):
            for attempt in (lambda: refuse_if_held(location), lambda: store_lock(location).__enter__()):
                with pytest.raises(StoreError, match=f"another run holds the store .*process {os.getpid()} on "):
                    attempt()
        refuse_if_held(location)


def test_a_link_to_a_store_has_the_stores_own_lock_and_a_name_of_its_own(tmp_path):
    target, link = Location(str(tmp_path / "objects" / "1f3a")), Location(str(tmp_path / "cities.zarr"))
    link.path.symlink_to(target.path)
    assert link.beside() == tmp_path / "cities" and link.bookkeeping == target.bookkeeping == target.beside()
    with store_lock(link):
        for location in (target, link):
            with pytest.raises(StoreError, match="another run holds the store"):
                refuse_if_held(location)
    # The target of the link comes into being where it points.
    fill(link.address, states(3))
    assert link.path.is_symlink() and (target.path / "zarr.json").exists()


def test_the_lock_of_a_killed_run_is_free(address, forge, tmp_path):
    """At once, where it ran on this machine."""
    first = f"""
import os, signal
from drillcore.store.places.location import Location
from drillcore.store.places.lock import store_lock
with store_lock(Location({address!r})):
    os.kill(os.getpid(), signal.SIGKILL)
"""
    assert forge.run(cwd=tmp_path, first=first, env=aws_environment()).status == -signal.SIGKILL
    location = Location(address)
    if location.is_s3:
        assert obstore.head(open_bucket(BUCKET, ""), location.bucket_and_key[1] + ".lock")["size"] > 0
    with store_lock(location):
        pass

"""What `drillcore.open` gives: the arrays and coordinates that a user asked for, layers by number and by name."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
import xarray as xr

import drillcore
from drillcore.store.arrays import INTERNALS

pytest_plugins = ["support.small_store_fixtures"]
GROUPS = ("d", "d~mean", "d~last-3", "d~all")


@pytest.fixture(params=GROUPS)
def opened(small_store, request):
    return drillcore.open(small_store)[f"m/{request.param}"].to_dataset()


def test_what_the_store_keeps_for_itself_is_shown_only_when_asked_for(small_store):
    tree, whole = drillcore.open(small_store), drillcore.open(small_store, internals=True)
    for name in GROUPS:
        shown, stored = tree[f"m/{name}"], whole[f"m/{name}"]
        assert {*map(str, stored.variables)} - {*map(str, shown.variables)} == {*INTERNALS}
        assert {*shown.dims} == {*stored.dims} - {"shard", "digest"}
        assert [*shown.attrs] == ["position"] and "column_digests" in stored.attrs
    assert tree["m/d"].attrs["position"] == "last" and tree["m/d~last-3"].attrs["position"] == '{"last": 3}'
    facts = tree["m/d"].separation.attrs
    assert facts["primary"] == "probe" and facts["labels"] == '["a", "b"]' and "inputs" not in facts
    assert "inputs" in whole["m/d"].attrs["results"]["separation"]


def test_a_layer_is_found_by_its_number_and_by_its_name(opened):
    by_number, by_name = opened.sel(layer=2), opened.sel(layer_name="block_2")
    assert by_number.hidden_states.shape == by_name.hidden_states.shape
    np.testing.assert_array_equal(by_number.hidden_states, by_name.hidden_states)
    assert by_name.layer.item() == 2 and by_number.layer_name.item() == "block_2"
    both = opened.hidden_states.sel(layer_name=["block_2", "embed"])
    np.testing.assert_array_equal(both, opened.hidden_states.isel(layer=[2, 0]))


def test_states_stay_unread_until_they_are_used(opened):
    assert not opened.hidden_states.variable._in_memory
    assert not opened.sel(layer_name="block_2").hidden_states.variable._in_memory


def test_a_group_can_be_pickled_joined_and_written(opened, tmp_path):
    again = pickle.loads(pickle.dumps(opened))
    xr.testing.assert_identical(again.load(), opened.load())
    rows = opened.hidden_states.dims[0]
    joined = xr.concat(
        [opened, opened], dim=rows, data_vars="minimal", coords="minimal", compat="override", join="left"
    )
    assert joined.sizes[rows] == 2 * opened.sizes[rows]
    np.testing.assert_array_equal(joined.hidden_states.sel(layer_name="embed")[-1], opened.hidden_states[-1, ..., 0, :])
    np.testing.assert_array_equal(opened.hidden_states - opened.hidden_states.isel(layer=[1, 2]), 0)
    opened.to_netcdf(tmp_path / "group.nc")
    with xr.open_dataset(tmp_path / "group.nc") as read:
        np.testing.assert_array_equal(read.hidden_states, opened.hidden_states)
        assert read.layer_name.values.tolist() == opened.layer_name.values.tolist()


def test_few_sentences_come_in_the_same_form(models):
    states = drillcore.extract(str(models()), ["the river", "a city"], threads=1)
    assert not {*INTERNALS} & {*map(str, states.variables)}
    np.testing.assert_array_equal(states.hidden_states.sel(layer_name="final_norm"), states.hidden_states[:, -1])

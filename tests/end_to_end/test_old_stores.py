"""Stores of format 1, of its first and its last version: they open, and a run brings them up to date."""

from __future__ import annotations

import tarfile
from pathlib import Path

import numpy as np
import pytest

import drillcore
from drillcore.errors import DamageError
from drillcore.store.attributes import FORMAT, checked_attributes
from drillcore.store.places.location import Location

pytest_plugins = ["support.run_fixtures"]
DATA = Path(__file__).parents[1] / "data"
OLD = "written before data digests"


@pytest.fixture(params=["first", "last"])
def old(request, tmp_path):
    """A folder with a job, its model and texts, and its finished store of format 1."""
    with tarfile.open(DATA / f"format_1_{request.param}.tar.xz") as tar:
        tar.extractall(tmp_path / "old", filter="data")
    job = tmp_path / "old" / "job.yaml"
    text = job.read_text(encoding="utf-8")
    # They name the folder beside them without ./, which is refused since: it would be a model of the hub elsewhere.
    job.write_text(text.replace("id: model\n", "id: ./model\n"), encoding="utf-8")
    assert job.read_text(encoding="utf-8").count("./model") == 1, text
    return tmp_path / "old"


def contents(folder):
    """Every array of every dataset, but the probes and nearest sentences, which no version of format 1 stored."""
    tree = drillcore.open(str(folder / "old.zarr"), internals=True)
    return {
        f"{node.path}/{name}": np.asarray(array.values)
        for node in tree.subtree
        for name, array in node.variables.items()
        if not name.startswith(("shard_", "probe_", "nearest"))
    }


def assert_same(found, wanted):
    assert found.keys() == wanted.keys() and len(found) > 20
    for name, values in wanted.items():
        np.testing.assert_array_equal(found[name], values, err_msg=name)


def states(folder):
    return {p.relative_to(folder): p.read_bytes() for p in folder.glob("old.zarr/m/*/hidden_states/c/*/0/0")}


def test_an_old_store_opens_and_is_brought_up_to_date_without_computing_states(old, forge):
    verified = forge.run("verify", "old.zarr", cwd=old)
    assert verified.status == 0 and verified.out.startswith(OLD) and verified.out.endswith("whole\n")
    before, files = contents(old), states(old)
    run = forge.run("run", "job.yaml", cwd=old)
    assert run.status == 0, run.err
    assert "all 44 sentences are up to date" in run.err and run.err.count(OLD) == 1
    # Its measures stay; the probes that they are of are fitted and stored beside them.
    assert {f"m/{d}/probe_weight" for d in "de"} <= {str(p.relative_to(old / "old.zarr")) for p in old.rglob("probe_*")}
    assert (old / "old.zarr/m/d/nearest").is_dir() and (old / "old.zarr/m/e/nearest").is_dir()
    assert run.err.count("measures are up to date") == 2 and run.err.count("projection is up to date") == 2
    assert_same(contents(old), before)
    assert states(old) == files and checked_attributes(Location(str(old / "old.zarr")).open(), "")["format"] == FORMAT
    verified = forge.run("verify", "old.zarr", cwd=old)
    assert verified.status == 0 and OLD not in verified.out
    again = forge.run("run", "job.yaml", cwd=old)
    assert again.status == 0 and OLD not in again.err


def test_what_is_damaged_in_an_old_store_is_computed_again(old, forge):
    before = contents(old)
    shard = old / "old.zarr/m/d/hidden_states/c/1/0/0"
    raw = bytearray(shard.read_bytes())
    raw[len(raw) // 3] ^= 4
    shard.write_bytes(raw)
    texts = old / "old.zarr/m/e/text/c/0"
    texts.write_bytes(texts.read_bytes()[:-7])
    with pytest.raises((DamageError, ValueError)):
        contents(old)
    run = forge.run("extract", "job.yaml", cwd=old)
    assert run.status == 0, run.err
    assert "m/d: " in run.err and "m/e: " in run.err
    assert forge.run("verify", "old.zarr", cwd=old).status == 0
    found = contents(old)
    for name in [f"/m/{d}/{array}" for d in "de" for array in ("hidden_states", "layer_absmax")]:
        np.testing.assert_allclose(found.pop(name), before.pop(name), rtol=1e-4, atol=1e-4)
    assert_same(found, before)


@pytest.mark.parametrize("kills", [3])
def test_a_kill_while_it_is_brought_up_to_date_changes_nothing(old, forge, kills):
    before = contents(old)
    for number in range(kills):
        first = f"""
import os, signal
from drillcore.store.places.local import DurableStore
put, left = DurableStore.put, {3 + 2 * number}
def counted(self, *arguments):
    global left
    left -= 1
    if left == 0:
        os.kill(os.getpid(), signal.SIGKILL)
    return put(self, *arguments)
DurableStore.put = counted
"""
        assert forge.run("extract", "job.yaml", cwd=old, first=first).status == -9
        assert_same(contents(old), before)
    run = forge.run("extract", "job.yaml", cwd=old)
    assert run.status == 0 and "all 44 sentences are up to date" in run.err, run.err
    assert_same(contents(old), before)

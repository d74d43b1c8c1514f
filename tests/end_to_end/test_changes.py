"""Nothing takes away or overwrites committed states without --overwrite; other versions and devices are no change."""

from __future__ import annotations

import json
import random
import shutil
from pathlib import Path

import numpy as np
import pytest
import yaml
import zarr

import drillcore
from drillcore.errors import StoreError
from drillcore.job.file import load_job
from support.runs import BLOCK, Work, sentences

pytest_plugins = ["support.run_fixtures"]
COUNT = 100
OTHER_TORCH = """
import drillcore.runtime.guard, drillcore.runtime.manifest as manifest
versions = manifest.versions
manifest.versions = drillcore.runtime.guard.versions = lambda: {**versions(), "torch": "9.9.9"}
"""
OTHER_DEVICE = """
from dataclasses import replace
import drillcore.runtime.executors.local as local
found = local.host_hardware
local.host_hardware = lambda *a: replace(found(*a), device="ANOTHER")
"""
ON_A_GPU = OTHER_DEVICE.replace('device="ANOTHER"', 'device="A GPU", gpus=1')


def store_bytes(work: Work) -> dict[str, bytes]:
    return {str(p.relative_to(work.store)): p.read_bytes() for p in sorted(work.store.rglob("*")) if p.is_file()}


@pytest.fixture(scope="module")
def finished(make_work, tmp_path_factory):
    """A finished job of 100 sentences in 7 shards, to be copied."""
    made = make_work(tmp_path_factory.mktemp("finished") / "work", seed=3, count=COUNT)
    made.finish()
    return made


@pytest.fixture(params=["finished", "half-finished", "damaged"])
def work(request, finished, tmp_path):
    """A copy of it: whole, with two shards of seven that are not committed, or with a damaged one."""
    return copied(finished, tmp_path / "work", request.param)


def copied(finished: Work, folder: Path, state: str = "finished") -> Work:
    shutil.copytree(finished.folder, folder)
    made = Work(folder, finished.forge, yaml.safe_load((folder / "job.yaml").read_text()))
    if state == "half-finished":
        zarr.open_group(made.store, path="m/d", mode="r+")["shard_fingerprint"][5:] = 0
    if state == "damaged":
        (made.store / "m/d/hidden_states/c/3/0/0").unlink()
    return made


def rows_of(work: Work) -> list[dict[str, str]]:
    return [json.loads(line) for line in (work.folder / "d.jsonl").read_text().splitlines()]


def removed(rows):
    return rows[:-7]


def changed(rows):
    return [*rows[:40], {**rows[40], "text": "another sentence altogether"}, *rows[41:]]


def reordered(rows):
    return rows[::-1]


def added_in_the_middle(rows):
    return [*rows[:50], *sentences(99, 3), *rows[50:]]


@pytest.mark.parametrize("change", [removed, changed, reordered, added_in_the_middle])
def test_other_rows_are_refused(change, work):
    work.texts("d", change(rows_of(work)))
    lost = refused(work, "m/d")
    # A changed text touches its block of two shards; fewer, or moved, rows touch all that is committed.
    if change is changed:
        assert "1 of 100 sentences are others" in lost
        assert ("states of 16 " if "3/0/0" in missing(work) else f"states of {BLOCK} ") in lost
    if change is removed:
        assert "7 of 100 sentences are gone" in lost
    if change is added_in_the_middle:
        assert "3 are new, not all of them at the end" in lost
    if change is reordered:
        assert "another order" in lost


def missing(work: Work) -> str:
    return "" if (work.store / "m/d/hidden_states/c/3/0/0").exists() else "3/0/0"


def refused(work: Work, *said: str, more: tuple[str, ...] = ()) -> str:
    """The run exits with 2, says what would be lost, and no byte of the store changes."""
    before = store_bytes(work)
    done = work.run(*more)
    assert done.status == 2, (done.status, done.out, done.err)
    assert "would take away or compute again" in done.err and "--overwrite" in done.err and str(work.store) in done.err
    assert f"× {5} layers" in done.err
    for text in said:
        assert text in done.err, done.err
    assert store_bytes(work) == before
    return done.err


def other_tokenizer(work: Work) -> None:
    model = work.folder / "model"
    shutil.copytree(work.job["models"][0]["id"], model)
    path = model / "tokenizer.json"
    path.write_text(path.read_text().replace('"add_prefix_space":false', '"add_prefix_space":true'))
    config = json.loads((model / "tokenizer_config.json").read_text())
    (model / "tokenizer_config.json").write_text(json.dumps(config))
    tokenizer = json.loads(path.read_text())
    tokenizer["pre_tokenizer"]["add_prefix_space"] = True
    path.write_text(json.dumps(tokenizer))
    work.job["models"][0]["id"] = str(model)


def other_path(work: Work) -> None:
    work.texts("e", sentences(55, COUNT))
    work.job["datasets"][0]["path"] = "e.jsonl"


SETTINGS = {
    "fewer layers": (lambda w: w.job["extract"].update(layers=[0, 2]), "layers is 0, 2, it was 0 to 4"),
    "layers as hf": (lambda w: w.job["extract"].update(layers="hf"), "layers is 0, 1, 2, 4"),
    "dtype": (lambda w: w.job["extract"].update(dtype="bfloat16"), "extract.dtype is bfloat16, it was auto"),
    "dtype of the model": (lambda w: w.job["models"][0].update(dtype="float16"), "dtype is float16, it was None"),
    "store_dtype": (lambda w: w.job["extract"].update(store_dtype="float16"), "extract.store_dtype is float16"),
    "shards": (lambda w: w.job["extract"].update(shard_sentences=32), "extract.shard_sentences is 32, it was 16"),
    "special tokens": (lambda w: w.job["extract"].update(special_tokens="none"), "special_tokens is none"),
    "template": (lambda w: w.job["datasets"][0].update(template="So: {text}"), "template is So: {text}"),
    "limit": (lambda w: w.job["datasets"][0].update(limit=10), "90 of 100 sentences are gone"),
    "tokenizer": (other_tokenizer, "the tokenizer changed"),
    "path": (other_path, "100 of 100 sentences are others"),
    "random weights": (lambda w: w.job["models"][0].update(random_weights=True), "weights of the model changed"),
}


@pytest.mark.parametrize("name", SETTINGS)
def test_another_setting_is_refused(name, work):
    change, said = SETTINGS[name]
    change(work)
    work.save()
    err = refused(work, "m/d", said)
    committed = sum(min(16, COUNT - 16 * int(key.split()[1])) for key in work.committed())
    assert f"states of {committed} sentences × 5 layers" in err


def test_another_model_is_refused(work, models):
    work.job["models"][0]["id"] = str(models("llama", seed=5))
    work.save()
    refused(work, "the weights of the model changed")


def test_one_set_is_refused_and_overwrite_does_it(finished, tmp_path):
    work = copied(finished, tmp_path / "work")
    refused(work, "extract.dtype is bfloat16", more=("--set", "extract.dtype=bfloat16"))
    refused(work, "90 of 100 sentences are gone", more=("--set", "datasets.0.limit=10"))
    work.finish("--set", "extract.dtype=bfloat16", "--overwrite")
    assert work.extracted() == COUNT


def test_layers_more_are_refused(make_work, tmp_path):
    work = make_work(tmp_path / "work", seed=3, count=20)
    work.job["extract"]["layers"] = [0, 2]
    work.save()
    work.finish()
    work.job["extract"]["layers"] = "all"
    work.save()
    before = store_bytes(work)
    done = work.run()
    assert done.status == 2 and "20 sentences × 2 layers" in done.err and store_bytes(work) == before


def test_from_python(finished, tmp_path):
    work = copied(finished, tmp_path / "work")
    before = store_bytes(work)
    with pytest.raises(StoreError, match="100 sentences × 5 layers"):
        drillcore.run(work.folder / "job.yaml", set=["datasets.0.limit=10"])
    assert store_bytes(work) == before


def test_results_that_go_with_the_states_are_named(finished, tmp_path):
    work = copied(finished, tmp_path / "work")
    work.forge.start("measure", "job.yaml", cwd=work.folder).wait()
    err = refused(work, "separation", more=("--set", "datasets.0.limit=10"))
    assert "layer_cka" in err


def test_only_the_groups_that_change_are_named(finished, tmp_path):
    work = copied(finished, tmp_path / "work")
    work.texts("e", sentences(5, 20))
    work.job["datasets"].append({"name": "e", "path": "e.jsonl"})
    work.save()
    work.finish()
    kept = work.committed()
    work.texts("e", sentences(5, 20)[:10])
    assert "m/d" not in refused(work, "m/e: states of 20 sentences")
    work.finish("--overwrite")
    assert work.extracted() == 10
    assert {k: v for k, v in work.committed().items() if k.startswith("m/d")} == {
        k: v for k, v in kept.items() if k.startswith("m/d")
    }


def test_rows_at_the_end_grow_the_store(work, seed):
    before, more = work.committed(), random.Random(seed).randint(1, 60)
    work.texts("d", [*rows_of(work), *sentences(seed, more)])
    work.finish()
    now = work.committed()
    whole_blocks = [k for k in before if int(k.split()[1]) < 6]  # the last block, of 4 rows, is filled up
    assert all(now[k] == before[k] for k in whole_blocks)
    assert len(now) == -(-(COUNT + more) // 16)
    fresh = copied(work, work.folder.parent / "fresh")
    shutil.rmtree(fresh.store)
    fresh.finish()
    grown, anew = (drillcore.open(each.store)["m/d"] for each in (work, fresh))
    assert grown.sizes["sentence"] == COUNT + more and np.isfinite(grown.hidden_states.values).all()
    # The rows of before keep their values; a fresh store computes them in other company.
    np.testing.assert_allclose(grown.hidden_states, anew.hidden_states, rtol=1e-5, atol=1e-5)
    assert grown.text.values.tolist() == anew.text.values.tolist()


def test_growth_keeps_a_store_that_opens(finished, tmp_path):
    """Results of fewer sentences would no longer fit beside the states."""
    work = copied(finished, tmp_path / "work")
    work.forge.start("measure", "job.yaml", cwd=work.folder).wait()
    work.job["project"] = {"method": "pca"}
    work.save()
    work.forge.start("project", "job.yaml", cwd=work.folder).wait()
    work.texts("d", [*rows_of(work), *sentences(1, 9)])
    work.finish()
    tree = drillcore.open(work.store)["m/d"]
    assert "pca" not in tree and "separation" not in tree and tree.sizes["sentence"] == COUNT + 9


def test_a_missing_shard_is_no_change(finished, tmp_path):
    work = copied(finished, tmp_path / "work", "damaged")
    before = finished.states()
    work.finish()
    assert work.states() == before


@pytest.mark.parametrize("what", ["m/d/zarr.json", "m/zarr.json", "zarr.json", "m/d/hidden_states/zarr.json"])
def test_damaged_metadata_do_not_hide_what_would_be_lost(what, finished, tmp_path):
    work = copied(finished, tmp_path / "work")
    text = (work.store / what).read_bytes()
    (work.store / what).write_bytes(text[:-9])
    before = work.states()
    work.job["extract"]["layers"] = [0, 2]
    work.save()
    done = work.run()
    assert done.status == 2 and "100 sentences" in done.err and work.states() == before, (done.status, done.err)
    work.job["extract"].pop("layers")
    work.save()
    work.finish()
    assert work.states() == finished.states()


@pytest.mark.parametrize("other", [OTHER_TORCH, OTHER_DEVICE, OTHER_TORCH + OTHER_DEVICE])
def test_other_versions_and_devices_keep_a_finished_store(other, finished, tmp_path):
    work = copied(finished, tmp_path / "work")
    before = work.committed()
    numerics = group_of(work, "m").attrs["numerics"]
    done = work.run(first=other)
    assert done.status == 0, done.err
    assert "m/d: its states and their numerics stay as computed with" in done.err
    assert work.committed() == before and group_of(work, "m").attrs["numerics"] == numerics
    assert work.manifest["models"]["m"]["kept"]
    assert "stay" not in work.finish().err and work.committed() == before


def group_of(work: Work, path: str) -> zarr.Group:
    return zarr.open_group(work.store, path=path, mode="r", use_consolidated=False)


def test_a_store_of_an_older_version_keeps_its_states_too(make_work, tmp_path):
    """It does not record what its states were computed with, but a digest of it."""
    work = make_work(tmp_path / "work", seed=3, count=COUNT, backend="transformers")
    work.finish()
    path = work.store / "m/d/zarr.json"
    document = json.loads(path.read_text())
    del document["attributes"]["recipes"]
    path.write_text(json.dumps(document))
    before = work.committed()
    done = work.run(first=OTHER_TORCH + OTHER_DEVICE)
    assert done.status == 0 and "stay as computed with" in done.err, done.err
    assert work.committed() == before
    refused(work, "layers", more=("--set", "extract.layers=[0]"))


@pytest.mark.parametrize("state", ["half-finished", "damaged"])
def test_other_versions_compute_only_what_is_missing(state, finished, tmp_path):
    work = copied(finished, tmp_path / "work", state)
    before = work.committed()
    done = work.run(first=OTHER_TORCH)
    assert done.status == 0, done.err
    now = work.committed()
    assert len(now) == 7 and {k: now[k] for k in before} == before
    assert "torch 9.9.9; the others, torch" in done.err
    done = work.finish()
    assert "up to date" in done.err and "stay" in done.err and work.committed() == now
    assert work.forge.start("verify", str(work.store), cwd=work.folder).wait() == 0


def test_rows_at_the_end_under_another_version(finished, tmp_path):
    work = copied(finished, tmp_path / "work")
    before = work.committed()
    work.texts("d", [*rows_of(work), *sentences(8, 40)])
    done = work.run(first=OTHER_TORCH)
    assert done.status == 0, done.err
    now = work.committed()
    assert len(now) == 9 and all(now[k] == before[k] for k in before if int(k.split()[1]) < 6)
    assert work.finish().status == 0 and work.committed() == now


def test_another_dtype_is_never_mixed_in(make_work, tmp_path):
    """`dtype: auto` is another dtype on another device: what is finished stays, what is not is refused."""
    work = make_work(tmp_path / "work", seed=3, count=40, backend="transformers")
    work.finish()
    before = work.committed()
    assert work.run(first=ON_A_GPU).status == 0 and work.committed() == before
    zarr.open_group(work.store, path="m/d", mode="r+")["shard_fingerprint"][2:] = 0
    states = work.states()
    done = work.run(first=ON_A_GPU)
    assert done.status == 2 and "computed in float32" in done.err and "bfloat16" in done.err, done.err
    assert work.states() == states
    work.finish()
    assert len(work.committed()) == 3


def test_limit_has_a_store_of_its_own(finished, tmp_path):
    """The issue's own case: a finished store must not become one of ten sentences."""
    work = copied(finished, tmp_path / "work")
    before = store_bytes(work)
    done = work.finish("--limit", "10")
    assert store_bytes(work) == before and "job-limit10.zarr" in done.out
    tree = drillcore.open(work.folder / "runs/job-limit10.zarr")
    assert tree["m/d"].sizes["sentence"] == 10
    assert (work.folder / "runs/job-limit10/manifest.json").exists()


def test_limit_with_a_named_store(finished, tmp_path):
    work = copied(finished, tmp_path / "work")
    done = work.run("--limit", "10", "--store", "runs/job.zarr")
    assert done.status == 2 and "90 of 100 sentences are gone" in done.err
    assert work.finish("--limit", "10", "--store", "runs/few.zarr").status == 0
    assert drillcore.open(work.folder / "runs/few.zarr")["m/d"].sizes["sentence"] == 10


@pytest.mark.parametrize(
    ("store", "limited"),
    [
        (None, "runs/job-limit7.zarr"),
        ("../x/y.zarr", "../x/y-limit7.zarr"),
        ("plain", "plain-limit7"),
        ("s3://bucket/a/b.zarr", "s3://bucket/a/b-limit7.zarr"),
    ],
)
def test_name_of_a_limited_store(store, limited, tmp_path):
    (tmp_path / "job.yaml").write_text(yaml.safe_dump({"models": ["a/b"], "datasets": {"d": "d.txt"}, "store": store}))
    found = load_job(tmp_path / "job.yaml", limit=7).store
    assert found == (limited if limited.startswith("s3://") else str((tmp_path / limited).resolve()))

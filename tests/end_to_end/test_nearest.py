"""The nearest sentences of every sentence, as the measure stage stores them, against all distances of stored states."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
import zarr

import drillcore
from support.nearest import assert_nearest
from support.runs import sentences

pytest_plugins = ["support.run_fixtures"]


def rows(count: int, seed: int = 0) -> list[dict[str, Any]]:
    """Sentences of which every third is the first one again: more than ten of one state at every layer."""
    made = sentences(seed, count)
    return [{**row, "text": made[0]["text"] if i % 3 == 0 else row["text"]} for i, row in enumerate(made)]


def graphs(work: Any) -> set[Any]:
    return set((work.forge.folder / "cache" / "drillcore" / "graphs").glob("*"))


def check(store: Any, group: str, count: int) -> None:
    opened = drillcore.open(store)[group]
    nearest = opened.nearest
    assert nearest.dims == ("layer", "sentence", "neighbour") and nearest.shape == (opened.sizes["layer"], count, 10)
    assert nearest.dtype == np.int32 and nearest.metric == "euclidean" and ("exact" in nearest.backend or count == 1)
    for tied, layer in zip(json.loads(nearest.tied), opened.layer.values, strict=True):
        states = opened.hidden_states.sel(layer=layer).values
        assert_nearest(nearest.sel(layer=layer).values, states)
        _, counts = np.unique(states, axis=0, return_counts=True)
        assert tied == counts[counts > 11].sum()


@pytest.mark.parametrize(
    ("measure", "project", "is_shared"),
    [
        ({}, {"method": "pca"}, False),
        ({"standardise": "zscore"}, {"n_neighbors": 4}, True),
        ({"metrics": ["probe"]}, {"metric": "cosine"}, False),
    ],
)
def test_they_are_those_of_the_raw_states_whatever_is_measured_and_projected(new_work, measure, project, is_shared):
    dataset = {"name": "d", "path": "d.jsonl", "label": "label", "unlabelled": "keep"}
    settings = {"measure": {"permutations": 9, **measure}, "project": project}
    work = new_work(backend="transformers", datasets=[dataset], **settings)
    before = graphs(work)
    work.texts("d", [row if i % 5 else {**row, "label": ""} for i, row in enumerate(rows(50))])
    for stage in ("extract", "measure"):
        done = work.forge.run(stage, "job.yaml", cwd=work.folder)
        assert done.status == 0, done.err
    check(work.store, "m/d", 50)
    # Those that the projection will read stay.
    assert len(graphs(work) - before) == (5 if is_shared else 0)


@pytest.mark.parametrize("count", [1, 3, 11, 12])
def test_few_sentences_have_few(new_work, count):
    work = new_work(count=count, backend="fake")
    for stage in ("extract", "measure"):
        done = work.forge.run(stage, "job.yaml", cwd=work.folder)
        assert done.status == 0, done.err
    check(work.store, "m/d", count)
    assert work.forge.run("verify", str(work.store), cwd=work.folder).status == 0


def test_a_store_without_them_gets_them_alone_and_a_grown_one_others(new_work):
    work = new_work(measure={"permutations": 9}, datasets=[{"name": "d", "path": "d.jsonl", "label": "label"}])
    every = rows(64)
    work.texts("d", every[:40])
    for stage in ("extract", "measure"):
        assert work.forge.run(stage, "job.yaml", cwd=work.folder).status == 0
    check(work.store, "m/d", 40)
    # As an older version leaves it.
    forget = "from drillcore.runtime.stages import measure\nmeasure.store_nearest = lambda *given: None\n"
    work.texts("d", every[:41])
    assert work.forge.run("extract", "job.yaml", cwd=work.folder).status == 0
    assert work.forge.run("measure", "job.yaml", cwd=work.folder, first=forget).status == 0
    before = dict(zarr.open_group(work.store, path="m/d", mode="r").attrs)["results"]
    assert "nearest" not in before and "nearest" not in drillcore.open(work.store)["m/d"]
    again = work.forge.run("measure", "job.yaml", cwd=work.folder)
    assert again.status == 0 and "measures are up to date" in again.err and "nearest sentences at 5 layers" in again.err
    after = dict(zarr.open_group(work.store, path="m/d", mode="r").attrs)["results"]
    assert {name: after[name] for name in before} == before
    check(work.store, "m/d", 41)
    third = work.forge.run("measure", "job.yaml", cwd=work.folder)
    assert third.status == 0 and "nearest" not in third.err
    # Another label decides nothing; more sentences do.
    work.texts("d", [{**row, "label": "ab"[i % 2]} for i, row in enumerate(every[:41])])
    for stage in ("extract", "measure"):
        relabelled = work.forge.run(stage, "job.yaml", cwd=work.folder)
    assert relabelled.status == 0 and "layers measured" in relabelled.err and "nearest" not in relabelled.err
    work.texts("d", [{**row, "label": "ab"[i % 2]} for i, row in enumerate(every)])
    for stage in ("extract", "measure"):
        grown = work.forge.run(stage, "job.yaml", cwd=work.folder)
    assert grown.status == 0 and "nearest sentences" in grown.err
    check(work.store, "m/d", 64)
    assert work.forge.run("verify", str(work.store), cwd=work.folder).status == 0


def test_a_damaged_one_is_named_and_made_again(new_work):
    work = new_work(measure={"permutations": 9})
    work.texts("d", rows(40))
    for stage in ("extract", "measure"):
        assert work.forge.run(stage, "job.yaml", cwd=work.folder).status == 0
    chunk = work.store / "m/d/nearest/c/2/0/0"
    data = bytearray(chunk.read_bytes())
    data[len(data) // 2] ^= 1
    chunk.write_bytes(data)
    found = work.forge.run("verify", str(work.store), cwd=work.folder)
    assert found.status == 1 and "nearest" in found.out
    for stage in ("extract", "measure"):
        mended = work.forge.run(stage, "job.yaml", cwd=work.folder)
    assert mended.status == 0, mended.err
    assert "nearest sentences at 5 layers" in mended.err
    check(work.store, "m/d", 40)
    assert work.forge.run("verify", str(work.store), cwd=work.folder).status == 0


def test_rows_that_are_tokens_have_rows_for_neighbours(new_work):
    work = new_work(count=8, measure={"permutations": 9}, backend="transformers")
    work.job["extract"]["positions"] = [{"last": 3}]
    work.save()
    for stage in ("extract", "measure"):
        done = work.forge.run(stage, "job.yaml", cwd=work.folder)
        assert done.status == 0, done.err
    opened, stored = drillcore.open(work.store)["m/d~last-3"], zarr.open_group(work.store, path="m/d~last-3", mode="r")
    assert stored["nearest"].metadata.dimension_names == ("layer", "row", "neighbour")
    assert opened.nearest.dims == ("layer", "sentence", "position", "neighbour")
    for slot in range(stored["nearest"].shape[0]):
        assert_nearest(stored["nearest"][slot], stored["hidden_states"][:, slot])
        assert (opened.nearest[slot].values.reshape(-1, 10) == stored["nearest"][slot]).all()

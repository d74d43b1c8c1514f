"""Whole runs on data that hardly vary, and on a store of which one group is damaged: the others are done, exit 1."""

from __future__ import annotations

import json

import numpy as np
import pytest
import zarr

pytest_plugins = ["support.run_fixtures"]
QUICK = {"project": {"n_epochs": 20}, "measure": {"permutations": 19}}


def result(work, path: str, array: str) -> tuple[np.ndarray, dict]:
    group = zarr.open_group(work.store, path=path, mode="r", use_consolidated=False)
    return np.asarray(group[array][...]), dict(group.attrs)["results"][array]


@pytest.fixture
def run_of(new_work):
    """A run of every stage on these rows, on a real model."""

    def run(rows: list[dict[str, str]], status: int = 0, **settings):
        work = new_work(backend="transformers", **{**QUICK, **settings})
        work.texts("d", rows)
        command = work.forge.run("run", work.file, cwd=work.folder)
        assert command.status == status, command.err
        return work, command

    return run


def test_thirty_of_32_sentences_end_in_the_same_token(run_of):
    """The two that differ have labels of their own; nothing varies at embed, and the run says so."""
    rows = [{"text": f"number {i} ends here.", "label": "ab"[i % 2]} for i in range(30)]
    rows += [{"text": "another end", "label": "once"}, {"text": "and a line", "label": "alone"}]
    work, command = run_of(rows)
    assert "linear probe not measured: embed: all 30 states are the same" in command.err
    values, facts = result(work, "m/d", "separation")
    assert np.isnan(values[0]).all() and np.isfinite(values[1:]).all()
    assert facts["skipped"]["probe"] == "embed: all 30 states are the same"
    assert "nan" not in command.err
    _, projected = result(work, "m/d", "umap")
    assert projected["notes"] == {"embed": "3 distinct states: principal components"}


@pytest.mark.parametrize(
    ("labels", "reason"),
    [
        (["a"], "one label (a), of 1 sentence"),
        (["a", "b"], "each of the 2 labels is held by one sentence, one group or one fold"),
        (["a", "a", "b"], "one label (a), of 2 sentences; 1 more is too rare to be measured"),
        ([f"l{k}" for k in range(12)], "each of the 12 labels is held by one sentence, one group or one fold"),
    ],
)
def test_few_sentences_and_labels_have_pictures_and_a_reason(run_of, labels, reason):
    rows = [{"text": f"sentence {i} {chr(97 + i)}", "label": label} for i, label in enumerate(labels)]
    method = "umap" if len(labels) == 2 else "pca"
    work, command = run_of(rows, project={"method": method})
    assert f"skipped: {reason}" in command.err and "nan" not in command.err
    assert (work.beside / "report.html").exists()
    points, _ = result(work, "m/d", method)
    assert np.isfinite(points).all()


def test_equal_sentences_have_pictures_and_a_reason(run_of):
    rows = [{"text": "the same", "label": "ab"[i % 2]} for i in range(12)]
    work, command = run_of(rows, project={"method": "pca"})
    assert "skipped: each of the 2 labels is held by one sentence, one group or one fold" in command.err
    assert "without variance" in command.err and (work.beside / "report.html").exists()


def test_what_follows_equal_sentences_has_no_interval_and_says_so(run_of):
    rows = [{"text": "the same", "next": " a"}] * 12
    dataset = {"name": "d", "path": "d.jsonl", "expected_next": "next", "candidates": [" a", " b"]}
    work, command = run_of(rows, project={"method": "pca"}, datasets=[dataset])
    words = "(no interval: it takes two groups of different sentences)"
    assert command.err.count(words) == 2 and "nan" not in command.err
    for file in work.folder.glob("runs/**/*.json"):
        # JSON has no NaN: other programs could not open the store.
        json.loads(file.read_bytes(), parse_constant=lambda word, file=file: pytest.fail(f"{file}: {word}"))
    again = work.forge.run("predict", work.file, cwd=work.folder)
    assert "candidates are up to date" in again.err


def test_a_group_that_fails_leaves_the_others_done(new_work):
    work = new_work(
        project={"method": "pca"},
        measure={"permutations": 19},
        datasets=[{"name": name, "path": "d.jsonl", "limit": 40} for name in ("one", "two", "three")],
    )
    work.finish()
    shard = work.store / "m" / "two" / "hidden_states" / "c" / "0" / "0" / "0"
    data = bytearray(shard.read_bytes())
    data[20:60] = bytes(40)
    shard.write_bytes(data)
    command = work.forge.run("run", work.file, cwd=work.folder)
    assert command.status == 1, (command.out, command.err)
    for stage in ("measure", "project", "render"):
        assert f"{stage} failed for 1 group, everything else is kept:\nm/two: " in command.err
    assert "Traceback" not in command.err and "verify" in command.err
    for name in ("one", "three"):
        for array in ("separation", "pca"):
            result(work, f"m/{name}", array)
    pictures = {p.name for p in (work.beside / "pictures").glob("*.png")}
    assert {"m--one.png", "m--three.png", "m--all-datasets.png"} <= pictures and "m--two.png" not in pictures
    assert (work.beside / "report.html").exists()
    assert work.manifest["status"].startswith("failed: measure failed for 1 group")


def test_what_is_not_extracted_is_never_measured(new_work):
    """Missing shards would be read as NaN."""
    work = new_work(project={"method": "pca"}, datasets=[{"name": n, "path": "d.jsonl"} for n in ("d", "e")])
    work.finish()
    record = work.store / "m" / "d" / "shard_fingerprint" / "c" / "1" / "0"
    record.unlink()
    for stage in ("measure", "project"):
        command = work.forge.run(stage, work.file, cwd=work.folder)
        assert command.status == 1 and "m/d: 1 of 19 shards are not extracted yet" in command.err
        assert "drillcore extract" in command.err
    assert json.loads((work.store / "m" / "e" / "zarr.json").read_text())["attributes"]["results"]["pca"]


def test_a_kept_column_of_empty_values_is_stored(new_work):
    work = new_work(count=20)
    work.texts("d", [{"text": f"sentence {i}", "note": ""} for i in range(20)])
    work.job["datasets"][0]["keep"] = ["note"]
    work.save()
    work.finish()
    assert zarr.open_group(work.store, mode="r")["m/d/note"][:].tolist() == [""] * 20
    work.finish()

"""Labels that are numbers, from the file to the report."""

from __future__ import annotations

import json

import numpy as np
import pyarrow.parquet as pq
import pytest
import zarr
from safetensors import safe_open
from safetensors.numpy import load_file

import drillcore
from drillcore.store.reader import open_dataset

pytest_plugins = ["support.run_fixtures"]


def scored(work, *, wrong=None, **dataset):
    """Give each sentence a number that its length and last word tell something of."""
    rows = [json.loads(line) for line in (work.folder / "d.jsonl").read_text().splitlines()]
    for k, row in enumerate(rows):
        row["label"] = len(row["text"]) / 8 + (k % 3) / 4
    for k, value in (wrong or {}).items():
        rows[k]["label"] = value
    work.texts("d", rows)
    work.job["datasets"] = [{"name": "d", "path": "d.jsonl", **dataset}]
    work.save()
    return rows


def command(work, *words):
    return work.forge.run(*words, cwd=work.folder)


def test_numbers_are_predicted_drawn_shown_and_exported(new_work, tmp_path):
    work = new_work(count=60, measure={"permutations": 19}, project={"method": "pca"}, backend="transformers")
    rows = scored(work, wrong={7: None}, unlabelled="keep")
    values = np.array([np.nan if k == 7 else row["label"] for k, row in enumerate(rows)])
    ran = command(work, "run", "job.yaml")
    assert ran.status == 0, ran.err
    assert "so that labels are numbers and not classes; `label_type: number` says so in the job" in ran.err
    assert "R² of the linear probe best at" in ran.err and "purity, silhouette, dispersion" in ran.err
    group = drillcore.open(work.store)["m/d"]
    assert group.label.dtype == np.float64
    np.testing.assert_array_equal(group.label.values, values)
    measures = drillcore.measure(work.store)
    assert measures.metrics == ("r2",) and measures.labels == () and measures.best().metric == "r2"
    assert {c.name for c in measures.controls} == {"tfidf", "last_token_and_length"}
    assert set(measures.skipped) == {"probe", "purity", "silhouette", "dispersion", "dispersion_centred"}
    assert measures.to_dict()["best"]["metric"] == "r2"
    facts = dict(open_dataset(str(work.store), "m/d").attrs)["results"]["separation"]
    assert facts["primary"] == "r2" and facts["unlabelled"] == 1
    shown = command(work, "show", str(work.store))
    assert "R² of the linear probe (primary; 0 to 1)" in shown.out and "from chance" not in shown.out
    page = (work.beside / "report.html").read_text(encoding="utf-8")
    assert "how well they predict the labels" in page and "separate the labels" not in page
    assert "R\\u00b2" in page or "R²" in page
    assert '"unlabelled":1' in page.replace(" ", "") and "balanced accuracy" not in page
    again = command(work, "run", "job.yaml")
    assert "measures are up to date" in again.err
    assert command(work, "verify", str(work.store)).status == 0
    drillcore.export(work.store, to="parquet", layer=1, out=tmp_path / "a.parquet")
    column = pq.read_table(tmp_path / "a.parquet").column("label")
    assert str(column.type) == "double"
    np.testing.assert_array_equal(column.to_numpy(), values)


def test_its_probe_is_exported_with_its_r2(new_work, tmp_path):
    work = new_work(count=60, measure={"permutations": 9, "standardise": "zscore"}, backend="transformers")
    rows = scored(work)
    for stage in ("extract", "measure"):
        assert command(work, stage, "job.yaml").status == 0
    file = tmp_path / "probe.safetensors"
    drillcore.export(work.store, to="probe", out=file)
    tensors = load_file(file)
    with safe_open(file, "numpy") as opened:
        said = opened.metadata()
    assert said["label_type"] == "number" and "direction" not in tensors and "argmax" not in said["use"]
    best = {row.layer: row.value for row in drillcore.measure(work.store).rows}
    assert json.loads(said["r2"]) == pytest.approx([best[n] for n in json.loads(said["layers"])], abs=1e-4)
    values = np.array([row["label"] for row in rows])
    for k, number in enumerate(json.loads(said["layers"])):
        states = drillcore.open(work.store)["m/d"].hidden_states.sel(layer=number).values
        predicted = states @ tensors["weight"][k, 0] + tensors["offset"][k, 0]
        inside = 1 - ((values - predicted) ** 2).sum() / ((values - values.mean()) ** 2).sum()
        # In the sample it fits at least as well as out of it.
        assert max(0.0, json.loads(said["r2"][0:])[k]) - 1e-3 <= inside <= 1


def test_two_groups_of_numbers_are_compared_by_what_they_predict(new_work):
    work = new_work(count=60, measure={"permutations": 0}, backend="transformers")
    scored(work)
    work.job["extract"]["positions"] = ["last", "mean"]
    work.save()
    for stage in ("extract", "measure"):
        assert command(work, stage, "job.yaml").status == 0
    compared = drillcore.compare(work.store, "m/d", "m/d~mean")
    assert {row.metric for row in compared.rows} == {"r2"} and "separates" not in str(compared.to_dict())


@pytest.mark.parametrize(
    ("wrong", "dataset", "said"),
    [
        (
            {4: "seven"},
            {"label_type": "number"},
            "d.jsonl:5: field `label` is `seven`, and labels that are numbers need",
        ),
        ({4: True}, {"label_type": "number"}, "d.jsonl:5: field `label` is true or false, and labels that are numbers"),
        ({4: None}, {"label_type": "number"}, "d.jsonl:5: field `label` is null; `unlabelled: keep`"),
        ({4: float("inf")}, {"label_type": "number"}, "d.jsonl:5: "),
        ({}, {"label": "label", "label_type": "classes"}, "is a fraction; `label_type: number` takes numbers"),
    ],
)
def test_what_is_no_number_is_refused_with_file_and_line(new_work, wrong, dataset, said):
    work = new_work(count=20)
    scored(work, wrong=wrong, **dataset)
    refused = work.run()
    assert refused.status == 2 and said in refused.err and not work.store.exists(), refused.err


def test_whole_numbers_stay_classes_unless_the_job_says_otherwise(new_work):
    work = new_work(count=60, measure={"permutations": 0})
    rows = scored(work)
    for k, row in enumerate(rows):
        row["label"] = k % 3
    work.texts("d", rows)
    for stage in ("extract", "measure"):
        assert command(work, stage, "job.yaml").status == 0
    assert drillcore.measure(work.store).labels == ("0", "1", "2")
    before = work.states()
    work.job["datasets"][0]["label_type"] = "number"
    work.save()
    ran = command(work, "run", "job.yaml")
    assert ran.status == 0 and "numbers with fractions" not in ran.err, ran.err
    assert drillcore.measure(work.store).metrics == ("r2",) and work.states() == before
    assert drillcore.open(work.store)["m/d"].label.values.tolist() == [k % 3 for k in range(60)]


def test_a_table_without_types_decides_by_all_of_its_rows(new_work):
    work = new_work(count=4)
    work.job["measure"] = {"permutations": 0}
    for name, values, kind in (
        ("numbers", ["1", "-0.5", "2e-1", "3"], "f"),
        ("halves", ["1.0", "2.0", "1.0", "2.0"], "O"),
        ("names", ["0.5", "1.5", "a", "2.5"], "O"),
    ):
        lines = [f"the river is {k},{value}" for k, value in enumerate(values)]
        (work.folder / "d.csv").write_text("text,label\n" + "\n".join(lines) + "\n", encoding="utf-8")
        work.job["datasets"] = [{"name": name, "path": "d.csv"}]
        work.job["store"] = f"{name}.zarr"
        work.save()
        assert work.run().status == 0
        label = zarr.open_group(work.folder / f"{name}.zarr", path=f"m/{name}", mode="r")["label"]
        assert np.asarray(label[:], object if kind == "O" else float).tolist() == (
            [float(v) for v in values] if kind == "f" else values
        )


def test_very_many_whole_numbers_are_said_to_be_perhaps_numbers(new_work):
    work = new_work(count=60)
    rows = scored(work)
    for k, row in enumerate(rows):
        row["label"] = k
    work.texts("d", rows)
    ran = work.run()
    assert ran.status == 0 and "`label: null` ignores it, `label_type: number` predicts it as a number" in ran.err


def test_extract_takes_numbers_as_labels(models):
    states = drillcore.extract(str(models()), ["Hello", "the river is"], labels=[0.5, 2.0])
    assert states.label.values.tolist() == [0.5, 2.0]
    states = drillcore.extract(str(models()), ["Hello", "the river is"], labels=[0.5, float("nan")])
    np.testing.assert_array_equal(states.label.values, [0.5, np.nan])

"""A dataset whose field says which rows the probe learns from and which it is tested on."""

from __future__ import annotations

import json

import numpy as np
import pytest
from sklearn.metrics import balanced_accuracy_score, roc_auc_score

import drillcore
from drillcore.measures.draws import make_draws
from drillcore.measures.probe import Probe
from drillcore.store.reader import open_dataset, read_layer

pytest_plugins = ["support.run_fixtures"]


def rows_of(work):
    return [json.loads(line) for line in (work.folder / "d.jsonl").read_text().splitlines()]


def with_split(work, **dataset):
    rows = rows_of(work)
    for k, row in enumerate(rows):
        row["part"] = "test" if k % 3 == 0 else "train"
    rows[1]["text"] = rows[0]["text"]
    work.texts("d", rows)
    work.job["datasets"] = [{"name": "d", "path": "d.jsonl", "split": "part", **dataset}]
    work.save()
    return rows


def test_a_split_is_measured_shown_drawn_and_kept_up_to_date(new_work):
    work = new_work(count=60, measure={"permutations": 19}, project={"method": "pca"})
    rows = with_split(work)
    first = work.forge.run("run", "job.yaml", cwd=work.folder)
    assert first.status == 0, first.err
    before, _, after = first.err.partition("extract: ")
    assert "d: 1 group has sentences on both sides of the split" in before
    assert "recall at 1 % false positives not measured: " in after
    assert "on 20 test rows" in first.err
    measures = drillcore.measure(work.store)
    assert measures.metrics[0] == "probe" and measures.metrics[-2:] == ("auroc", "recall_at_1_fpr")
    assert any("1 group has sentences on both sides" in note for note in measures.notes)
    group = open_dataset(str(work.store), "m/d")
    facts = dict(group.attrs)["results"]["separation"]
    assert facts["split"] == {"train": 40, "test": 20} and facts["positive"] == "Toronto"
    assert facts["skipped"]["recall_at_1_fpr"].endswith("at least 100 allow for 1 % of false positives")
    label, is_test = np.array([r["label"] for r in rows]), np.arange(60) % 3 == 0
    texts = [r["text"] for r in rows]
    draws = make_draws(label, texts, drillcore.Job.load(work.folder / "job.yaml").fields.measure, 60, is_test)
    for slot, layer in enumerate(sorted({row.layer for row in measures.rows})):
        states = read_layer(group, slot)
        if not np.ptp(states[~is_test], axis=0).any():
            continue
        margin = Probe(states, draws).margins(draws.codes_U[None].astype(np.int16))[0]
        found = {row.metric: row for row in measures.rows if row.layer == layer}
        said = np.where(margin > 0, "Toronto", "Montreal")
        assert found["probe"].value == pytest.approx(balanced_accuracy_score(label[is_test], said), abs=0.06)
        assert found["auroc"].value == pytest.approx(roc_auc_score(label[is_test], margin), abs=0.03)
    again = work.forge.run("run", "job.yaml", cwd=work.folder)
    assert "measures are up to date" in again.err and again.err.count("on both sides") == 1
    assert "not measured: m/d: recall_at_1_fpr: " in work.forge.run("show", str(work.store), cwd=work.folder).out
    page = (work.beside / "report.html").read_text(encoding="utf-8")
    assert "area under the ROC curve" in page and "Tested on a split" in page
    assert "at least 100 allow for 1 % of false positives" in page
    # Without it the store is measured anew, and the states stay.
    before = work.states()
    work.job["datasets"][0].pop("split")
    work.save()
    last = work.forge.run("run", "job.yaml", cwd=work.folder)
    assert last.status == 0 and "measures are up to date" not in last.err and work.states() == before
    assert "auroc" not in drillcore.measure(work.store).metrics


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({5: "dev"}, "d.jsonl:6: field `part` is `dev`; a split's rows are train or test"),
        ({7: None}, "d.jsonl:8: field `part` is null; a split's rows are train or test"),
        ({7: "gone"}, "d.jsonl:8: no field `part`"),
        (dict.fromkeys(range(40), "train"), "no row is test in the field `part`: a split needs rows of both kinds"),
    ],
)
def test_other_values_are_refused_with_file_and_line(new_work, change, said):
    work = new_work(count=40)
    rows = with_split(work)
    for k, value in change.items():
        rows[k]["part"] = value
        if value == "gone":
            del rows[k]["part"]
    work.texts("d", rows)
    refused = work.run()
    assert refused.status == 2 and said in refused.err and not work.store.exists(), refused.err


def test_the_field_must_be_one_of_its_own(new_work):
    work = new_work(count=20)
    with_split(work, label="part")
    refused = work.run()
    assert refused.status == 2 and "split: 'part' is the field of `label`; it needs one of its own" in refused.err

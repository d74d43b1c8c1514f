"""A dataset whose probe is tested on another dataset of the job."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.linear_model import Ridge
from sklearn.metrics import balanced_accuracy_score, r2_score, roc_auc_score

import drillcore
from drillcore.errors import InputError
from drillcore.store.layout import read_array
from drillcore.store.reader import open_dataset, read_layer
from support.runs import sentences

pytest_plugins = ["support.run_fixtures"]


def two(work, *, own=60, other=50, extra=None, **dataset):
    """Datasets a and b; the probe of a is tested on b."""
    rows = {"a": sentences(1, own), "b": sentences(2, other)}
    for name, each in rows.items():
        for k, row in enumerate(each):
            row["text"] = f"{row['label'] if k % 3 else 'the'} {row['text']} {name}"
        work.texts(name, each)
    work.job["datasets"] = [
        {"name": "a", "path": "a.jsonl", "split": {"test": "b"}, **dataset},
        {"name": "b", "path": "b.jsonl", **(extra or {})},
    ]
    work.save()
    return rows


def command(work, *words):
    return work.forge.run(*words, cwd=work.folder)


def done(work, *stages):
    for stage in stages:
        ran = command(work, stage, "job.yaml")
        assert ran.status == 0, ran.err
    return ran


def test_the_probe_of_one_is_tested_on_all_rows_of_the_other(new_work):
    work = new_work(measure={"permutations": 19}, project={"method": "pca"}, backend="transformers")
    rows = two(work)
    rows["b"][0]["text"] = rows["a"][0]["text"]
    work.texts("b", rows["b"])
    ran = done(work, "run")
    before, _, after = ran.err.partition("extract: ")
    assert "a: 1 group has sentences on both sides of the split" in before and "on 50 test rows of b" in after
    assert "recall at 1 % false positives not measured: " in ran.err
    group = open_dataset(str(work.store), "m/a")
    facts = dict(group.attrs)["results"]["separation"]
    assert facts["split"] == {"train": 60, "test": 50, "dataset": "b"} and facts["positive"] == "Toronto"
    measures = drillcore.measure(work.store, "m/a")
    assert measures.metrics == (*drillcore.measure(work.store, "m/b").metrics, "auroc", "recall_at_1_fpr")
    label = np.array([row["label"] for row in rows["b"]])
    weight, offset = read_array(group, "probe_weight"), read_array(group, "probe_offset")
    assert list(read_array(group, "probe_label")) == ["Montreal", "Toronto"]
    values = {(row.layer_name, row.metric): row.value for row in measures.rows}
    for slot, name in enumerate(map(str, read_array(group, "layer_name"))):
        if np.isnan(offset[slot]).any() or np.isnan(values[name, "probe"]):
            continue
        states = read_layer(open_dataset(str(work.store), "m/b"), slot)
        margin = states @ (weight[slot, 1] - weight[slot, 0]) + offset[slot, 1] - offset[slot, 0]
        said = np.where(margin > 0, "Toronto", "Montreal")
        assert values[name, "probe"] == pytest.approx(balanced_accuracy_score(label, said), abs=0.05)
        assert values[name, "auroc"] == pytest.approx(roc_auc_score(label, margin), abs=0.02)
    page = (work.beside / "report.html").read_text(encoding="utf-8")
    assert "ested on b" in page and "not measured: " in page
    shown = command(work, "show", str(work.store))
    assert "not measured: m/a: recall_at_1_fpr: " in shown.out
    again = done(work, "run")
    assert again.err.count("measures are up to date") == 2
    # What is not of the probe is of this dataset alone.
    alone = work.job["datasets"][0].pop("split")
    assert alone == {"test": "b"}
    work.save()
    states = work.states()
    done(work, "run")
    assert work.states() == states
    plain = {(row.layer_name, row.metric): row.value for row in drillcore.measure(work.store, "m/a").rows}
    for key, value in plain.items():
        if key[1] not in ("probe",):
            assert values[key] == pytest.approx(value, nan_ok=True), key


def test_it_is_measured_again_where_the_other_changes(new_work):
    work = new_work(measure={"permutations": 0, "metrics": ["probe"]})
    rows = two(work)
    work.job["extract"]["positions"] = ["last", "mean"]
    work.save()
    done(work, "extract", "measure")
    facts = dict(open_dataset(str(work.store), "m/a~mean").attrs)["results"]["separation"]
    assert facts["split"]["dataset"] == "b~mean"
    # The other grows: this one's states stay, and both of its groups are stale until they are measured again.
    work.texts("b", [*rows["b"], *sentences(3, 10)])
    states = {k: v for k, v in work.states().items() if k.startswith("m/a")}
    done(work, "extract")
    with pytest.raises(InputError, match="stale: it was tested on other states and label of b"):
        drillcore.measure(work.store, "m/a")
    shown = command(work, "show", str(work.store))
    assert "stale: m/a~mean: separation: it was tested on other" in shown.out
    done(work, "measure")
    assert {k: v for k, v in work.states().items() if k.startswith("m/a")} == states
    for name in ("a", "a~mean"):
        assert dict(open_dataset(str(work.store), f"m/{name}").attrs)["results"]["separation"]["split"]["test"] == 60
    assert command(work, "measure", "job.yaml").err.count("measures are up to date") == 4
    # It gets another name.
    moved = command(work, "mv", str(work.store), "m/b", "c")
    assert moved.status == 0, moved.err
    with pytest.raises(InputError, match="stale: b, which it was tested on, is gone"):
        drillcore.measure(work.store, "m/a")
    work.job["datasets"][1]["name"] = "c"
    work.job["datasets"][0]["split"] = {"test": "c"}
    work.save()
    assert "loading" not in done(work, "extract").err
    last = done(work, "measure")
    assert "on 60 test rows of c" in last.err and last.err.count("measures are up to date") == 2


def test_numbers_are_predicted_in_the_other(new_work, seed):
    work = new_work(measure={"permutations": 9}, backend="transformers")
    rows = two(work)
    rng = np.random.default_rng(seed)
    for name in "ab":
        for row in rows[name]:
            row["label"] = len(row["text"]) / 8 + float(rng.random())
        work.texts(name, rows[name])
    done(work, "extract", "measure")
    measures = drillcore.measure(work.store, "m/a")
    assert measures.metrics == ("r2",)
    train, test = ([row["label"] for row in rows[name]] for name in "ab")
    store = drillcore.open(work.store)
    row = measures.best()
    states = [store[f"m/{name}"].hidden_states.sel(layer=row.layer).values.astype(float) for name in "ab"]
    best = max(
        r2_score(test, Ridge(alpha=alpha).fit(states[0], train).predict(states[1]))
        for alpha in np.geomspace(1e-9, 1e3, 40)
    )
    assert row.value <= best + 0.02


@pytest.mark.parametrize(
    ("dataset", "extra", "said"),
    [
        ({"split": {"test": "a"}}, {}, "datasets: a: split: it is tested on another dataset, and names itself"),
        ({"split": {"test": "bb"}}, {}, "datasets: a: split: there is no dataset bb; did you mean `b`?"),
        ({}, {"split": "part"}, "datasets: a: split: b has a split of its own, by the field part"),
        ({"label": None}, {}, "datasets: a: split: a has no labels, which both need"),
        ({}, {"label": None}, "datasets: a: split: b has no labels, which both need"),
        ({}, {"template": "Say {text}"}, "m/a would be tested on m/b, whose sentences become tokens in another way"),
        ({"positions": ["last", "mean"]}, {}, "m/a~mean would be tested on m/b~mean, which the job does not have"),
        ({"branches": {"q": "{text} ?"}}, {}, "m/a~q would be tested on m/b~q, which the job does not have"),
        ({}, {"label": "text"}, "a and b have fewer than two labels in common: `Montreal`, `Toronto` there, `"),
    ],
)
def test_what_cannot_be_tested_is_refused(new_work, dataset, extra, said):
    work = new_work()
    two(work, extra=extra, **dataset)
    refused = work.run()
    assert refused.status == 2 and said in refused.err.replace("'", ""), refused.err
    assert not work.store.exists()


def test_labels_of_another_kind_are_refused_and_those_of_one_side_said(new_work):
    work = new_work(measure={"permutations": 0})
    rows = two(work)
    for k, row in enumerate(rows["b"]):
        row["label"] = k / 4
    work.texts("b", rows["b"])
    refused = work.run()
    assert refused.status == 2 and "the labels of a are classes, those of b numbers" in refused.err
    rows = two(work)
    rows["a"][3]["label"] = rows["a"][9]["label"] = "Quebec"
    rows["b"][5]["label"] = "Ottawa"
    for name in "ab":
        work.texts(name, rows[name])
    ran = done(work, "extract")
    assert "a: split: a has labels that b lacks: `Quebec`" in ran.err
    assert "a: split: b has labels that a lacks: `Ottawa`" in ran.err
    done(work, "measure")
    assert drillcore.measure(work.store, "m/a").labels == ("Montreal", "Toronto")


def test_unlabelled_rows_of_either_are_left_out(new_work):
    work = new_work(measure={"permutations": 0, "metrics": ["probe"]})
    rows = two(work, unlabelled="keep", extra={"unlabelled": "keep"})
    for k in range(6):
        rows["a"][k]["label"] = None
        rows["b"][k + 1]["label"] = None
    for name in "ab":
        work.texts(name, rows[name])
    done(work, "extract", "measure")
    facts = dict(open_dataset(str(work.store), "m/a").attrs)["results"]["separation"]
    assert facts["split"] == {"train": 54, "test": 44, "dataset": "b"} and facts["unlabelled"] == 6


def test_each_may_be_tested_on_the_other(new_work):
    work = new_work(measure={"permutations": 0, "metrics": ["probe"]})
    two(work, extra={"split": {"test": "a"}})
    done(work, "extract", "measure")
    for name, test in (("a", 50), ("b", 60)):
        assert dict(open_dataset(str(work.store), f"m/{name}").attrs)["results"]["separation"]["split"]["test"] == test

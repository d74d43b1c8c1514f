"""Several labels of a dataset, of which one is a number, with splits, templates and other datasets."""

from __future__ import annotations

import json
import random
import re

import numpy as np
import pytest
import zarr
from safetensors import safe_open

import drillcore
from support.runs import WORDS

pytest_plugins = ["support.run_fixtures"]
TEMPLATES = {"short": "{{ text }}", "long": "Say: {{ text }}"}
LABELS = ("city", "score")


def rows_of(seed, count=60, cities=("Toronto", "Montreal")):
    """Sentences whose last word says the city; their lengths tell of the score."""
    draw, rows = random.Random(seed), []
    for k in range(count):
        city, words = draw.choice(cities), [draw.choice(WORDS) for _ in range(1 + k % 6)]
        part = "test" if k % 3 == 0 else "train"
        rows.append({"text": f"{' '.join(words)} {k} {city}", "city": city, "score": len(words) + 0.25, "part": part})
    return rows


def command(work, *arguments, status=0):
    made = work.forge.run(*arguments, cwd=work.folder)
    assert made.status == status, made.err
    return made


def work_of(new_work, files, datasets, name="work"):
    work = new_work(name, measure={"permutations": 19}, project={"method": "pca"}, backend="transformers")
    for file, rows in files.items():
        work.texts(file, rows)
    work.job["datasets"] = datasets
    work.save()
    return work


def assert_as_alone(work, path, label, alone):
    """The measures by a label are those of a job that has no other."""
    one, two = drillcore.measure(work.store, path, label=label), drillcore.measure(alone.store, path)
    # Written, because a measure that was skipped is not equal to itself.
    assert repr(one.rows) == repr(two.rows)
    assert (one.labels, one.skipped, one.controls, one.notes) == (two.labels, two.skipped, two.controls, two.notes)


def meta_of(work):
    page = (work.beside / "report.html").read_text(encoding="utf-8")
    found = re.search(r'<script type="application/json" id="meta">(.*?)</script>', page, re.DOTALL)
    return json.loads(found[1])


def assert_drawn(work):
    """The answer, panels, curves and pictures are each of their own label."""
    meta = meta_of(work)
    assert [d["name"] for d in meta["datasets"]] == [f"d~{t} · {label}" for t in TEMPLATES for label in LABELS]
    question, *answers = meta["answer"]["words"]
    assert question == "Which layers of the model hold city and score?"
    assert [words.partition(": best of the 2 pairs")[0] for words in answers] == list(LABELS)
    assert "balanced accuracy" in answers[0] and "R² " in answers[1]
    assert meta["charts"][meta["answer"]["chart"]]["title"].startswith("Linear probe (primary) · city")
    assert meta["answer"]["panel"][0].endswith(" · city")
    # Each panel tells the figure of its own label, and the curves of a label lead to its panels.
    for dataset in meta["datasets"]:
        group, _, label = dataset["name"].partition(" · ")
        measures = drillcore.measure(work.store, f"m/{group}", label=label)
        values = [f"{r.value:.2f}" for r in measures.rows if r.metric == measures.primary and np.isfinite(r.value)]
        assert [p["figure"] for p in dataset["rows"][0]["panels"] if p["figure"]] == values and values
    titles = {"city": "Linear probe (primary) · city", "score": "Linear probe of numbers (primary) · score"}
    for label, title in titles.items():
        charts = [chart for chart in meta["charts"] if chart["title"].startswith(title)]
        shows = [tuple(series["shows"]) for chart in charts for series in chart["series"] if series["shows"]]
        assert sorted(shows) == sorted((f"d~{name} · {label}", "m") for name in TEMPLATES)
    pictures = {path.name for path in (work.beside / "pictures").glob("*.png")}
    names = (*(f"d~{name}" for name in TEMPLATES), "all-datasets", "curves")
    assert pictures == {f"m--{name}{end}.png" for name in names for end in ("", "~~score")}


def test_a_class_and_a_number_with_a_split_and_two_templates(new_work, seed, tmp_path):
    rows = rows_of(seed)
    settings = {"name": "d", "path": "d.jsonl", "templates": TEMPLATES, "split": "part"}
    work = work_of(new_work, {"d": rows}, [{**settings, "labels": list(LABELS)}])
    ran = command(work, "run", "job.yaml")
    assert "holds numbers with fractions: this label is a number, no class" in ran.err
    paths = [f"m/d~{name}" for name in TEMPLATES]
    for label in LABELS:
        alone = work_of(new_work, {"d": rows}, [{**settings, "label": label}], label)
        command(alone, "extract", "job.yaml")
        command(alone, "measure", "job.yaml")
        for path in paths:
            assert f"{path}, label {label}: 5 layers measured" in ran.err
            assert_as_alone(work, path, label, alone)
    found = {label: drillcore.measure(work.store, paths[0], label=label) for label in LABELS}
    assert found["city"].primary == "probe" and found["score"].metrics == ("r2",)
    facts = dict(zarr.open_group(work.store, path=paths[0], mode="r").attrs)["results"]
    assert facts["separation"]["split"] == facts["separation~score"]["split"] == {"train": 40, "test": 20}
    command(work, "verify", str(work.store))

    assert_drawn(work)
    shown = command(work, "show", str(work.store)).out
    assert re.search(r"m +d~short +city ", shown) and re.search(r"m +d~long +score ", shown)
    assert "not measured: m/d~short: score: dispersion, score: dispersion_centred, score: probe, " in shown
    file = tmp_path / "score.safetensors"
    drillcore.export(work.store, group=paths[1], to="probe", label="score", out=file)
    with safe_open(file, "numpy") as opened:
        said = opened.metadata()
        assert said["label"] == "score" and said["label_type"] == "number"
        np.testing.assert_array_equal(
            opened.get_tensor("weight")[-1],
            zarr.open_group(work.store, path=paths[1], mode="r")["probe_weight~score"][-1],
        )
    again = command(work, "run", "job.yaml")
    assert again.err.count("measures are up to date") == 4 and "0 drawn" in again.err

    # Rows that come to it.
    work.texts("d", [*rows, *rows_of(seed + 1, 15)])
    grown = command(work, "run", "job.yaml")
    assert grown.err.count("5 layers measured") == 4


def test_each_label_is_tested_on_the_label_of_its_name_in_the_other_dataset(new_work, seed):
    files = {"d": rows_of(seed), "e": rows_of(seed + 1, 30)}
    other = {"name": "e", "path": "e.jsonl"}
    d = {"name": "d", "path": "d.jsonl", "split": {"test": "e"}}
    # The main label there is another one.
    work = work_of(new_work, files, [{**d, "labels": ["city", "score"]}, {**other, "labels": ["score", "city"]}])
    ran = command(work, "run", "job.yaml")
    assert ran.err.count("on 30 test rows of e") == 2
    for label in LABELS:
        alone = work_of(new_work, files, [{**d, "label": label}, {**other, "label": label}], label)
        command(alone, "extract", "job.yaml")
        command(alone, "measure", "job.yaml")
        assert_as_alone(work, "m/d", label, alone)
    for row in files["e"]:
        row["city"] = "Montreal" if row["city"] == "Toronto" else "Toronto"
    work.texts("e", files["e"])
    command(work, "extract", "job.yaml")
    stale = {(g.path, s.name): s.why for g in drillcore.show(work.store).groups for s in g.stale}
    assert stale["m/d", "separation"] == "it was tested on other label of e"
    assert ("m/d", "separation~score") not in stale and ("m/e", "separation~city") in stale
    again = command(work, "run", "job.yaml")
    assert "m/d, label score: measures are up to date" in again.err and "m/d, label city: 5 layers" in again.err


def test_curves_lead_to_the_only_panels_where_another_coordinate_colours_them(new_work, seed):
    dataset = {"name": "d", "path": "d.jsonl", "labels": list(LABELS), "keep": ["part"]}
    work = work_of(new_work, {"d": rows_of(seed)}, [dataset])
    work.job["render"] = {"color": "part"}
    work.save()
    command(work, "run", "job.yaml")
    meta = meta_of(work)
    assert [d["name"] for d in meta["datasets"]] == ["d"] and meta["datasets"][0]["valueName"] == "part"
    assert {tuple(s["shows"]) for c in meta["charts"] for s in c["series"] if s["shows"]} == {("d", "m")}
    assert meta["charts"][meta["answer"]["chart"]]["title"] == "Linear probe (primary) · city"
    assert len(meta["answer"]["words"]) == 3 and "~~score" in "".join(
        path.name for path in (work.beside / "pictures").glob("*curves*")
    )


def test_a_store_with_labels_takes_another_and_keeps_its_measures(new_work, seed, tmp_path):
    parts = []
    for name in ("d", "e"):
        dataset = {"name": name, "path": f"{name}.jsonl", "labels": list(LABELS)}
        part = work_of(new_work, {name: rows_of(seed)}, [dataset], name)
        command(part, "extract", "job.yaml")
        command(part, "measure", "job.yaml")
        parts.append(part)
    whole = tmp_path / "whole.zarr"
    command(parts[0], "merge", *(str(part.store) for part in parts), "--into", str(whole))
    command(parts[0], "verify", str(whole))
    for part, name in zip(parts, ("d", "e"), strict=True):
        for label in LABELS:
            merged, own = (drillcore.measure(store, f"m/{name}", label=label) for store in (whole, part.store))
            assert merged.rows == own.rows
    command(parts[0], "mv", str(whole), "m/d", "f")
    assert drillcore.measure(whole, "m/f", label="score").metrics == ("r2",)
    removed = command(parts[0], "rm", str(whole), "m/e")
    assert "separation, separation~score\n" in removed.out


@pytest.mark.parametrize(
    ("own", "other", "said"),
    [
        ({"labels": ["city", "score"]}, {"label": "city"}, "e lacks the label 'score'"),
        ({"label": "city"}, {"labels": ["score", "part"]}, "e lacks the label 'city'"),
        ({"labels": ["score", "part"]}, {"labels": ["score", "city"]}, "e lacks the label 'part'"),
        (
            {"labels": ["part", "score"]},
            {"labels": ["part", "score"], "label_type": "classes"},
            "label score: the labels of d are numbers, those of e classes",
        ),
        (
            {"labels": ["city", "score"], "label_type": "number"},
            {"labels": ["city", "score"]},
            "labels that are numbers need a finite one; `label_type: auto` decides for each of `labels`",
        ),
        ({"labels": ["city", "~score"]}, {"labels": ["city", "~score"]}, "begins with ~, which separates"),
    ],
)
def test_labels_that_cannot_be_tested_are_refused_before_anything_is_written(new_work, seed, own, other, said):
    files = {"d": rows_of(seed, 12), "e": [{**row, "score": 1} for row in rows_of(seed + 1, 12)]}
    d = {"name": "d", "path": "d.jsonl", "split": {"test": "e"}, **own}
    work = work_of(new_work, files, [d, {"name": "e", "path": "e.jsonl", **other}])
    refused = command(work, "run", "job.yaml", status=2)
    assert said in refused.err and not work.store.exists()

"""A dataset with several labels: measures, pictures and report for each, and what changes when one comes or goes."""

from __future__ import annotations

import json
import random

import numpy as np
import pyarrow.parquet as pq
import pytest
import zarr
from safetensors import safe_open

import drillcore
from drillcore.errors import InputError
from drillcore.job.fields import Job
from drillcore.texts.rows import _digest
from support.runs import WORDS

pytest_plugins = ["support.run_fixtures"]
SETTINGS = {"measure": {"permutations": 19}, "project": {"method": "pca"}, "backend": "transformers"}


def rows_of(seed, count=60):
    """Sentences whose last word, and so their states, says the city and nothing of the kind."""
    draw, rows = random.Random(seed), []
    for k in range(count):
        city = ["Toronto", "Montreal"][k % 2]
        text = " ".join(draw.choice(WORDS) for _ in range(draw.randint(1, 5)))
        rows.append({"text": f"{text} {k} {city}", "city": city, "kind": draw.choice(["a", "b"]), "size": k % 3})
    return rows


def work_of(new_work, rows, name="work", *, file="d.jsonl", **dataset):
    work = new_work(name, **SETTINGS)
    work.texts("d", rows)
    work.job["datasets"] = [{"name": "d", "path": file, **dataset}]
    work.save()
    return work


def command(work, *arguments):
    made = work.forge.run(*arguments, cwd=work.folder)
    assert made.status == 0, made.err
    return made


def measured(work):
    command(work, "extract", "job.yaml")
    return command(work, "measure", "job.yaml")


def arrays_of(work, suffix="", path="m/d"):
    group = zarr.open_group(work.store, path=path, mode="r")
    names = ("metric", "separation", "probe_label", "probe_weight", "probe_offset", "probe_decision")
    return {name: group[name + suffix][...] for name in names}


def assert_same(these, those):
    assert these.keys() == those.keys()
    for name, values in these.items():
        np.testing.assert_array_equal(values, those[name], err_msg=name)


def test_each_label_is_measured_drawn_and_read_as_if_it_stood_alone(new_work, seed, tmp_path):
    rows = rows_of(seed)
    work = work_of(new_work, rows, labels=["city", "kind"], branches={"asked": "{text} is"})
    run = command(work, "run", "job.yaml")
    assert "m/d, label city: 5 layers measured" in run.err and "m/d, label kind: 5 layers measured" in run.err
    assert "m/d~asked, label kind: 5 layers measured" in run.err
    for name, suffix in (("city", ""), ("kind", "~kind")):
        alone = work_of(new_work, rows, name, label=name, branches={"asked": "{text} is"})
        measured(alone)
        for path in ("m/d", "m/d~asked"):
            assert_same(arrays_of(work, suffix, path), arrays_of(alone, "", path))
        one, facts = drillcore.measure(work.store, "m/d", label=name), drillcore.measure(alone.store, "m/d")
        assert (one.rows, one.labels, one.controls, one.notes) == (
            facts.rows,
            facts.labels,
            facts.controls,
            facts.notes,
        )
        assert one.label == name and facts.label == ""
    city, kind = (drillcore.measure(work.store, "m/d", label=name) for name in ("city", "kind"))
    assert city.best().value > 0.95 > 0.8 > kind.best().value
    assert drillcore.measure(work.store, "m/d") == city and "label kind" in repr(kind)
    group = drillcore.open(work.store)["m/d"].to_dataset()
    assert group["separation~kind"].dims == ("layer", "metric~kind", "bound") and "layer_cka~kind" not in group
    assert group["kind"].values.tolist() == [row["kind"] for row in rows]
    group.to_netcdf(tmp_path / "group.nc")

    shown = drillcore.show(work.store).groups[0]
    assert list(shown.by_label) == ["city", "kind"] and shown.by_label["city"] == shown.separation
    assert shown.by_label["kind"].best == kind.best().value
    assert shown.results == ("separation", "layer_cka", "pca", "separation~kind")
    lines = command(work, "show", str(work.store)).out.splitlines()
    curves = next(k for k, line in enumerate(lines) if "linear probe" in line)
    assert [line.split()[:3] for line in lines[curves + 1 :]] == [
        ["m", d, label] for d in ("d", "d~asked") for label in ("city", "kind")
    ]
    pictures = {path.name for path in (work.beside / "pictures").glob("*.png")}
    assert pictures == {
        f"m--{name}{suffix}.png" for name in ("d", "d~asked", "all-datasets", "curves") for suffix in ("", "~~kind")
    }
    page = (work.beside / "report.html").read_text(encoding="utf-8")
    for title in ("d · city", "d · kind", "d~asked · kind", "Linear probe (primary) · kind", "colour: kind"):
        assert title in page, title
    assert work.manifest["measures"]["m/d"]["by_label"]["kind"]["labels"] == ["a", "b"]
    again = command(work, "run", "job.yaml")
    assert "8 up to date" in again.err and again.err.count("measures are up to date") == 4
    command(work, "verify", str(work.store))
    # Without it, its pictures go; those of the main label stay, under the same names.
    work.job["datasets"][0]["labels"] = ["city"]
    work.save()
    command(work, "run", "job.yaml")
    assert {path.name for path in (work.beside / "pictures").glob("*.png")} == {n for n in pictures if "~~" not in n}
    page = (work.beside / "report.html").read_text(encoding="utf-8")
    assert "· kind" not in page and "colour: kind" not in page and "· city" not in page


def test_probes_tables_and_comparisons_are_of_the_label_that_is_named(new_work, seed, tmp_path):
    work = work_of(new_work, rows_of(seed), labels=["city", "kind"], branches={"asked": "{text} is"})
    measured(work)
    for label, names in (("city", ["Montreal", "Toronto"]), ("kind", ["a", "b"])):
        file = tmp_path / f"{label}.safetensors"
        command(
            work, *("export", str(work.store), "--group", "m/d", "--to", "probe", "--label", label, "--out", str(file))
        )
        with safe_open(file, "numpy") as opened:
            assert json.loads(opened.metadata()["labels"]) == names and opened.metadata()["label"] == label
    of_kind = arrays_of(work, "~kind")["probe_weight"]
    np.testing.assert_array_equal(safe_open(file, "numpy").get_tensor("weight")[-1], of_kind[-1])
    compared = command(work, "compare", str(work.store), "m/d", "m/d~asked", "--label", "kind", "--metric", "probe")
    assert compared.out.startswith("A = m/d, B = m/d~asked, label kind\n")
    difference = drillcore.compare(work.store, "m/d", "m/d~asked", ["probe"], label="kind").rows[-1]
    assert (
        difference.a
        == [r.value for r in drillcore.measure(work.store, "m/d", label="kind").rows if r.metric == "probe"][-1]
    )
    wrong = work.forge.run("compare", str(work.store), "m/d", "m/d~asked", "--label", "size", cwd=work.folder)
    assert wrong.status == 2 and "m/d has no label size beside others\n  It has city, kind." in wrong.err
    with pytest.raises(InputError, match="holds all labels, and one is named"):
        drillcore.export(work.store, group="m/d", layer=-1, to="parquet", out=tmp_path / "x.parquet", label="kind")


def test_a_label_that_is_added_renamed_reordered_or_removed_changes_no_state(new_work, seed):
    rows = rows_of(seed)
    work = work_of(new_work, rows, label="city")
    measured(work)
    states, city = work.states(), arrays_of(work)
    dataset = work.job["datasets"][0]
    del dataset["label"]
    dataset["labels"] = ["city", "kind", "size"]
    work.save()
    refused = work.forge.run("measure", "job.yaml", cwd=work.folder)
    assert refused.status == 2 and "holds other labels or kept columns" in refused.err
    added = measured(work)
    assert work.states() == states and "m/d, label city: measures are up to date" in added.err
    assert "m/d, label kind: 5 layers measured" in added.err and "m/d, label size: 5 layers measured" in added.err
    assert_same(arrays_of(work), city)
    kind, size = arrays_of(work, "~kind"), arrays_of(work, "~size")
    assert size["probe_label"].tolist() == ["0", "1", "2"]

    command(work, "mv", str(work.store), "m/d", "renamed")
    assert drillcore.measure(work.store, label="kind").label == "kind"
    command(work, "verify", str(work.store))
    command(work, "mv", str(work.store), "m/renamed", "d")

    dataset["labels"] = ["kind", "city"]
    work.save()
    command(work, "extract", "job.yaml")
    stale = {each.name: each.asked for each in drillcore.show(work.store).groups[0].stale}
    assert stale == {"layer_cka": True, "separation": True, "separation~kind": False, "separation~size": False}
    swapped = command(work, "measure", "job.yaml")
    assert (
        work.states() == states
        and "m/d: removed measures of labels beside the main one that left: kind, size" in swapped.err
    )
    assert_same(arrays_of(work), kind)
    assert_same(arrays_of(work, "~city"), city)

    dataset["labels"] = ["kind"]
    work.save()
    left = measured(work)
    assert (
        "m/d: measures are up to date" in left.err
        and "removed measures of labels beside the main one that left: city" in left.err
    )
    group = zarr.open_group(work.store, path="m/d", mode="r")
    assert not [name for name, _ in group.arrays() if "~" in name or name in ("city", "size")]
    assert drillcore.show(work.store).groups[0].by_label == {} and work.states() == states
    with pytest.raises(InputError, match="m/d has no label city beside others"):
        drillcore.measure(work.store, label="city")
    command(work, "verify", str(work.store))


def test_a_changed_label_makes_its_own_measures_stale_and_no_other(new_work, seed):
    rows = rows_of(seed)
    work = work_of(new_work, rows, labels=["city", "kind"])
    measured(work)
    for row in rows[:10]:
        row["kind"] = "b" if row["kind"] == "a" else "a"
    work.texts("d", rows)
    command(work, "extract", "job.yaml")
    with pytest.raises(InputError, match="its measures are stale: it was made from another kind"):
        drillcore.measure(work.store, label="kind")
    assert drillcore.measure(work.store, label="city").best().value > 0.95
    assert [(s.name, s.asked) for s in drillcore.show(work.store).groups[0].stale] == [("separation~kind", True)]
    command(work, "project", "job.yaml")
    drawn = work.forge.run("render", "job.yaml", cwd=work.folder)
    assert drawn.status == 2 and "m/d: separation~kind: it was made from another kind" in drawn.err
    plan = work.forge.run("plan", "job.yaml", "--no-calibrate", "--json", cwd=work.folder)
    assert json.loads(plan.out)["stages"]["measure"]["is_done"] is False
    again = command(work, "measure", "job.yaml")
    assert "label city: measures are up to date" in again.err and "label kind: 5 layers measured" in again.err
    # Rows that come to it make all of them anew.
    work.texts("d", [*rows, *rows_of(seed + 1, 20)])
    grown = measured(work)
    assert "label city: 5 layers measured" in grown.err and "label kind: 5 layers measured" in grown.err
    command(work, "verify", str(work.store))


def test_damage_of_one_label_is_found_and_made_again_alone(new_work, seed):
    work = work_of(new_work, rows_of(seed), labels=["city", "kind"])
    measured(work)
    whole, kind = arrays_of(work), arrays_of(work, "~kind")
    chunk = next(path for path in (work.store / "m/d/separation~kind/c").rglob("*") if path.is_file())
    chunk.write_bytes(chunk.read_bytes()[:-1] + b"x")
    # As a run that was killed while it wrote leaves it.
    (work.store / "m/d/probe_weight~gone").mkdir()
    (work.store / "m/d/probe_weight~gone/zarr.json").write_bytes(b"{}")
    found = work.forge.run("verify", str(work.store), cwd=work.folder)
    assert found.status == 1 and "separation~kind" in found.err + found.out
    command(work, "extract", "job.yaml")
    again = command(work, "measure", "job.yaml")
    assert "label city: measures are up to date" in again.err and "label kind: 5 layers measured" in again.err
    assert_same(arrays_of(work), whole)
    assert_same(arrays_of(work, "~kind"), kind)
    assert not (work.store / "m/d/probe_weight~gone").exists()
    command(work, "verify", str(work.store))


def test_every_place_of_a_sentence_is_measured_by_every_label(new_work, seed):
    rows = rows_of(seed)
    for row in rows[:5]:
        row["kind"] = ""
    work = work_of(new_work, rows, labels=["city", "kind"], unlabelled="keep", positions=["mean", {"last": 2}])
    measured(work)
    for path, count in (("m/d~mean", 55), ("m/d~last-2", 110)):
        results = dict(zarr.open_group(work.store, path=path, mode="r").attrs)["results"]
        assert results["separation~kind"]["labels"] == ["a", "b"] and results["separation"]["labels"][0] == "Montreal"
        assert results["probe_weight~kind"]["sentences"] == count
        assert drillcore.measure(work.store, path, label="kind").label == "kind"


def test_a_row_may_lack_one_label_and_have_another(new_work, seed, tmp_path):
    rows = rows_of(seed)
    for row in rows[:10]:
        row["kind"] = None
    del rows[11]["city"]
    rows[12]["size"] = "NA"
    settings = {"labels": ["city", "kind", "size"], "missing": ["NA"]}
    work = work_of(new_work, rows, **settings)
    refused = work.run()
    assert refused.status == 2 and not work.store.exists()
    assert "d.jsonl:1: field `kind` is null; `unlabelled: keep` or `drop` allows rows without a label" in refused.err
    assert "d.jsonl:12: no field `city`" in refused.err and "d.jsonl:13: field `size` is empty" in refused.err

    work = work_of(new_work, rows, "kept", unlabelled="keep", **settings)
    run = command(work, "extract", "job.yaml")
    command(work, "measure", "job.yaml")
    assert "d: 10 of 60 rows have no label in the field `kind`: drawn grey and left out of measures" in run.err
    results = dict(zarr.open_group(work.store, path="m/d", mode="r").attrs)["results"]
    assert [results[f"separation{s}"]["unlabelled"] for s in ("", "~kind", "~size")] == [1, 10, 1]
    for name, suffix in (("kind", "~kind"), ("city", "")):
        alone = work_of(new_work, rows, f"alone-{name}", label=name, unlabelled="keep")
        measured(alone)
        assert_same(arrays_of(work, suffix), arrays_of(alone))
    file = tmp_path / "d.parquet"
    drillcore.export(work.store, layer=-1, to="parquet", out=file)
    table = pq.read_table(file)
    assert table["kind"].to_pylist()[:11] == [None] * 10 + [rows[10]["kind"]] and table["label"].to_pylist()[11] is None

    work = work_of(new_work, rows, "dropped", unlabelled="drop", **settings)
    command(work, "extract", "job.yaml")
    kept = [k for k in range(10, 60) if k not in (11, 12)]
    assert drillcore.open(work.store)["m/d"].text.values.tolist() == [rows[k]["text"] for k in kept]
    for row in rows[10:]:
        row["city"] = None
    work.texts("d", rows)
    none = work.run()
    assert none.status == 2 and "no row has all of its labels (`unlabelled: drop`)" in none.err


def test_one_of_labels_alone_is_a_label():
    named = {"name": "d", "path": "d.jsonl"}
    one, same = (
        Job.model_validate({"models": ["./m"], "datasets": [{**named, **d}]})
        for d in ({"labels": ["city"]}, {"label": "city"})
    )
    assert one == same and one.model_dump() == same.model_dump()
    assert _digest([], ["x"], one.datasets[0]) == _digest([], ["x"], same.datasets[0])
    several = Job.model_validate({"models": ["./m"], "datasets": [{**named, "labels": ["city", "kind"]}]})
    assert Job.model_validate(several.model_dump(by_alias=True)) == several


@pytest.mark.parametrize(
    ("dataset", "said"),
    [
        ({"labels": ["city", "city"]}, "labels: names 'city' twice"),
        ({"labels": ["city", "text"]}, "labels: 'text' is the field of `text` too: name it in one of them"),
        ({"labels": ["city", "kind"], "group": "city"}, "labels: 'city' is the field of `group` too"),
        ({"labels": ["city", "kind"], "split": "kind"}, "labels: 'kind' is the field of `split` too"),
        ({"labels": ["city", "kind"], "keep": ["kind"]}, "labels: 'kind' is the field of `keep` too"),
        ({"labels": ["city", "kind"], "expected_next": "kind"}, "labels: 'kind' is the field of `expected_next` too"),
        ({"labels": ["city", "kind"], "label": "size"}, "labels: stands in place of `label`"),
        ({"labels": [f"l{k}" for k in range(21)]}, "labels: names 21 fields; at most 20 are measured"),
        ({"labels": ["city", "k" * 101]}, "is longer than 100 bytes, and names files"),
        ({"labels": "city"}, "labels: must be a list"),
        (
            {"labels": ["city", "kund"]},
            "no field `kund`; there is `text`, `city`, `kind`, `size`; did you mean `kind`?",
        ),
        ({"labels": ["city", "layer"]}, "labels: `layer` is a name that drillcore uses itself"),
        (
            {"label": "city", "keep": ["separation~kind"]},
            "keep: `separation~kind` is a name that drillcore uses itself",
        ),
        ({"labels": ["city", "list"]}, "field `list` must be a string, an integer or a boolean, and is a list"),
    ],
)
def test_what_cannot_be_is_refused_with_one_message(new_work, seed, dataset, said):
    rows = rows_of(seed, 20)
    if "list" in dataset.get("labels", ()):
        rows[3]["list"] = [1]
        rows = [{"list": "x", **row} for row in rows]
    work = work_of(new_work, rows, **dataset)
    refused = work.run()
    assert refused.status == 2 and said in refused.err and not work.store.exists(), refused.err

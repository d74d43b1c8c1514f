"""What the probe takes each sentence for, as the measure stage stores it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import zarr

import drillcore
from support.runs import sentences

pytest_plugins = ["support.run_fixtures"]
SETTINGS = {"measure": {"permutations": 9, "metrics": ["probe"]}, "backend": "transformers"}


def do(work: Any, *stages: str, first: str = "") -> Any:
    for stage in stages:
        command = work.forge.run(stage, "job.yaml", cwd=work.folder, first=first)
        assert command.status == 0, command.err
    return command


def results_of(work: Any, path: str = "m/d") -> dict[str, Any]:
    return dict(zarr.open_group(work.store, path=path, mode="r").attrs)["results"]


def assert_told(
    group: Any, facts: dict[str, Any], labels_N: np.ndarray, took_part_N: np.ndarray, label: str = ""
) -> None:
    """Balanced accuracy of the stored decisions is the stored measure, layer by layer."""
    ending = f"~{label}" if label else ""
    decided_LN, names = group[f"probe_decision{ending}"].values, facts[f"probe_decision{ending}"]["labels"]
    assert decided_LN.dtype == np.int16 and ((decided_LN >= 0) == took_part_N).all()
    measured = group[f"separation{ending}"].sel({f"metric{ending}": "probe"}, drop=True).sel(bound="value").values
    found = []
    for decided_N in decided_LN:
        said = np.array(names, object)[decided_N]
        found.append(np.mean([(said == name)[took_part_N & (labels_N == name)].mean() for name in names]))
    np.testing.assert_allclose(found, measured, atol=1e-6)
    assert len(set(measured.tolist())) > 1


def test_decisions_are_those_of_the_measure(new_work):
    """Of several labels, with sentences that have none; and the same where they are stored later."""
    work = new_work(count=60, **SETTINGS)
    rows = [{"text": r["text"], "city": r["label"], "kind": "abc"[i % 3]} for i, r in enumerate(sentences(1, 60))]
    for i in (0, 17, 59):
        rows[i]["city"] = ""
    work.texts("d", rows)
    work.job["datasets"][0] |= {"labels": ["city", "kind"], "unlabelled": "keep"}
    work.save()
    do(work, "extract", "measure")
    group, results = drillcore.open(work.store)["m/d"], results_of(work)
    city, kind = (np.array([row[name] for row in rows], object) for name in ("city", "kind"))
    assert_told(group, results, city, city != "")
    assert_told(group, results, kind, np.full(60, True), "kind")
    assert results["probe_decision"]["sentences"] == 57
    before = {name: group[name].values for name in ("probe_decision", "probe_decision~kind", "separation")}
    # As an older version leaves it: the measures, and no decisions.
    work.job["measure"]["seed"] = 4
    work.save()
    forget = "from drillcore.runtime.stages import measure\nmeasure.write_decisions = lambda *given: None\n"
    do(work, "measure", first=forget)
    with pytest.warns(UserWarning, match="stale"):
        assert "seed changed" in drillcore.open(work.store)["m/d"].probe_decision.attrs["stale"]
    assert do(work, "measure").err.count("measures are up to date") == 2
    now = results_of(work)
    assert now["probe_decision"]["made_from"] == now["separation"]["made_from"] != results["separation"]["made_from"]
    later = drillcore.open(work.store)["m/d"]
    assert_told(later, now, city, city != "")
    work.job["measure"]["seed"] = 0
    work.save()
    do(work, "measure", first=forget)
    do(work, "measure")
    for name, values in before.items():
        np.testing.assert_array_equal(drillcore.open(work.store)["m/d"][name].values, values)
    assert work.forge.run("verify", str(work.store), cwd=work.folder).status == 0


def test_of_a_split_the_test_rows_are_decided_about(new_work):
    work = new_work(count=60, **SETTINGS)
    rows = sentences(2, 60)
    sides = np.array(["train" if i % 3 else "test" for i in range(60)])
    for row, side in zip(rows, sides, strict=True):
        row["side"] = str(side)
    work.texts("d", rows)
    work.job["datasets"][0] |= {"split": "side"}
    work.save()
    do(work, "extract", "measure")
    group = drillcore.open(work.store)["m/d"]
    assert_told(group, results_of(work), group.label.values.astype(object), sides == "test")
    # Tested on another dataset, the probe decides about none of this one's sentences; those of the split go.
    work.job["datasets"] = [
        {"name": "d", "path": "d.jsonl", "split": {"test": "e"}},
        {"name": "e", "path": "e.jsonl"},
    ]
    work.texts("e", sentences(3, 40))
    work.save()
    do(work, "extract", "measure")
    assert "probe_decision" not in results_of(work) and "probe_decision" in results_of(work, "m/e")
    assert not (work.store / "m/d/probe_decision").exists()
    assert work.forge.run("verify", str(work.store), cwd=work.folder).status == 0


def test_numbers_and_states_that_are_all_the_same_have_none(new_work):
    work = new_work(count=40, **SETTINGS)
    work.texts("d", [{**row, "label": i / 7} for i, row in enumerate(sentences(4, 40))])
    work.job["datasets"].append({"name": "same", "path": "same.jsonl"})
    work.texts("same", [{"text": f"number {i} is", "label": "ab"[i % 2]} for i in range(40)])
    work.save()
    do(work, "extract", "measure")
    assert "probe_decision" not in results_of(work) and "separation" in results_of(work)
    # At layer 0 all sentences end in the same token.
    decided = drillcore.open(work.store)["m/same"].probe_decision.values
    assert (decided[0] == -1).all() and (decided[1:] >= 0).all()
    assert work.forge.run("verify", str(work.store), cwd=work.folder).status == 0


def test_a_store_that_grew_has_those_of_all_its_sentences(new_work):
    work = new_work(count=40, **SETTINGS)
    do(work, "extract", "measure")
    work.texts("d", [*sentences(0, 40), *sentences(9, 20)])
    do(work, "extract")
    assert "probe_decision" not in results_of(work) and not (work.store / "m/d/probe_decision").exists()
    do(work, "measure")
    group = drillcore.open(work.store)["m/d"]
    assert group.probe_decision.shape == (group.sizes["layer"], 60)
    assert_told(group, results_of(work), group.label.values.astype(object), np.full(60, True))

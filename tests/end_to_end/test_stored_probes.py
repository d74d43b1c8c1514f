"""Probes that the measure stage stores, and their file for other programs."""

from __future__ import annotations

import json

import numpy as np
import pytest
import zarr
from safetensors import safe_open
from safetensors.numpy import load_file
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.metrics import balanced_accuracy_score

import drillcore
from drillcore.errors import InputError, StoreError
from drillcore.job.stages import Measure
from drillcore.measures.draws import make_draws
from drillcore.measures.fitted import fitted_probe
from drillcore.measures.separation import measure_layer

pytest_plugins = ["support.run_fixtures"]


@pytest.mark.parametrize("standardise", ["center", "zscore", "none"])
@pytest.mark.parametrize(("num_labels", "num_rows"), [(2, 400), (4, 400), (3, 60)])
def test_a_probe_on_raw_states_says_what_the_measured_one_says(seed, standardise, num_labels, num_rows):
    """Of a split, on the test rows; with more dimensions than rows too, far from the origin."""
    rng = np.random.default_rng(seed)
    label, is_test = np.arange(num_rows) % num_labels, rng.random(num_rows) < 0.4
    states = rng.normal(size=(num_rows, 80)) * rng.uniform(0.1, 5, 80) + 50 * rng.normal(size=80)
    states = (states + 2 * rng.normal(size=(num_labels, 80))[label]).astype(np.float32)
    settings = Measure(permutations=0, metrics=("probe",), standardise=standardise)
    draws = make_draws(label, None, settings, num_rows, is_test)
    weight, offset = fitted_probe(states, settings, draws)
    assert weight.dtype == offset.dtype == np.float32 and weight.shape == (num_labels, 80)
    said = (states[is_test] @ weight.T + offset).argmax(axis=1)
    # One answer may turn on rounding.
    value = measure_layer(states, settings, draws)["probe"].value
    assert balanced_accuracy_score(label[is_test], said) == pytest.approx(value, abs=1.01 / is_test.sum() * num_labels)
    whole = fitted_probe(states, settings, make_draws(label, None, settings, num_rows))
    if num_rows == 400 and num_labels == 2:
        theirs = LinearDiscriminantAnalysis(priors=[0.5, 0.5]).fit(states, label).predict(states)
        assert ((states @ whole[0].T + whole[1]).argmax(axis=1) == theirs).mean() > 0.97


def test_they_are_stored_exported_and_fitted_where_an_older_version_left_none(new_work, tmp_path):
    work = new_work(count=60, measure={"permutations": 9, "metrics": ["probe"]}, backend="transformers")
    for stage in ("extract", "measure"):
        command = work.forge.run(stage, "job.yaml", cwd=work.folder)
        assert command.status == 0, command.err
    file = tmp_path / "probe.safetensors"
    export = work.forge.run("export", str(work.store), "--to", "probe", "--out", str(file), cwd=work.folder)
    assert export.status == 0, export.err
    tensors = load_file(file)
    with safe_open(file, "numpy") as opened:
        said = opened.metadata()
    assert json.loads(said["labels"]) == ["Montreal", "Toronto"] and said["drillcore"] == drillcore.__version__
    assert said["position"] == "last" and said["model"] == "m" and len(said["model_identity"]) == 64
    assert said["standardise"].startswith("center") and said["sentences"] == "60"
    numbers = json.loads(said["layers"])
    assert tensors["layer"].tolist() == numbers and tensors["weight"].shape[:2] == (len(numbers), 2)
    texts = [json.loads(line)["text"] for line in (work.folder / "d.jsonl").read_text().splitlines()]
    new = drillcore.extract(work.job["models"][0]["id"], texts)
    for k, name in enumerate(json.loads(said["layer_names"])):
        states = new.hidden_states.sel(layer=numbers[k]).values
        stored = drillcore.open(work.store)["m/d"].hidden_states.sel(layer=numbers[k]).values
        assert name == str(new.layer_name.sel(layer=numbers[k]).values)
        score = states @ tensors["weight"][k].T + tensors["offset"][k]
        other = stored @ tensors["weight"][k].T + tensors["offset"][k]
        np.testing.assert_allclose(score, other, atol=1e-3)
        margin = states @ tensors["direction"][k] - tensors["threshold"][k]
        np.testing.assert_allclose(margin, score[:, 1] - score[:, 0], atol=1e-3)
    one = drillcore.export(work.store, to="probe", layer=-1, out=tmp_path / "one.safetensors")
    assert load_file(one.path)["weight"].shape[0] == 1 and one.layer_name == "final_norm"
    with pytest.raises(InputError, match="holds one layer, and none is named"):
        drillcore.export(work.store, to="npy", out=tmp_path / "x.npy")
    # As an older version leaves it: the measures and no probe.
    before = dict(zarr.open_group(work.store, path="m/d", mode="r").attrs)["results"]
    forget = "from drillcore.runtime.stages import measure\nmeasure._fit_probes = lambda *given: None\n"
    work.job["measure"]["seed"] = 4
    work.save()
    assert work.forge.run("measure", "job.yaml", cwd=work.folder, first=forget).status == 0
    with pytest.raises(StoreError, match="stale: the job's seed changed") as caught:
        drillcore.export(work.store, to="probe", out=file)
    assert "drillcore measure" in caught.value.hint
    again = work.forge.run("measure", "job.yaml", cwd=work.folder)
    assert again.status == 0 and "measures are up to date" in again.err
    assert drillcore.export(work.store, to="probe", out=file).layer_name == "all"
    after = dict(zarr.open_group(work.store, path="m/d", mode="r").attrs)["results"]
    assert after["probe_weight"]["made_from"] != before["probe_weight"]["made_from"]
    assert work.forge.run("verify", str(work.store), cwd=work.folder).status == 0


def test_a_group_without_probes_says_why(new_work, tmp_path):
    work = new_work(count=40, measure={"permutations": 9, "metrics": ["purity"]})
    for stage in ("extract", "measure"):
        assert work.forge.run(stage, "job.yaml", cwd=work.folder).status == 0
    refused = work.forge.run(
        "export", str(work.store), "--to", "probe", "--out", str(tmp_path / "p.safetensors"), cwd=work.folder
    )
    assert refused.status == 2 and "holds no probes" in refused.err and not (tmp_path / "p.safetensors").exists()

"""What `run`, `show`, `measure`, `compare`, `export`, `verify` and `doctor` give, and what `--json` prints of it."""

from __future__ import annotations

import json
import math
import os
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml
import zarr

import drillcore
from drillcore.cli.main import main
from drillcore.cli.show import store_lines
from drillcore.errors import DamageError, InputError, JobError, RunError, StoreError
from drillcore.measures import METRICS
from drillcore.system.progress import Silent
from support.small_stores import small_job

pytest_plugins = ["support.small_store_fixtures"]


@pytest.fixture
def command(monkeypatch, capsys):
    """Run a command; returns its exit status, the JSON document that it printed, and what went to standard error."""

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["drillcore", *map(str, arguments)])
        status = 0
        try:
            main()
        except SystemExit as stop:
            status = stop.code
        out, err = capsys.readouterr()
        document = json.loads(out, parse_constant=lambda name: pytest.fail(f"{name} is no JSON")) if out else None
        return status, document, err

    return run


@pytest.fixture
def own_store(small_store, tmp_path):
    """A copy of the store with what lies beside it, to be changed."""
    shutil.copytree(small_store.parent, tmp_path / "runs")
    return tmp_path / "runs" / small_store.name


def as_json(value):
    return json.loads(json.dumps(value.to_dict(), allow_nan=False))


def test_a_run_says_where_everything_is(models, tmp_path):
    job = drillcore.Job.load(small_job(tmp_path, models()))
    first = drillcore.run(job, stages="extract")
    assert (first.report, first.pictures, list(first.seconds)) == (None, (), ["extract"])
    result = drillcore.run(job, stages=["render", "measure", "project"])
    assert list(result.seconds) == ["measure", "project", "render"] and result.job == job
    assert result.report == result.folder / "report.html" and result.report.exists()
    assert result.pictures and all(picture.suffix == ".png" and picture.exists() for picture in result.pictures)
    assert str(result) == os.fspath(result) == f"{result}" == result.store == str(tmp_path / "runs" / "job.zarr")
    assert Path(result).is_dir() and drillcore.open(result)["m/d"].sizes == result.open()["m/d"].sizes
    assert drillcore.show(result).job == "job" and drillcore.measure(result).group == "m/d"
    assert as_json(result)["report"] == str(result.report) and "job.zarr" in repr(result)
    assert "report.html" in result._repr_html_()


def test_a_mapping_and_a_file_run_alike(models, tmp_path, monkeypatch, capsys):
    file = small_job(tmp_path, models())
    heard = drillcore.run(file, stages=["extract"], limit=3, progress=True)
    assert "extract" in capsys.readouterr().err and drillcore.show(heard).groups[0].sentences == 3
    monkeypatch.chdir(tmp_path)
    value = drillcore.Job.load(file).to_dict()
    result = drillcore.run(value, set=["datasets.d.limit=2"], store="few.zarr", stages=["extract"])
    assert drillcore.show("few.zarr").groups[0].sentences == 2 and result.store == str(tmp_path / "few.zarr")
    assert capsys.readouterr() == ("", "")


def test_a_job_for_another_store_is_refused_before_anything_is_read(models, tmp_path):
    with pytest.raises(JobError, match="there is no stage"):
        drillcore.run(tmp_path / "missing.yaml", stages=["extrct"])


def test_show_and_its_json(small_store, command):
    shown = drillcore.show(small_store)
    by_path = {group.path: group for group in shown.groups}
    assert list(by_path) == ["m/d", "m/d~all", "m/d~last-3", "m/d~mean"]
    group = by_path["m/d"]
    assert (group.sentences, group.layers, group.hidden_size, group.complete) == (24, 5, 32, 1.0)
    assert group.audit.state == "passed" and "separation" in group.results and not group.stale
    assert math.isnan(group.separation.values[0]) and group.separation.best_layer.startswith(("block", "final"))
    status, document, err = command("show", small_store, "--json")
    assert (status, document, err) == (0, as_json(shown), "")
    assert document["groups"][0]["separation"]["values"][0] is None
    assert {*document} == {"store", "job", "format", "groups"}
    assert repr(shown).startswith(f"store {small_store}: job job\nm/d: 24 sentences, 5 layers of 32, 100%")
    assert "m/d~mean" in repr(shown) and shown._repr_html_().count("<tr>") == 5


def test_html_of_a_store_escapes_its_names(small_store):
    from dataclasses import replace

    assert "<script>" not in replace(drillcore.show(small_store), job="<script>")._repr_html_()


def test_measures_are_those_of_the_store(small_store):
    measures = drillcore.measure(small_store, "m/d")
    stored = zarr.open_group(small_store, path="m/d", mode="r")["separation"][:]
    table = measures.to_pandas()
    assert table.shape == (25, 9) and table.columns.tolist()[:4] == ["layer", "layer_name", "metric", "value"]
    np.testing.assert_array_equal(table.value.to_numpy().reshape(5, 5).astype(np.float32), stored[:, :, 0])
    np.testing.assert_array_equal(table.p.to_numpy().reshape(5, 5).astype(np.float32), stored[:, :, 5])
    probe, dispersion = (stored[:, i, 0] for i in (0, measures.metrics.index("dispersion")))
    assert measures.best().layer == int(np.nanargmax(probe))
    assert measures.best("dispersion").layer == int(np.nanargmin(dispersion))
    assert as_json(measures)["best"]["metric"] == "probe" and measures.best().layer_name in repr(measures)
    assert measures._repr_html_().count("<tr>") == 1 + 25 + len(measures.controls)
    with pytest.raises(InputError, match="no measure purty"):
        measures.best("purty")
    with pytest.raises(StoreError, match="several models or datasets"):
        drillcore.measure(small_store)


def test_measures_that_are_missing_or_stale_name_the_stage(own_store, models, tmp_path):
    with pytest.raises(InputError, match="m/d~all has not been measured") as missing:
        drillcore.measure(own_store, "m/d~all")
    assert "drillcore measure" in missing.value.hint
    folder = tmp_path / "changed"
    folder.mkdir()
    file = small_job(folder, models())
    store = drillcore.run(file, stages=["extract", "measure"])
    drillcore.run(file, set=["measure.seed=5"], stages=["extract"])
    with pytest.raises(InputError, match="its measures are stale: the job's seed changed"):
        drillcore.measure(store)


def test_compare_and_its_json(small_store, command, tmp_path):
    compared = drillcore.compare(small_store, "m/d", "m/d~mean", ["probe"])
    assert [row.metric for row in compared.rows] == ["probe"] * 5 and math.isnan(compared.rows[0].a)
    assert compared.to_pandas().shape == (5, 12) and compared.to_csv(tmp_path / "a.csv").read_text().count("\n") == 6
    arguments = ("compare", small_store, "m/d", "m/d~mean", "--metric", "probe", "--csv", tmp_path / "b.csv", "--json")
    status, document, err = command(*arguments)
    assert (status, document, err) == (0, as_json(compared), "") and document["rows"][0]["a"] is None
    assert (tmp_path / "a.csv").read_bytes() == (tmp_path / "b.csv").read_bytes()
    assert repr(compared).startswith("A = m/d, B = m/d~mean: ") and compared._repr_html_().count("<tr>") == 6
    status, document, err = command("compare", small_store, "m/d", "m/no", "--json")
    assert (status, document) == (2, None) and "the store has no m/no" in err


def test_export_gives_what_it_wrote(small_store, tmp_path):
    written = drillcore.export(small_store, layer=2, to="npy", out=tmp_path / "2.npy", group="m/d")
    states = drillcore.open(small_store)["m/d"].hidden_states.sel(layer=2)
    np.testing.assert_array_equal(np.load(written), states)
    assert (written.layer, written.layer_name, written.sentences) == (2, "block_2", 24)
    assert as_json(written)["path"] == str(tmp_path / "2.npy") and "layer block_2" in written._repr_html_()
    with pytest.raises(StoreError, match="there is no format csv"):
        drillcore.export(small_store, layer=2, to="csv", out=tmp_path / "2.csv", group="m/d")


def test_verify_and_its_json(own_store, command, tmp_path):
    verified = drillcore.verify(own_store)
    assert verified.whole and repr(verified) == f"store {own_store}: whole" and verified.note is None
    assert command("verify", own_store, "--json") == (0, as_json(verified), "")

    shard = own_store / "m" / "d" / "hidden_states" / "c" / "0" / "0" / "0"
    data = bytearray(shard.read_bytes())
    data[len(data) // 2] ^= 255
    shard.write_bytes(data)
    damaged = drillcore.verify(own_store)
    assert not damaged.whole and {f.group for f in damaged.findings} == {"m/d"} and damaged.note.exists()
    assert "drillcore run" in damaged.remedy and "hidden_states" in damaged._repr_html_()
    with pytest.raises(DamageError, match="findings"):
        damaged.check()
    status, document, err = command("verify", own_store, "--json")
    assert status == 1 and document == as_json(damaged) and "findings" in err
    assert document["whole"] is False and document["findings"][0]["array"] == "hidden_states"


def test_doctor_and_its_json(command, monkeypatch):
    from drillcore.api import doctor as module

    monkeypatch.setattr(module, "bfloat16_gain", lambda device: 1.0)
    parts = drillcore.doctor()
    assert parts["cpu"].present and len(parts) == len(list(parts)) and "browser: " in repr(parts)
    with pytest.raises(KeyError, match="gpus"):
        parts["gpus"]
    status, document, err = command("doctor", "--json")
    assert (status, document, err) == (0, as_json(parts), "") and document["parts"][0]["name"] == "cpu"
    assert "<td>cpu</td>" in parts._repr_html_()


def test_bench_json_keeps_its_words_to_standard_error(command, monkeypatch, tmp_path):
    from drillcore.cli.bench import run as module

    monkeypatch.setattr(module, "_measure", lambda case, settings: {"error": "no such model"})
    status, document, err = command(
        "bench", "./none", "--lengths", "uniform:2-3", "--out", tmp_path / "b.json", "--json"
    )
    assert status == 0 and document["out"] == str(tmp_path / "b.json") and "failed: no such model" in err
    assert document["rows"][0]["case"]["model"] == "./none" and document["rows"][0]["error"] == "no such model"


def test_pandas_that_is_missing_is_an_error_that_says_how_to_get_it(small_store, monkeypatch):
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(drillcore.errors.MissingExtraError) as missing:
        drillcore.measure(small_store, "m/d").to_pandas()
    assert missing.value.hint == "pip install 'drillcore[pictures]'"


@pytest.fixture(scope="module")
def told_by_words(models, tmp_path_factory):
    """A store whose labels stand in the texts: the words alone tell them apart."""
    folder = tmp_path_factory.mktemp("words")
    rows = [
        {"text": f"{'Toronto' if i % 2 else 'Montreal'} is a city, number {i}", "label": "tm"[i % 2]} for i in range(24)
    ]
    job = small_job(folder, models(), extract={"backend": "transformers", "threads": 1}, project={"method": "pca"})
    (folder / "d.jsonl").write_text("\n".join(map(json.dumps, [{**r, "source": "s"} for r in rows])), encoding="utf-8")
    heard = Heard()
    drillcore.run(job, stages=["extract", "measure"], progress=heard)
    return folder / "runs" / "job.zarr", heard.lines


class Heard(Silent):
    def __init__(self):
        self.lines = []

    def finish(self, summary):
        self.lines.append(summary)

    warn = finish


def test_what_needs_no_model_stands_beside_the_best_layer(told_by_words, command):
    store, lines = told_by_words
    (line,) = [line for line in lines if "layers measured" in line]
    assert "; linear probe best at " in line and "; without the model: last token and length " in line
    assert line.endswith(", TF-IDF 1.00")
    measures = drillcore.measure(store)
    by_name = {control.name: control for control in measures.controls}
    assert by_name["tfidf"].value == 1.0 and 0 < by_name["tfidf"].low <= 1 and by_name["tfidf"].p <= 0.2
    assert "TF-IDF 1.00" in repr(measures) and "control: tfidf" in measures._repr_html_()
    assert any("beats what needs no model" in note and "TF-IDF (1.00)" in note for note in measures.notes)
    shown = drillcore.show(store).groups[0].separation
    assert shown.controls["tfidf"] == 1.0
    _, document, _ = command("show", store, "--json")
    assert document["groups"][0]["separation"]["controls"] == dict(shown.controls)
    assert "TF-IDF 1.00" in "\n".join(store_lines(str(store)))


def test_controls_that_a_layer_beats_are_no_reason_for_a_note(small_store):
    measures = drillcore.measure(small_store, "m/d")
    best, highest = measures.best(), max(control.value for control in measures.controls)
    assert any("beats what needs no model" in note for note in measures.notes) == (highest >= best.value)


def test_compare_takes_what_both_have(small_store):
    compared = drillcore.compare(small_store, "m/d", "m/d~mean")
    assert tuple(dict.fromkeys(row.metric for row in compared.rows)) == tuple(METRICS)


def test_rows_and_sentences_are_told_apart(small_store, tmp_path):
    by_name = {group.dataset: group for group in drillcore.show(small_store).groups}
    assert (by_name["d"].sentences, by_name["d"].rows) == (24, 24)
    assert (by_name["d~last-3"].sentences, by_name["d~last-3"].rows) == (24, 72)
    assert "24 (72 rows)" in "\n".join(store_lines(str(small_store)))
    written = drillcore.export(small_store, group="m/d~last-3", layer=-1, to="npy", out=tmp_path / "a.npy")
    assert (written.sentences, written.rows, written.layer_name) == (24, 72, "final_norm")
    assert "72 rows of 24 sentences" in repr(written)


@pytest.mark.parametrize(("name", "to", "other"), [("a.npy", "parquet", "npy"), ("a.Parquet", "npy", "parquet")])
def test_a_file_that_ends_as_one_of_another_format_is_refused(small_store, tmp_path, name, to, other):
    with pytest.raises(InputError, match=f"ends as a file of the format {other}, and the format asked for is {to}"):
        drillcore.export(small_store, group="m/d", layer=0, to=to, out=tmp_path / name)
    assert not list(tmp_path.iterdir())


def test_a_group_that_was_removed_does_not_stop_a_stage_of_the_others(models, tmp_path):
    """The stage ended with a claim of damage, and so did every one after it."""
    positions = {"positions": ["last", "mean"], "backend": "transformers", "threads": 1}
    job = small_job(tmp_path, models(), extract=positions)
    (tmp_path / "d.jsonl").write_text(
        "\n".join(
            json.dumps({"text": f"river {i} is", "label": "ab"[i % 2], "source": "s", "n": " a"}) for i in range(8)
        ),
        encoding="utf-8",
    )
    value = yaml.safe_load(job.read_text())
    value["datasets"][0]["expected_next"] = "n"
    job.write_text(yaml.safe_dump(value))
    store = drillcore.run(job, stages=["extract", "measure", "predict"]).store
    assert drillcore.remove(store, "m/d~mean")
    for _ in range(2):
        drillcore.run(job, stages=["predict"])
        assert drillcore.verify(store).whole and [g.path for g in drillcore.show(store).groups] == ["m/d"]
    with pytest.raises(RunError, match="m/d~mean: its states are not extracted yet"):
        drillcore.run(job, stages=["measure"])
    drillcore.run(job, stages=["extract", "measure"])
    assert [g.path for g in drillcore.show(store).groups] == ["m/d", "m/d~mean"]


def test_rows_of_several_positions_are_said_to_be_measured_together(small_store):
    notes = drillcore.measure(small_store, "m/d~last-3").notes
    assert notes[0] == "the 72 rows of 24 sentences are measured together"
    assert not any("measured together" in note for note in drillcore.measure(small_store, "m/d").notes)


def test_a_run_says_the_notes_of_its_measures(told_by_words):
    store, lines = told_by_words
    (note,) = drillcore.measure(store).notes
    assert f"m/d: {note}" in lines

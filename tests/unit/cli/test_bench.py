"""`drillcore bench`: cases, rows, resuming, and what is reported when a case fails."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from drillcore.backends.base import all_states
from drillcore.backends.rates import matrix_products
from drillcore.backends.source import locate
from drillcore.cli.bench.case import warm_up_sentences
from drillcore.cli.bench.rows import rows_of
from drillcore.cli.bench.run import BenchCase, BenchSettings, make_cases, run_bench, table_of
from drillcore.cli.bench.scratch_job import make_job
from drillcore.cli.bench.texts import Lengths, encode, read_texts
from drillcore.errors import JobError, StoreError, TextError
from drillcore.job.extract import Extract
from drillcore.job.model import Model
from drillcore.runtime.work.tasks import ModelTask
from drillcore.runtime.work.worker import Worker
from drillcore.tokens.sequences import Sequences

# Whole benchmarks at toy size, in processes of their own.
pytestmark = pytest.mark.long


@pytest.mark.parametrize(
    "text", ["", "24", "fixed:", "fixed:0", "uniform:9-8", "uniform:0-4", "lognormal:24", "zipf:2"]
)
def test_a_length_distribution_that_cannot_be_read_is_named(text):
    with pytest.raises(JobError, match="is not understood") as caught:
        Lengths.parse(text)
    assert "uniform:8-64" in caught.value.hint


def test_lengths_are_as_stated(seed):
    fixed = Lengths.parse("fixed:7").sentences(50, 300, None, seed)
    assert set(fixed.lengths_N.tolist()) == {7}
    uniform = Lengths.parse("uniform:3-9").sentences(2000, 300, None, seed)
    assert set(uniform.lengths_N.tolist()) == set(range(3, 10))
    skewed = Lengths.parse("lognormal:40,0.5").sentences(4000, 300, 100, seed)
    assert 36 < np.median(skewed.lengths_N) < 44
    assert skewed.lengths_N.max() == 100 and skewed.lengths_N.min() >= 1
    assert skewed.ids_T.min() >= 0 and skewed.ids_T.max() < 300


def test_lengths_repeat_by_seed():
    lengths = Lengths.parse("uniform:3-9")
    assert np.array_equal(lengths.sentences(99, 300, None).ids_T, lengths.sentences(99, 300, None).ids_T)
    assert not np.array_equal(lengths.sentences(9, 300, None).ids_T, lengths.sentences(9, 300, None, 1).ids_T[:9])


def test_texts_are_read_and_encoded(models, tmp_path):
    rows = [{"body": "one"}, {"body": "three"}, {"body": "left out"}]
    path = tmp_path / "texts.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    texts = read_texts(path, "body", 2)
    assert texts == ["one", "three"]
    tokens, seconds = encode(locate(Model(id=str(models())), tmp_path), texts)
    # One token a byte, and one at the beginning.
    assert tokens.lengths_N.tolist() == [4, 6] and seconds > 0
    with pytest.raises(TextError, match="text"):
        read_texts(path, "text", None)


def test_cases_are_every_combination_once():
    cases = make_cases(["a", "b", "a"], ["transformers"], ["float32", "bfloat16"], [256, "auto"], random_weights=True)
    assert len(cases) == len(set(cases)) == 8
    assert BenchCase("b", "transformers", "bfloat16", 256, True) in cases


def sample(case: BenchCase, wall: float, rate: float = 1e9) -> dict:
    return {
        "case": case.__dict__,
        "repeat": 0,
        "num_sentences": 100,
        "num_tokens": 1000,
        "num_nodes": 600,
        "num_padding": 10,
        "wall_seconds": wall,
        "tokenize_seconds": 0.5,
        "load_seconds": wall * 10,
        "warm_seconds": 0.0,
        "stage_seconds": {"forward": wall / 2, "write": 0.25},
        "flops": 1e9,
        "matrix_flops_per_second": rate,
        "peak_host_bytes": int(wall * 100),
        "peak_device_bytes": 0,
    }


def test_rows_are_medians_of_their_own_samples():
    one, other = BenchCase("one"), BenchCase("other")
    samples = [sample(one, 2.0), sample(other, 50.0), sample(one, 4.0), sample(one, 10.0)]
    row, of_other, missing = rows_of([one, other, BenchCase("third")], samples, {other: "broke later"})
    assert row.num_samples == 3 and row.error == ""
    assert row.sentences_per_second == 25 and row.tokens_per_second == 250 and row.nodes_per_second == 150
    assert row.matrix_share == 0.25 and row.load_seconds == 40 and row.peak_host_bytes == 1000
    assert row.stage_shares == {"tokenize": 0.125, "forward": 0.5, "write": 0.0625}
    assert of_other.sentences_per_second == 2 and of_other.error == "broke later"
    assert missing.num_samples == 0 and missing.error == "not measured yet"
    headings, cells = table_of([row, of_other, missing])
    assert all(len(c) == len(headings) for c in cells)
    assert "25.0" in cells[0] and "25%" in cells[0] and "not measured yet" in cells[2]


def test_a_job_on_token_ids_commits_what_the_backend_computes(models, tmp_path, seed):
    source = locate(Model(id=str(models())), tmp_path)
    extract = Extract(backend="fake", shard_sentences=16)
    task = ModelTask(source.model, str(tmp_path), "fake", extract, (0, 1, 4), None, Sequences.of([]))
    tokens = Lengths.parse("uniform:1-9").sentences(70, 300, None, seed)
    worker = Worker()
    job = make_job(task, source.facts.num_layers, source.facts.hidden_size, tokens, tmp_path / "s.zarr", 32)
    times = job.run(worker)
    assert [b.num_sentences for b in times.blocks] == [32, 32, 6]
    assert times.num_nodes == len(tokens.ids_T) and times.num_padding == 0
    assert times.committed_bytes == 70 * 3 * source.facts.hidden_size * 4
    assert set(times.stage_seconds) >= {"plan", "forward", "write"}
    backend = worker.load(task)
    assert np.array_equal(job.states()[:], all_states(backend, tokens))
    worker.close()


def test_warming_up_meets_the_longest_and_the_shortest(seed):
    tokens = Lengths.parse("uniform:2-400").sentences(3000, 300, None, seed)
    warm = warm_up_sentences(tokens)
    assert len(warm) == 256
    assert warm.lengths_N.max() == tokens.lengths_N.max() and warm.lengths_N.min() == tokens.lengths_N.min()
    few = tokens.slice(0, 3)
    assert len(warm_up_sentences(few)) == 3


def settings(tmp_path: Path, **changes) -> BenchSettings:
    return BenchSettings(
        **{"lengths": "uniform:4-40", "num_sentences": 60, "repeats": 1, "scratch": tmp_path, **changes}
    )


def test_bench_measures_goes_on_and_keeps_settings_apart(models, tmp_path):
    cases = make_cases([str(models()), "./nowhere"], dtypes=["float32"], batch_tokens=[512])
    out, lines = tmp_path / "bench.json", list[str]()
    good, bad = run_bench(cases, settings(tmp_path), out, lines.append)
    assert good.error == "" and good.num_samples == 1 and good.num_sentences == 60
    assert good.num_tokens == int(Lengths.parse("uniform:4-40").sentences(60, 384, 512).lengths_N.sum())
    assert 0 < good.num_nodes <= good.num_tokens
    assert good.tokens_per_second == pytest.approx(good.sentences_per_second * good.num_tokens / 60)
    assert 0 < good.matrix_share < 1 and good.load_seconds > 0 and good.peak_host_bytes > 50 * 2**20
    assert {"plan", "forward", "write"} <= good.stage_shares.keys()
    assert "nowhere" in bad.error and "config.json" in bad.error and bad.num_samples == 0
    assert len(lines) == 2 and not list(tmp_path.glob("bench-*"))

    written = json.loads(out.read_text(encoding="utf-8"))
    assert written["samples"][0]["numerics"]["batch_nodes"] == 512 and written["samples"][0]["self_check"] < 1e-4
    assert [r["case"]["model"] for r in written["rows"]] == [str(models()), "./nowhere"]

    # Again: what is there stays as it is, only the case that failed is tried.
    again, _ = run_bench(cases, settings(tmp_path), out, lines.append)
    assert again == good and len(lines) == 3 and "nowhere" in lines[-1]

    before = out.read_bytes()
    with pytest.raises(StoreError, match=r"sentences was .*60.* and is .*61"):
        run_bench(cases, settings(tmp_path, num_sentences=61), out)
    assert out.read_bytes() == before


def test_a_strange_results_file_is_left_alone(tmp_path):
    out = tmp_path / "mine.json"
    out.write_text('{"important": true}', encoding="utf-8")
    with pytest.raises(StoreError, match="not a results file"):
        run_bench([BenchCase("x")], settings(tmp_path), out)
    assert out.read_text(encoding="utf-8") == '{"important": true}'


def test_sentences_must_come_from_somewhere(tmp_path):
    for wrong in ({"lengths": None}, {"texts": tmp_path / "a.txt"}, {"lengths": "long"}):
        with pytest.raises(JobError):
            run_bench([BenchCase("x")], settings(tmp_path, **wrong), tmp_path / "out.json")
    with pytest.raises(TextError, match=r"a\.txt"):
        run_bench([BenchCase("x")], settings(tmp_path, lengths=None, texts=tmp_path / "a.txt"), tmp_path / "out.json")
    assert not (tmp_path / "out.json").exists()


@pytest.mark.parametrize(
    ("script", "error"), [("kill -9 $$", "killed by SIGKILL"), ("echo dear me; exit 3", "dear me")]
)
def test_a_process_that_dies_is_a_row(tmp_path, monkeypatch, script, error):
    interpreter = tmp_path / "python"
    interpreter.write_text(f"#!/bin/sh\n{script}\n", encoding="utf-8")
    interpreter.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(interpreter))
    (row,) = run_bench([BenchCase("x")], settings(tmp_path, repeats=3), tmp_path / "out.json")
    assert error in row.error and row.num_samples == 0


def test_cases_take_turns_and_more_repeats_are_added(tmp_path, monkeypatch):
    answer = tmp_path / "answer.json"
    answer.write_text(json.dumps({"sample": sample(BenchCase("x"), 2.0)}), encoding="utf-8")
    interpreter = tmp_path / "python"
    interpreter.write_text(f'#!/bin/sh\ncp {answer} "$4"\n', encoding="utf-8")
    interpreter.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(interpreter))
    out, lines = tmp_path / "out.json", list[str]()
    for repeats in (2, 3):
        run_bench(make_cases(["a", "b"]), settings(tmp_path, repeats=repeats), out, lines.append)
    order = ["1/2  a", "1/2  b", "2/2  a", "2/2  b", "3/3  a", "3/3  b"]
    assert [line.split(",")[0] for line in lines] == order
    samples = json.loads(out.read_text(encoding="utf-8"))["samples"]
    assert [(s["case"]["model"], s["repeat"]) for s in samples] == [(m, r) for r in range(3) for m in "ab"]


def test_matrix_products_have_a_rate():
    rates = matrix_products("cpu", "float32", 2)
    assert len(rates) == 2 and all(rate > 1e8 for rate in rates)


def test_the_starting_process_stays_light():
    heavy = "('torch', 'transformers', 'zarr', 'vllm')"
    code = f"import sys, drillcore.cli.bench.run; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_streamed_weights_have_a_row_beside_the_backends(models, tmp_path):
    cases = make_cases([str(models())], backends=["transformers", "streamed"], dtypes=["float32"])
    resident, streamed = run_bench(cases, settings(tmp_path), tmp_path / "bench.json")
    assert (resident.error, streamed.error) == ("", "") and streamed.num_nodes == resident.num_nodes
    numerics = [s["numerics"] for s in json.loads((tmp_path / "bench.json").read_text(encoding="utf-8"))["samples"]]
    assert [n.get("weights") for n in numerics] == [None, "streamed"]

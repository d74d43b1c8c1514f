"""The project's own benchmarks: made-up sentences, peers, the summary, and a whole run on a tiny model."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from benchmarks.common import results
from benchmarks.peers import compare, made_texts, run, summary
from benchmarks.peers.plain import disagreement, states_alone
from benchmarks.peers.processes import PEERS, PEERS_PYTHON, AbsentError, Peer, VllmBare
from benchmarks.peers.workload import Text, make_texts
from conftest import require
from drillcore.backends.source import locate
from drillcore.job.model import Model
from drillcore.tokens.packs import build_packs
from drillcore.tokens.widths import PackRule

# Whole benchmarks at toy size, in processes of their own.
pytestmark = pytest.mark.long

ROOT = Path(__file__).resolve().parents[3]


def texts_of(folder: Path, scratch: Path, count: int = 12) -> list[Text]:
    return make_texts([], count, locate(Model(id=str(folder)), scratch), scratch)


@pytest.mark.parametrize("name", ["free", "templates"])
def test_made_up_sentences_repeat_and_grow(name):
    make = made_texts.TEXTS[name]
    assert make(300) == make(300)
    assert make(300)[:50] == make(50)
    assert len(make(301)) == 301
    assert len(set(make(300))) > 290


def test_free_text_shares_little_and_templates_much(models, tmp_path):
    shared = {}
    for text in texts_of(models(), tmp_path, 200):
        shared[text.name] = 1 - build_packs(text.tokens, PackRule(512)).num_nodes / len(text.tokens.ids_T)
    # Bytes share more than words do.
    assert shared["free"] < 0.15 and shared["templates"] > 0.5


def test_checked_sentences_are_of_all_lengths(models, tmp_path):
    for text in texts_of(models(), tmp_path, 200):
        lengths = text.tokens.lengths_N
        checked = lengths[text.checked]
        assert 16 <= len(text.checked) <= 20 and text.checked[:4] == [0, 1, 2, 3]
        assert checked.min() == lengths.min() and checked.max() == lengths.max()
        assert lengths.min() < np.median(checked) < lengths.max()


def test_disagreement_sees_a_wrong_state(seed):
    draw = np.random.default_rng(seed)
    want = draw.normal(size=(3, 4, 8))
    assert disagreement(want.astype(np.float32), want) < 1e-6
    for wrong, least in (
        (want[[1, 0, 2]], 0.1),
        (want * 1.01, 0.0099),
        (np.where(want == want.min(), np.nan, want), 1),
    ):
        assert not disagreement(wrong, want) < least


@pytest.mark.parametrize(
    "name",
    [
        "hf_loop",
        "hf_padded",
        pytest.param("transformer_lens", marks=pytest.mark.long),
        pytest.param("nnsight", marks=pytest.mark.long),
    ],
)
def test_a_peer_agrees_with_one_sentence_at_a_time(name, models, tmp_path):
    if PEERS[name][1] == PEERS_PYTHON and not PEERS_PYTHON.exists():
        require("peers", "make bench-peers")
    folder = models()
    (text, other) = texts_of(folder, tmp_path, 40)
    want = states_alone(str(folder), [text, other])
    peer = Peer(name, str(folder), 1, "float32", tmp_path)
    try:
        peer.start()
        assert peer.facts["load_seconds"] > 0 and peer.facts["versions"]["torch"]
        peer.warm(text)
        for each in (text, other):
            path = tmp_path / f"{each.name}.npy"
            assert peer.measure(each, path) > 0
            slots, states = peer.states(each, path)
            assert slots == list(range(len(each.checked)))
            assert disagreement(states, want[each.name]) < 1e-4
    finally:
        peer.close()


def test_a_peer_that_cannot_start_is_absent_with_its_reason(models, tmp_path, monkeypatch):
    text = texts_of(models(), tmp_path)[0]
    monkeypatch.setitem(PEERS, "lacking", ("no_such_adapter", Path(sys.executable), "make something"))
    monkeypatch.setitem(PEERS, "uninstalled", ("hf_loop", tmp_path / "python", "make something"))
    monkeypatch.setitem(PEERS, "silent", ("hf_loop", Path("/bin/false"), "make something"))
    for name, why in (("lacking", "no_such_adapter"), ("uninstalled", "make something"), ("silent", "process ended")):
        peer = Peer(name, str(models()), 1, "float32", tmp_path)
        with pytest.raises(AbsentError, match=why):
            peer.start()
        with pytest.raises(AbsentError):
            peer.measure(text)
        peer.close()
    peer = Peer("hf_loop", str(tmp_path / "no-model"), 1, "float32", tmp_path)
    with pytest.raises(AbsentError):
        peer.start()
    peer.close()


VLLM_SCRIPT = """
import argparse, json, sys
parser = argparse.ArgumentParser()
for name in ("model", "tokens", "out", "repeat", "states", "dtype"):
    parser.add_argument("--" + name)
{serve}
options = parser.parse_args()
print("starting up, not JSON")
if getattr(options, "serve", False):
    print(json.dumps({{"ready": True}}), flush=True)
    for number, line in enumerate(sys.stdin):
        print(json.dumps({{"seconds": float(number + 1)}}), flush=True)
else:
    json.dump({{"seconds": [9.0, 1.0, 2.0, 3.0]}}, open(options.out, "w"))
"""


@pytest.mark.parametrize("serves", [True, False])
def test_the_vllm_script_is_driven_line_by_line_or_all_at_once(serves, models, tmp_path, monkeypatch):
    text = texts_of(models(), tmp_path)[0]
    monkeypatch.setattr("benchmarks.peers.processes.HERE", tmp_path)
    monkeypatch.setitem(PEERS, "vllm_bare", ("vllm_bare", Path(sys.executable), "make test-vllm"))
    peer = VllmBare("vllm_bare", str(models()), 1, "float32", tmp_path)
    with pytest.raises(AbsentError, match="make test-vllm"):
        peer.start()
    (tmp_path / "adapters").mkdir()
    serve = 'parser.add_argument("--serve", action="store_true")' if serves else ""
    (tmp_path / "adapters" / "vllm_bare.py").write_text(VLLM_SCRIPT.format(serve=serve), encoding="utf-8")
    peer.start()
    peer.warm(text)
    measured = [peer.measure(text) for _ in range(3)]
    assert peer.states(text, tmp_path / "unused") == ([], None)
    np.save(tmp_path / f"vllm_bare-{text.name}-first.npy", np.arange(3.0))
    slots, states = peer.states(text, tmp_path / "unused")
    assert slots == [0, 1, 2] and states.tolist() == [0.0, 1.0, 2.0]
    peer.close()
    # The first one of each way is the warm-up.
    assert measured == ([2.0, 3.0, 4.0] if serves else [1.0, 2.0, 3.0])


def made_result(nodes: int = 900) -> dict:
    times = {
        **{step: [seconds] * 3 for step, seconds in (("tokenize", 0.1), ("pack", 0.1), ("write", 0.5))},
        **{"encode": [0.3] * 3, "disk": [0.4] * 3},
        "forward": [1.0, 2.0, 4.0],
        "job": [1.02, 2.2, 4.0],
        "hf_loop": [3.06, 4.4, 12.0],
    }
    facts = {"origin": "made up", "sentences": 100, "tokens": 1000, "nodes": nodes, "padding": 100}
    return {
        "facts": {**facts, "written": {"raw_bytes": 1000, "stored_bytes": 800, "sentences": 10}},
        "times": times,
        "matrix_flops_per_second": [2e12, 1e12, 5e11],
        "busy_cores": [0.0, 0.1, 0.2],
        "agreement": {"job": 2e-6, "hf_loop": 3e-6},
        "peers": {"hf_loop": {}, "vllm_bare": {"absent": "not installed"}},
    }


def test_ratios_are_taken_pair_by_pair():
    result = made_result()
    summary.summarize(result, 1_000_000_000)
    # 4.4 / 2.2 is 2, though the medians' quotient is that of other rounds.
    assert result["ratios"]["hf_loop / job"] == {"median": pytest.approx(3.0), "low": pytest.approx(2.0), "high": 3.0}
    assert result["ratios"]["job / forward"]["median"] == pytest.approx(1.02)
    shares = sorted([1.8e12 / 1.02 / 2e12, 1.8e12 / 2.2 / 1e12, 1.8e12 / 4.0 / 5e11])
    assert result["figures"]["job_flops_over_matrix_rate"]["median"] == pytest.approx(shares[1])
    assert result["figures"]["sentences_per_second"]["job"] == pytest.approx(100 / 2.2)
    assert result["figures"]["writer"]["bound_by"] == "disk"
    assert result["figures"]["writer"]["raw_bytes_per_second"] == 2000


def test_each_target_is_met_or_missed_or_not_measured():
    free, templated = made_result(nodes=990), made_result(nodes=450)
    for result in (free, templated):
        summary.summarize(result, 1_000_000_000)
    verdicts = {t["claim"]: (t["target"], t["met"]) for t in free["targets"]}
    assert verdicts["whole job over hf_loop"] == (">= 2.6", True)
    assert verdicts["whole job over vllm_bare"] == (">= 1", None)
    assert verdicts["whole job over hf_padded"] == (">= 1.2", None)
    assert verdicts["whole job over bare forward"] == ("<= 1.05", True)
    assert verdicts["agreement with one at a time in float32"] == ("<= 1e-05", True)
    verdicts = {t["claim"]: (t["target"], t["met"]) for t in templated["targets"]}
    assert verdicts["whole job over hf_loop"] == (">= 4.5", False)
    assert verdicts["model FLOPs over matrix-product rate"] == (">= 0.85", False)


def made_results(**changes) -> dict:
    result = made_result()
    summary.summarize(result, 1_000_000_000)
    return {
        "kind": compare.KIND,
        "git_commit": "abc",
        "hardware": {"cpu": "one", "instructions": "AVX"},
        "versions": {"torch": "1"},
        "parameters": {"model": "m", "dtype": "float32", "threads": 2},
        "numerics": {},
        "import_seconds": 1.0,
        "load_seconds": 2.0,
        "texts": {"free": result},
        **changes,
    }


def test_the_table_names_every_contender_and_target():
    printed = summary.table(made_results())
    for part in (
        "hf_loop",
        "vllm_bare is absent: not installed",
        "not measured",
        "3.00 (2.00 to 3.00)",
        "bound by disk",
    ):
        assert part in printed


def test_compare_prints_two_runs_side_by_side(tmp_path, capsys):
    a, b = tmp_path / "a.json", tmp_path / "b.json"
    a.write_text(json.dumps(made_results()), encoding="utf-8")
    other = made_results(git_commit="def", hardware={"cpu": "two", "instructions": "AVX"})
    other["texts"]["free"]["medians"]["job"] = 1.1
    del other["texts"]["free"]["medians"]["hf_loop"]
    other["texts"]["free"]["facts"]["sentences"] = 99
    other["texts"]["more"] = made_result()
    b.write_text(json.dumps(other), encoding="utf-8")
    assert compare.main([str(a), str(b)]) == 0
    printed = capsys.readouterr().out
    rows = [line.split() for line in printed.splitlines()]
    assert ["job", "2.200", "1.100", "2.00"] in rows
    assert ["hf_loop", "4.400", "absent"] in rows
    assert ["hardware.cpu", "one", "two"] in rows and ["commit", "abc", "def"] in rows
    assert "versions.torch" not in printed
    assert "NOT THE SAME SENTENCES" in printed and "more: in B only" in printed


def test_compare_refuses_files_without_results(tmp_path, capsys):
    wrong = tmp_path / "wrong.json"
    wrong.write_text("{}", encoding="utf-8")
    for paths in ([], [str(wrong), str(wrong)], [str(tmp_path / "nothing.json")] * 2):
        assert compare.main(paths) == 2
    assert "holds no results" in capsys.readouterr().err


def test_a_whole_run_on_a_tiny_model(models, tmp_path, monkeypatch):
    monkeypatch.setitem(PEERS, "transformer_lens", ("lens", tmp_path / "python", "make bench-peers"))
    texts = tmp_path / "own.txt"
    texts.write_text("\n".join(f"sentence number {i}" for i in range(40)), encoding="utf-8")
    options = argparse.Namespace(
        model=str(models()),
        texts=[texts],
        sentences=30,
        repeats=2,
        threads=1,
        quick=True,
        peers=["hf_padded", "transformer_lens"],
        scratch=tmp_path / "scratch",
    )
    facts = json.loads(json.dumps(results("benchmarks", options, run.run(options))))
    assert list(facts["texts"]) == ["own"]
    for result in facts["texts"].values():
        assert result["facts"]["sentences"] == 30 and result["facts"]["origin"] == "own.txt"
        assert all(len(result["times"][name]) == 2 for name in (*run.STEPS, "hf_padded"))
        assert result["agreement"]["job"] < 1e-4 and result["agreement"]["hf_padded"] < 1e-4
        assert result["peers"]["transformer_lens"]["absent"] == "not installed (make bench-peers)"
        assert 0 < result["facts"]["nodes"] <= result["facts"]["tokens"]
        assert 0 < result["figures"]["job_flops_over_matrix_rate"]["median"] < 1
    assert facts["parameters"]["threads"] == facts["numerics"]["threads"] == 1
    assert facts["kind"] == compare.KIND
    assert facts["hardware"]["cores"] >= 1 and facts["versions"]["torch"] and facts["git_commit"]
    assert not list(options.scratch.iterdir())
    assert "transformer_lens is absent" in summary.table(facts)


def test_wrong_arguments_end_with_status_2():
    for wrong in (
        ["--peers", "nobody"],
        ["--sentences", "0"],
        ["--repeats", "-1"],
        ["--model", "./nowhere", "--quick"],
    ):
        command = [sys.executable, "-m", "benchmarks.peers.run", "--quick", *wrong]
        done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=60)
        assert done.returncode == 2 and "Traceback" not in done.stderr, done.stderr

"""What the vLLM backend decides before vLLM is there: prompts, settings, refusals, shared rows, the environment."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path

import numpy as np
import pytest

from drillcore.api import doctor
from drillcore.backends import check_backend, numerics_hold, versions_of
from drillcore.backends.auto import AutoBackend, choose_backend
from drillcore.backends.lengths import LengthRules
from drillcore.backends.source import locate
from drillcore.backends.vllm.backend import VllmBackend, check_sentences
from drillcore.backends.vllm.engine import explain
from drillcore.backends.vllm.environment import worker_environment
from drillcore.backends.vllm.prompts import make_parts, num_computed
from drillcore.backends.vllm.refusals import refuse, vllm_version
from drillcore.backends.vllm.settings import check_memory, resolve_settings
from drillcore.backends.vllm.shared_rows import SharedRows
from drillcore.errors import JobError, MissingExtraError, ModelError, RunError
from drillcore.job.extract import Extract
from drillcore.job.model import Model
from drillcore.tokens.sequences import Sequences
from support.adapters import write_adapter
from support.checkpoints import copied
from support.ggufs import write_gguf
from support.plain import random_sentences
from support.runs import sentences, snapshot

pytest_plugins = ["support.run_fixtures"]
without_vllm = pytest.mark.skipif(importlib.util.find_spec("vllm") is not None, reason="vllm is installed")


@pytest.fixture
def source(models):
    return locate(Model(id=str(models())), Path("/"))


@pytest.mark.parametrize("max_prompts", [1, 7, 1000])
def test_parts_hold_each_distinct_sentence_once_and_map_it_back(seed, max_prompts):
    sentences = random_sentences(seed, 50, count=60)
    parts = make_parts(Sequences.of(sentences), max_prompts)
    prompts = [p for part in parts for p in part.prompts]
    assert prompts == sorted(prompts) and len({tuple(p) for p in prompts}) == len(prompts)
    assert all(len(part.prompts) <= max_prompts for part in parts)
    prompt_of = {int(i): part.prompts[r] for part in parts for i, r in zip(part.sentence_S, part.row_S, strict=True)}
    assert [prompt_of[i] for i in range(60)] == [s.tolist() for s in sentences]


def test_an_empty_block_has_no_parts():
    assert make_parts(Sequences.of([]), 4) == [] and num_computed([], 4) == 0


def test_whole_blocks_are_shared_and_never_a_last_token():
    block = Sequences.of([np.arange(8), np.arange(9), np.r_[np.arange(6), 40], [50]])
    parts = make_parts(block, 2)
    # Sorted: 8 tokens; the 9 that go on from them share 8, the 7 share 6, the lone token nothing.
    assert num_computed(parts, 4) == 25 - (8 + 4)
    assert num_computed(parts, 100) == 25


def test_settings_come_back_from_what_was_stored(source):
    extract = Extract(backend="vllm", dtype="float32", batch_tokens=64, threads=3)
    settings = resolve_settings(source, extract, None)
    assert (settings.batch_nodes, settings.max_sequences, settings.threads, settings.max_tokens) == (64, 64, 3, 512)
    stored = {**vars(settings), "kv_blocks": 12, "block_sentences": 512, "vllm": "0.32.0"}
    wanted = type(settings)(**{**vars(settings), "kv_blocks": 12})
    assert resolve_settings(source, Extract(backend="vllm"), stored) == wanted


def test_the_cache_on_a_cpu_is_the_users_or_holds_a_long_sentence(source, models, monkeypatch):
    monkeypatch.delenv("VLLM_CPU_KVCACHE_SPACE", raising=False)
    extract = Extract(backend="vllm", device="cpu", dtype="float32")
    assert resolve_settings(source, extract, None).kv_gib == 1
    wide = locate(Model(id=str(models(max_position_embeddings=10**6, hidden_size=256, head_dim=4096))), Path("/"))
    # 3 blocks x 2 heads x 4096 x keys and values x 4 bytes: 4,096 tokens take 768 MiB, a GiB holds 5,461.
    assert resolve_settings(wide, extract, None).max_tokens == 5461 // 32 * 32
    monkeypatch.setenv("VLLM_CPU_KVCACHE_SPACE", "3")
    assert resolve_settings(source, extract, None).kv_gib == 3


def test_positions_that_switch_are_kept_below_the_switch(models):
    scaling = {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 1e4, "original_max_position_embeddings": 100}
    folder = models(rope_parameters=scaling)
    assert resolve_settings(locate(Model(id=str(folder)), Path("/")), Extract(backend="vllm"), None).max_tokens == 100


@pytest.mark.parametrize(
    ("extract", "model", "reason"),
    [
        ({"layout": "packed"}, {}, "extract.layout"),
        ({"attention": "flex"}, {}, "extract.attention"),
        ({"device": "cuda:1"}, {}, "CUDA_VISIBLE_DEVICES"),
        ({"tensor_parallel": 3}, {}, "3 ranks cannot share 4 attention heads"),
        ({}, {"device_map": "auto"}, "device_map"),
        ({}, {"adapter": "lora"}, "the adapter of the model does not go with backend vllm: set merge_adapter: true"),
        ({"positions": ["last", "mean"]}, {}, "extract.positions does not go with backend vllm: vLLM gives the states"),
    ],
)
def test_what_vllm_cannot_do_is_refused(models, extract, model, reason, tmp_path):
    if "adapter" in model:
        model = {"adapter": str(write_adapter(models(), tmp_path / "lora", 0))}
    source = locate(Model(id=str(models()), **model), Path("/"))
    with pytest.raises(JobError, match=reason) as caught:
        refuse(source, Extract(backend="vllm", **extract))
    assert caught.value.hint


def test_a_gguf_file_is_refused(models, tmp_path):
    folder = copied(models(), tmp_path / "model")
    write_gguf(models(), folder / "m.gguf", "Q8_0")
    with pytest.raises(JobError, match="gguf_file does not go with backend vllm: name a folder"):
        refuse(locate(Model(id=str(folder), gguf_file="m.gguf"), Path("/")), Extract(backend="vllm"))


def test_the_message_of_too_little_memory_has_the_sizes(source):
    settings = resolve_settings(source, Extract(backend="vllm", device="cpu"), None)
    check_memory(source, settings, 10**6)
    with pytest.raises(RunError, match=r"931322\.6 GiB of weights"):
        check_memory(source, settings, 10**15)


def test_check_sentences_share_more_than_a_block_of_the_cache(source):
    settings = resolve_settings(source, Extract(backend="vllm"), None)
    sentences = check_sentences(Sequences.of([]), settings, 384, LengthRules())
    parts = make_parts(sentences, 100)
    assert num_computed(parts, settings.block_tokens) <= parts[0].num_tokens - 2 * settings.block_tokens


@without_vllm
def test_without_vllm_it_says_what_to_install_and_where(source):
    with pytest.raises(MissingExtraError, match="needs vllm, which is not installed") as caught:
        VllmBackend(source, Extract(backend="vllm"), (0,))
    assert "make vllm" in caught.value.hint and "drillcore[all,vllm]" in caught.value.hint
    (part,) = (p for p in doctor.parts() if p.name == "vllm")
    assert not part.present and caught.value.hint in part.remedy


@without_vllm
def test_without_vllm_transformers_shares_a_model_over_devices(source):
    choice = choose_backend(source, Extract(backend="auto", tensor_parallel=2, threads=2), (0,), Sequences.of([]))
    assert choice.backend == "transformers" and "vllm, which is not installed" in choice.reason


@without_vllm
def test_a_job_that_needs_vllm_is_refused_before_anything_is_written(new_work):
    work = new_work(count=20)
    work.job["extract"] |= {"backend": "vllm"}
    work.save()
    before = snapshot(work.folder)
    command = work.run()
    assert command.status == 2 and "vllm, which is not installed" in command.err, command.err
    assert "make vllm" in command.err and ".venv-vllm/bin/drillcore" in command.err
    assert "Traceback" not in command.err and snapshot(work.folder) == before


@pytest.fixture
def claims_vllm(tmp_path, monkeypatch):
    """Packages that say they are vLLM of some version, with nothing in them."""

    def claim(version: str) -> None:
        folder = tmp_path / f"vllm-{version}.dist-info"
        folder.mkdir()
        (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: vllm\nVersion: {version}\n", encoding="utf-8")
        monkeypatch.syspath_prepend(tmp_path)

    return claim


@pytest.mark.parametrize("version", ["0.19.1", "0.33.0", "1.0"])
def test_a_version_outside_the_tested_range_is_refused(source, claims_vllm, version):
    claims_vllm(version)
    for ask in (vllm_version, lambda: check_backend("vllm", source, Extract(backend="vllm"))):
        with pytest.raises(MissingExtraError, match=f"vllm {version} is outside the tested range") as caught:
            ask()
        assert "pip install 'vllm>=" in caught.value.hint
    (part,) = (p for p in doctor.parts() if p.name == "vllm")
    assert not part.present and "outside the tested range" in part.remedy


def test_a_system_without_shared_memory_of_that_kind_is_refused(source, claims_vllm, monkeypatch):
    claims_vllm("0.30.0")
    monkeypatch.delattr("os.memfd_create")
    with pytest.raises(JobError, match="only Linux has"):
        check_backend("vllm", source, Extract())


def test_what_vllm_cannot_do_is_found_before_anything_is_written(source, claims_vllm):
    claims_vllm("0.32.0")
    check_backend("vllm", source, Extract(backend="vllm"))
    with pytest.raises(JobError, match="3 ranks"):
        check_backend("auto", source, Extract(backend="auto", tensor_parallel=3))
    choice = choose_backend(source, Extract(backend="auto", tensor_parallel=2), (0,), Sequences.of([]))
    assert choice.backend == "vllm"
    check_backend("auto", source, Extract(backend="auto", layout="packed"))
    check_backend("transformers", source, Extract(backend="transformers", layout="packed"))


def test_stored_numerics_hold_for_the_vllm_that_made_them(claims_vllm):
    assert "vllm" in versions_of("vllm") or numerics_hold("vllm", {"vllm": "0.31.0"})
    claims_vllm("0.32.0")
    assert versions_of("vllm")["vllm"] == "0.32.0"
    assert numerics_hold("vllm", {"vllm": "0.32.0"}) and not numerics_hold("vllm", {"vllm": "0.31.0"})
    assert not numerics_hold("auto", {"backend": "vllm", "vllm": "0.31.0"})
    # Nothing of vLLM decides what transformers computed.
    assert numerics_hold("auto", {"backend": "transformers", "layout": "packed"})
    assert numerics_hold("transformers", {"layout": "packed"})


@without_vllm
def test_auto_without_vllm_takes_transformers_and_says_why(new_work):
    """The reason is in the manifest, also where a later run finds all done, and the numerics name the backend."""
    work = new_work(count=40, backend="auto")
    first = work.finish()
    assert "m: backend transformers, since backend vllm needs vllm" in first.err

    def check():
        facts = work.manifest["models"]["m"]["backend"]
        assert facts["backend"] == "transformers" and "vllm, which is not installed" in facts["reason"]

    check()
    assert work.manifest["models"]["m"]["numerics"]["backend"] == "transformers"
    before = work.states()
    work.texts("d2", sentences(1, 20))
    work.job["datasets"].append({"name": "d2", "path": "d2.jsonl"})
    work.save()
    # One run that loads the model again, and one that has nothing to do; neither knows the first one's manifest.
    for _ in range(2):
        (work.beside / "manifest.json").unlink()
        again = work.finish()
        assert "m: backend" not in again.err
        check()
    assert before.items() <= work.states().items()


@without_vllm
def test_auto_takes_transformers_where_vllm_does_not_start(source, claims_vllm, seed):
    claims_vllm("0.32.0")
    choice = choose_backend(
        source, Extract(backend="auto"), (0, 3), Sequences.of(random_sentences(seed, 384, count=10))
    )
    assert choice.backend == "transformers" and "vLLM could not start" in choice.reason
    by_job = choose_backend(source, Extract(backend="auto", layout="packed"), (0, 3), Sequences.of([]))
    assert by_job.backend == "transformers" and "extract.layout does not go with backend vllm" in by_job.reason


def test_stored_numerics_decide_for_auto(source, seed):
    sentences = Sequences.of(random_sentences(seed, 384, count=10))
    backend = AutoBackend(source, Extract(backend="auto"), (0, 3))
    with pytest.raises(RunError, match="no backend is chosen yet"):
        backend.lay_out(sentences)
    prepared = backend.prepare(sentences, {"backend": "fake", "layout": "fake", "block_sentences": 32})
    assert prepared.numerics["backend"] == "fake" and not prepared.choice
    assert sum(len(part.sentence_S) for part in backend.run(backend.lay_out(sentences))) == 10
    backend.close()


def test_shared_rows_are_seen_by_another_mapping_and_leave_no_file(seed):
    ours = SharedRows.create(5, 3, 7, "float16")
    theirs = SharedRows(ours.file)
    ours.settled()
    assert not Path(ours.file.path).exists()
    values = np.random.default_rng(seed).normal(size=(2, 3, 7)).astype(np.float16)
    theirs.values_CKH[[4, 0]], theirs.absmax_CK[[4, 0]] = values, np.abs(values).max(-1)
    np.testing.assert_array_equal(ours.values_CKH[[4, 0]], values)
    np.testing.assert_array_equal(ours.absmax_CK[[4, 0]], np.abs(values).max(-1).astype(np.float32))
    assert not ours.values_CKH[1:4].any()


def test_no_room_for_rows_is_an_error_with_a_remedy():
    with pytest.raises(RunError, match="no room") as caught:
        SharedRows.create(10**6, 10**4, 10**4, "float32")
    assert "fewer layers" in caught.value.hint


def test_the_environment_is_restored(monkeypatch, capfd):
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    monkeypatch.delenv("VLLM_LOGGING_LEVEL", raising=False)
    monkeypatch.delenv("VLLM_CPU_KVCACHE_SPACE", raising=False)
    with worker_environment(2, 1):
        assert (os.environ["OMP_NUM_THREADS"], os.environ["VLLM_CPU_KVCACHE_SPACE"]) == ("2", "1")
        os.write(2, b"hidden")
    assert os.environ["OMP_NUM_THREADS"] == "7" and "VLLM_CPU_KVCACHE_SPACE" not in os.environ
    os.write(2, b"seen")
    assert capfd.readouterr().err == "seen"


@pytest.mark.parametrize(
    ("message", "kind", "words"),
    [
        ("1 validation error\nModel architectures ['X'] are not supported for now.", ModelError, "architecture of m"),
        ("XForCausalLM has no vLLM implementation and ...", ModelError, "architecture of m"),
        ("No available memory for the cache blocks.", RunError, "too little memory for m"),
        ("4.0 GiB KV cache is needed, which is larger than the available 1.0 GiB", RunError, "too little memory"),
        ("torch.OutOfMemoryError: CUDA out of memory.", RunError, "too little memory"),
        ("'_C' object has no attribute 'init_cpu_memory_env'", RunError, "could not start m: '_C' object"),
        ("", RunError, "could not start m: RuntimeError"),
    ],
)
def test_errors_of_vllm_become_a_plain_sentence_with_a_remedy(message, kind, words):
    error = explain("m", RuntimeError(message))
    assert type(error) is kind and words in str(error) and error.hint

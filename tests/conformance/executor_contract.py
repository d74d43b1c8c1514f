"""What every executor must do; a suite for one inherits from this and says how to run a job on it.

The fixture `settings` is the `run` section of a job.
"""

from __future__ import annotations

import json
import random
import secrets
import shutil
from pathlib import Path

import numpy as np
import pytest
import zarr

from drillcore.errors import DrillcoreError, StoreError
from drillcore.job.extract import Extract
from drillcore.job.fields import Job, LoadedJob
from drillcore.job.stages import Run
from drillcore.runtime.executors import EXECUTORS
from drillcore.runtime.runner import run_stages
from drillcore.store.places.location import Location
from drillcore.system.files import digest
from drillcore.system.progress import tell, telling
from drillcore.system.registry import load_by_name
from support.records import as_written

WORDS = [
    "the",
    "quick",
    "brown",
    "fox",
    "jumps",
    "over",
    "a",
    "lazy",
    "dog",
    "in",
    "Toronto",
    "and",
    "another",
    "one",
    "in",
    "Montreal",
    "sleeps",
]
EXTRACT = {"threads": 1, "shard_sentences": 64, "block_sentences": 128}


class Listener:
    """A reporter that keeps what it hears."""

    def __init__(self, on_advance=lambda count: None) -> None:
        self.lines, self.total, self.done, self.on_advance = [], 0, 0, on_advance

    def start(self, stage, total, unit) -> None:
        self.total, self.done = total, 0

    def advance(self, count) -> None:
        self.done += count
        self.on_advance(count)

    def finish(self, summary) -> None:
        self.lines.append(summary)

    def say(self, message) -> None:
        self.lines.append(message)

    warn = say


class Bench:
    """A folder with texts, models and stores, and jobs run in it."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.folder, self.draw = folder, random.Random(seed)

    @classmethod
    def drawn(cls, folder: Path) -> Bench:
        """One with texts of a new seed, which a test that fails shows."""
        seed = secrets.randbits(32)
        print(f"seed of the texts: {seed}")
        return cls(folder, seed)

    def texts(self, name: str, count: int, longest: int = 12) -> dict[str, str]:
        """A dataset of random sentences that share prefixes."""
        path = self.folder / f"{name}.jsonl"
        with path.open("w", encoding="utf-8") as stream:
            for _ in range(count):
                words = self.draw.choices(WORDS, k=self.draw.randint(1, longest))
                stream.write(json.dumps({"text": " ".join(words)}) + "\n")
        return {"name": name, "path": str(path)}

    def run(self, store: str, models, datasets, settings, listener=None, **extract) -> tuple[Listener, dict]:
        """Extract, in this process; returns what was said and the manifest. Raises what the run raises."""
        listener = listener or Listener()
        job = Job.model_validate(
            {
                "name": "executors",
                "store": str(self.folder / f"{store}.zarr"),
                "models": models,
                "datasets": datasets,
                "extract": EXTRACT | extract,
                "run": settings,
            }
        )
        run_stages(LoadedJob(job=job, base=self.folder, source="job.yaml"), ("extract",), listener)
        return listener, self.manifest(store)

    def manifest(self, store: str) -> dict:
        return json.loads((self.folder / store / "manifest.json").read_text(encoding="utf-8"))

    def committed(self, store: str) -> dict[str, bytes]:
        """Every file of hidden states, fingerprints and largest magnitudes, byte by byte."""
        root = self.folder / f"{store}.zarr"
        names = ("hidden_states", "shard_fingerprint", "layer_absmax")
        return {str(p.relative_to(root)): p.read_bytes() for n in names for p in root.rglob(f"{n}/**/*") if p.is_file()}


def same_bytes(one: dict[str, bytes], other: dict[str, bytes]) -> bool:
    """Whether two stores hold the same; says where they differ."""
    differing = sorted(n for n in one.keys() | other.keys() if one.get(n) != other.get(n))
    print("files:", len(one), "differing:", differing[:5])
    return len(one) > 0 and not differing


@pytest.fixture
def bench(tmp_path, seed) -> Bench:
    return Bench(tmp_path, seed)


@pytest.fixture(scope="module")
def plain(tmp_path_factory, models):
    """Models, datasets, and the bytes that one process gives."""
    seed = secrets.randbits(32)
    print(f"seed of the texts: {seed}")
    bench = Bench(tmp_path_factory.mktemp("plain"), seed)
    wanted = [{"id": str(models(kind)), "as": kind} for kind in ("llama", "gpt2", "qwen2")]
    datasets = [bench.texts("d0", 150), bench.texts("d1", 320)]
    bench.run("plain", wanted, datasets, {"executor": "local"})
    return wanted, datasets, bench.committed("plain")


class ExecutorContract:
    @pytest.fixture
    def executor(self, settings):
        run = Run.model_validate(settings)
        made = load_by_name("executor", run.executor, EXECUTORS)(run, Extract(threads=1), print)
        yield made
        made.close()

    def test_a_sweep_gives_the_bytes_of_one_process(self, settings, bench, plain):
        """Also: one display for all, each model loaded at most once by each worker, nothing to do the second time."""
        wanted, datasets, expected = plain
        heard, manifest = bench.run("swept", wanted, datasets, settings)
        assert same_bytes(bench.committed("swept"), expected)
        assert heard.done == heard.total == 3 * (150 + 320)
        assert manifest["status"] == "done" and manifest["executor"]["executor"] == settings["executor"]
        assert set(manifest["models"]) == {m["as"] for m in wanted}
        for worker in manifest["executor"].get("workers", []):
            assert len(worker["loads"]) == len(set(worker["loads"]))
        again, _ = bench.run("swept", wanted, datasets, settings)
        assert sum("up to date" in line for line in again.lines) == 3 and again.done == 0

    def test_positions_and_branches_have_the_bytes_of_one_process(self, settings, bench, models):
        """Groups of one block are filled by one worker, and progress counts each sentence once."""
        wanted = [{"id": str(models(kind)), "as": kind} for kind in ("llama", "qwen2")]
        positions = ["last", {"last": 3}, {"mean": {}}]
        branched = {**bench.texts("d", 300), "branches": {"q": "{text} Why?"}}
        datasets = [branched, {**bench.texts("e", 150), "positions": ["last", {"after": "a", "name": "a"}]}]
        (bench.folder / "e.jsonl").write_text(
            "".join(json.dumps({"text": f"{i} a {i % 7}"}) + "\n" for i in range(150)), encoding="utf-8"
        )
        bench.run("one", wanted, datasets, {"executor": "local"}, positions=positions)
        heard, manifest = bench.run("many", wanted, datasets, settings, positions=positions)
        assert same_bytes(bench.committed("many"), bench.committed("one"))
        assert heard.done == heard.total == 2 * (2 * 300 + 150)
        assert all(facts["audit"]["passed"] for facts in manifest["models"].values())

    def test_what_fails_is_set_aside_and_named(self, settings, bench, models, tmp_path):
        """A model that fails its check, a block whose states do not fit: all else is kept, and comes out the same."""
        broken = not_a_number(models("qwen2"), tmp_path / "broken")
        loud = louder(models("llama"), tmp_path / "loud", "Z", 1e6)
        wanted = [{"id": str(p), "as": n} for n, p in (("broken", broken), ("loud", loud), ("fine", models("gpt2")))]
        dataset = bench.texts("d", 500)
        lines = Path(dataset["path"]).read_text(encoding="utf-8").splitlines()
        lines[200] = json.dumps({"text": "and then Z"})
        Path(dataset["path"]).write_text("\n".join(lines), encoding="utf-8")
        with pytest.raises(DrillcoreError) as caught:
            bench.run("mixed", wanted, [dataset], settings, store_dtype="float16")
        message = str(caught.value)
        assert caught.value.exit_status == 1 and "1 models and 1 blocks failed" in message
        assert "loud/d, sentences 128 to 255" in message and "sentence 200, layer 0 (embed)" in message
        assert "broken: model" in message and "float32" in caught.value.hint
        bench.run("kept", wanted[2:], [dataset], {"executor": "local"}, store_dtype="float16")
        kept, mixed = bench.committed("kept"), bench.committed("mixed")
        assert same_bytes({n: b for n, b in mixed.items() if n.startswith("fine/")}, kept)
        prints = [n for n in mixed if n.startswith("loud/d/shard_fingerprint/c/")]
        assert len(prints) == 8 - 2, "the failed block's two shards, and those alone, are not committed"
        assert bench.manifest("mixed")["status"].startswith("failed")

    def test_rows_in_the_wrong_place_are_named_and_withdrawn(self, settings, bench, models):
        """Rows that an earlier run stored, whichever worker computes the rest."""
        wanted, datasets = [{"id": str(models("gpt2")), "as": "m"}], [bench.texts("d", 200)]
        bench.run("audited", wanted, datasets, settings)
        assert bench.manifest("audited")["models"]["m"]["audit"]["passed"]
        expected = bench.committed("audited")
        group = zarr.open_group(bench.folder / "audited.zarr", path="m/d", mode="r+", use_consolidated=False)
        states = np.asarray(group["hidden_states"][:])
        group["hidden_states"][:] = np.roll(states, 1, axis=0)
        as_written(bench.folder / "audited.zarr")
        group["shard_fingerprint"][0] = 0
        with pytest.raises(DrillcoreError, match="are not those of its text") as caught:
            bench.run("audited", wanted, datasets, settings)
        assert caught.value.exit_status == 1 and "withdrawn" in str(caught.value)
        assert not bench.manifest("audited")["models"]["m"]["audit"]["passed"]
        bench.run("audited", wanted, datasets, {**settings, "audit": 200})
        assert same_bytes(bench.committed("audited"), expected)

    @pytest.mark.parametrize("memory", [0, 2**20])
    def test_map_calls_a_function_on_each_item(self, executor, seed, memory):
        items = [[seed, i] for i in range(20)]
        found = dict(executor.map(digest, items, memory=memory))
        assert found == {i: digest(item) for i, item in enumerate(items)}
        assert list(executor.map(digest, [], memory=memory)) == []
        with pytest.raises(StoreError, match="holds credentials") as caught:
            list(executor.map(Location.check, [Location("s3://name:secret@bucket/x.zarr")] * 2, memory=memory))
        assert "AWS_ACCESS_KEY_ID" in caught.value.hint

    @pytest.mark.parametrize("memory", [0, 2**20])
    def test_what_a_call_says_is_heard_wherever_it_runs(self, settings, memory):
        lines, run = [], Run.model_validate(settings)
        made = load_by_name("executor", run.executor, EXECUTORS)(run, Extract(threads=1), lines.append)
        try:
            with telling(lines.append):
                assert dict(made.map(tell, ["item 1", "item 2"], memory=memory)) == {0: None, 1: None}
        finally:
            made.close()
        assert sorted(line for line in lines if line.startswith("item")) == ["item 1", "item 2"]

    def test_hardware_and_description_are_plain_data(self, settings, executor):
        hardware = executor.hardware()
        assert hardware.threads == 1 and hardware.memory_bytes > 0 and hardware.device
        assert json.loads(json.dumps(executor.describe()))["executor"] == settings["executor"]


def louder(source: Path, target: Path, letter: str, factor: float) -> Path:
    """A copy of a tiny model in which one letter's embedding is so many times larger."""
    from safetensors.numpy import load_file, save_file
    from tokenizers import Tokenizer

    shutil.copytree(source, target)
    weights = load_file(target / "model.safetensors")
    row = Tokenizer.from_file(str(target / "tokenizer.json")).token_to_id(letter)
    table = weights["model.embed_tokens.weight"].copy()
    table[row] = np.where(table[row] < 0, -1.0, 1.0) * factor
    save_file({**weights, "model.embed_tokens.weight": table}, target / "model.safetensors", {"format": "pt"})
    return target


def not_a_number(source: Path, target: Path) -> Path:
    """A copy of a tiny model whose files are whole and whose states are NaN: it fails its self-check."""
    from safetensors.numpy import load_file, save_file

    shutil.copytree(source, target)
    weights = load_file(target / "model.safetensors")
    weights["model.layers.1.mlp.up_proj.weight"] = weights["model.layers.1.mlp.up_proj.weight"] * np.nan
    save_file(weights, target / "model.safetensors", {"format": "pt"})
    return target

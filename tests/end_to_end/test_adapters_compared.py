"""A base model and its adapter share tokens and packs, and `compare` sets them side by side; adapters of the hub."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from transformers import AutoModelForCausalLM, AutoTokenizer
from typer.testing import CliRunner

import drillcore
from drillcore.cli.main import app
from drillcore.errors import DrillcoreError, ModelError
from drillcore.job.model import Model
from drillcore.runtime import preflight
from drillcore.runtime.stages.extract.recipes import as_recorded
from drillcore.tokens.sequences import Sequences
from support.adapters import with_peft, write_adapter
from support.backends import open_transformers
from support.checkpoints import copied
from support.plain import plain_states

COMMITS = ("a" * 40, "b" * 40)


@pytest.fixture
def base(models, tmp_path) -> Path:
    return copied(models(), tmp_path / "base")


@pytest.fixture
def texts(seed) -> list[str]:
    rng = np.random.default_rng(seed)
    return [f"{word} {''.join(rng.choice(list('abcd efgh'), 6))}" for word in ("river", "stone") for _ in range(24)]


def run(folder: Path, texts: list[str], *models: dict[str, Any]) -> None:
    lines = "\n".join(json.dumps({"text": t, "label": t[:5]}) for t in texts)
    (folder / "d.jsonl").write_text(lines, encoding="utf-8")
    job = {"store": "job.zarr", "models": list(models), "datasets": {"d": "d.jsonl"}, "measure": {"permutations": 99}}
    (folder / "job.yaml").write_text(json.dumps({**job, "extract": {"device": "cpu", "threads": 1}}), encoding="utf-8")
    drillcore.run(folder / "job.yaml", stages=["extract", "measure"])


def dispersion(states_NH: np.ndarray, texts: list[str]) -> float:
    """Mean over the labels of the mean cosine distance over pairs of sentences."""
    means = []
    for label in ("river", "stone"):
        units = np.stack([s / np.linalg.norm(s) for s, t in zip(states_NH, texts, strict=True) if t[:5] == label])
        cosines = (units @ units.T)[np.triu_indices(len(units), 1)]
        means.append(1 - cosines.mean())
    return float(np.mean(means))


def plain(model: Any, folder: Path, texts: list[str]) -> np.ndarray:
    tokenizer = AutoTokenizer.from_pretrained(folder)
    return np.stack([plain_states(model, tokenizer(text)["input_ids"], 3) for text in texts])


def test_both_are_compared_by_what_peft_gives_one_sentence_at_a_time(base, texts, tmp_path, seed, monkeypatch):
    adapter = write_adapter(base, tmp_path / "lora", seed)
    tokenize, counted = preflight.tokenize, list[Any]()
    monkeypatch.setattr(preflight, "tokenize", lambda *given: counted.append(given) or tokenize(*given))
    run(tmp_path, texts, {"id": str(base)}, {"id": str(base), "adapter": str(adapter)})
    assert len(counted) == 1, "tokens are shared"
    ours = plain(AutoModelForCausalLM.from_pretrained(base), base, texts)
    theirs = plain(with_peft(base, adapter), base, texts)
    compared = drillcore.compare(tmp_path / "job.zarr", "base/d", "base+lora/d", ["dispersion"])
    assert [row.layer_name for row in compared.rows] == ["embed", "block_1", "block_2", "block_3", "final_norm"]
    for row in compared.rows:
        a, b = (dispersion(states[:, row.layer_a], texts) for states in (ours, theirs))
        assert (row.a, row.b) == pytest.approx((a, b), abs=1e-5) and row.difference == pytest.approx(a - b, abs=1e-5)
        assert row.low <= row.difference <= row.high
    assert compared.rows[0].difference == 0
    assert np.abs(ours[:, -1] - theirs[:, -1]).max() > 0.01, "the adapter changes the states that are compared"
    command = ["compare", str(tmp_path / "job.zarr"), "base/d", "base+lora/d", "--metric", "dispersion", "--json"]
    said = CliRunner().invoke(app, command)
    assert said.exit_code == 0
    assert json.loads(said.stdout)["rows"] == compared.to_dict()["rows"]


@pytest.mark.parametrize("merged", [False, True])
def test_packs_of_both_are_the_same(merged, base, texts, tmp_path, seed):
    """Cut after the same tokens, node by node: what differs between the two groups is the adapter alone."""
    adapter = write_adapter(base, tmp_path / "lora", seed)
    tokenizer = AutoTokenizer.from_pretrained(base)
    block = Sequences.of([np.array(tokenizer(text)["input_ids"], np.int32) for text in texts])
    works, numerics = [], []
    for model in (Model(id=str(base)), Model(id=str(base), adapter=str(adapter), merge_adapter=merged)):
        backend, prepared = open_transformers(base, model=model, device="cpu", threads=1)
        works.append(backend.lay_out(block))
        numerics.append(prepared.numerics)
    assert numerics[0] == numerics[1] and numerics[0]["layout"] == "packed"
    for one, other in zip(works[0].parts, works[1].parts, strict=True):
        for name in one.__dataclass_fields__:
            assert np.array_equal(getattr(one, name), getattr(other, name))


@pytest.fixture
def hub(base, tmp_path, seed, monkeypatch) -> Path:
    """The hub's cache with two commits of an adapter; the branch main is the second one."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    repo = tmp_path / "hub" / "models--org--lora"
    for number, commit in enumerate(COMMITS):
        write_adapter(base, repo / "snapshots" / commit, seed + number)
    (repo / "refs").mkdir()
    (repo / "refs" / "main").write_text(COMMITS[1], encoding="utf-8")
    (repo / "refs" / "v1").write_text(COMMITS[0], encoding="utf-8")
    return repo


@pytest.mark.parametrize(("revision", "commit"), [(None, 1), ("v1", 0), (COMMITS[0], 0)])
def test_an_adapter_of_the_hub_is_the_one_of_its_revision(revision, commit, hub, base, texts, tmp_path):
    named = {"adapter_revision": revision} if revision else {}
    run(tmp_path, texts[:30], {"id": str(base), "adapter": "org/lora", **named})
    group = drillcore.open(tmp_path / "job.zarr")["base+org--lora/d"]
    wanted = plain(with_peft(base, hub / "snapshots" / COMMITS[commit]), base, texts[:30])
    assert np.abs(group.hidden_states.values - wanted).max() < 1e-4
    recorded = zarr.open_group(tmp_path / "job.zarr", mode="r")["base+org--lora/d"].attrs["recipes"]
    assert recorded[0]["request"]["model"]["adapter_revision"] == COMMITS[commit]


def test_a_branch_that_moved_is_another_adapter_and_the_recorded_commit_is_verified(hub, base, texts, tmp_path):
    model = {"id": str(base), "adapter": "org/lora", "as": "m"}
    run(tmp_path, texts[:30], model)
    (hub / "refs" / "main").write_text(COMMITS[0], encoding="utf-8")
    assert drillcore.verify(tmp_path / "job.zarr", models=True).whole, "it is looked for at its commit"
    with pytest.raises(DrillcoreError, match="adapter revision of the model changed") as refused:
        run(tmp_path, texts[:30], model)
    assert refused.value.exit_status == 2
    run(tmp_path, texts[:30], {**model, "adapter_revision": COMMITS[1]})


def test_a_revision_that_is_not_there_is_named(hub, base, texts, tmp_path):
    with pytest.raises(ModelError, match="its adapter org/lora at v9 cannot be had from the hub") as refused:
        run(tmp_path, texts, {"id": str(base), "adapter": "org/lora", "adapter_revision": "v9"})
    assert refused.value.exit_status == 2 and not (tmp_path / "job.zarr").exists()


def test_a_store_of_before_that_records_no_commit_stays_up_to_date():
    before = {"model": {"adapter_files": {"a": "1"}}}
    now = {"model": {"adapter_files": {"a": "1"}, "adapter_revision": COMMITS[0]}}
    assert as_recorded(now, before) == before

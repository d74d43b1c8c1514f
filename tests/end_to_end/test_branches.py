"""Branches: follow-up questions on each text share its nodes, block by block, and are each string alone."""

from __future__ import annotations

import json
import random

import numpy as np
import pytest

from support.placed import Plain, errors, rows_of, run_job

pytest_plugins = ["support.run_fixtures"]
BRANCHES = {"true": "{text} Is this true? Answer:", "who": "{text} Who went? Answer:", "before": "Well: {text}"}


def save(path, rows) -> None:
    path.write_text("\n".join(json.dumps(row) for row in rows), encoding="utf-8")


@pytest.mark.parametrize("layout", ["packed", "padded"])
@pytest.mark.parametrize("architecture", ["llama", "gemma3_text", "gpt_neox"])
def test_each_is_its_string_alone(architecture, layout, models, tmp_path, seed):
    folder, rows = models(architecture), rows_of(seed, 21)
    save(tmp_path / "d.jsonl", rows)
    positions = ["last", "mean", {"last": 2}, {"text": "who", "name": "name"}]
    dataset = {"path": "d.jsonl", "branches": BRANCHES}
    tree = run_job(tmp_path, str(folder), dataset, positions, layout=layout, shard_sentences=8, block_sentences=16)
    plain = Plain(folder)
    assert sorted(tree.children) == ["d", "d~before", "d~last-2", "d~mean", "d~name", "d~true", "d~who"]
    for name, template in {"d": "{text}", **{f"d~{n}": t for n, t in BRANCHES.items()}}.items():
        found = tree[name].to_dataset()
        texts = [template.replace("{text}", row["text"]) for row in rows]
        want = np.stack([plain.states(plain.tokenizer(text)["input_ids"])[-1] for text in texts])
        assert errors(found.hidden_states.values, want).max() <= 1e-5, name
        assert found.label.values.tolist() == [row["label"] for row in rows]
        assert found.text.values.tolist() == [row["text"] for row in rows]
    whole = [plain.states(plain.tokenizer(row["text"])["input_ids"]).astype(np.float64) for row in rows]
    mean = tree["d~mean"].to_dataset().hidden_states.values
    assert errors(mean, np.stack([states[1:].mean(0) for states in whole])).max() <= 1e-5


def job_with_branches(new_work, name: str, seed: int, branches, count: int = 75, **settings):
    work = new_work(name, seed=seed, count=count, **settings)
    work.job["datasets"][0]["branches"] = branches
    work.save()
    return work


def test_nodes_are_shared_between_groups(new_work, seed):
    """What the run and the plan count is little more than the distinct tokens, though blocks have 32 sentences."""
    draw = random.Random(seed)
    texts = [" ".join(draw.choice("abcdefgh") * draw.randint(1, 5) for _ in range(60)) for _ in range(40)]
    questions = {f"q{n}": "{text} " + "".join(draw.choices("uvwxyz ", k=20)) + "?" for n in range(8)}
    work = job_with_branches(new_work, "work", seed, questions, backend="transformers")
    work.texts("d", [{"text": text} for text in texts])
    work.finish()
    facts = work.manifest["models"]["m"]["extract"]
    assert facts["sentences"] == 40 * 9
    ideal = sum(len(text.encode()) + 1 + 8 * 22 for text in texts)
    assert facts["nodes"] <= 1.15 * ideal < facts["tokens"] / 3, (facts, ideal)
    plan = work.forge.run("plan", "job.yaml", "--no-calibrate", cwd=work.folder)
    assert plan.status == 0
    row = next(line for line in plan.out.splitlines() if line.split()[:2] == ["m", "d"])
    nodes = int(row.split()[4].replace(",", ""))
    assert nodes <= 1.15 * ideal and "with d" in plan.out, plan.out


@pytest.mark.parametrize("backend", ["fake", "transformers"])
def test_added_to_a_finished_store(backend, new_work, seed):
    want = job_with_branches(new_work, "whole", seed, BRANCHES, backend=backend)
    want.finish()
    work = job_with_branches(new_work, "added", seed, {}, backend=backend)
    work.finish()
    kept = work.committed()
    work.job["datasets"][0]["branches"] = BRANCHES
    work.save()
    work.finish()
    now = work.committed()
    assert {key: now[key] for key in kept} == kept
    got, wanted = work.states(), want.states()
    assert got.keys() == wanted.keys()
    of_branches = [path for path in wanted if path.startswith("m/d~")]
    assert of_branches and all(got[path] == wanted[path] for path in of_branches)
    verify = work.forge.run("verify", "runs/job.zarr", cwd=work.folder)
    assert verify.status == 0, verify.out


def test_killed_and_resumed(new_work, seed):
    from support.crashes import KILL_BEFORE_FINGERPRINT

    want = job_with_branches(new_work, "whole", seed, BRANCHES, backend="transformers")
    want.finish()
    work = job_with_branches(new_work, "killed", seed, BRANCHES, backend="transformers")
    for nth in (2, 5, 3):
        assert work.run(first=KILL_BEFORE_FINGERPRINT.format(nth=nth)).status != 0
    work.finish()
    assert work.states() == want.states()


@pytest.mark.parametrize(
    ("dataset", "positions", "message"),
    [
        ({"branches": {"q": "no place"}}, ["last"], "must hold {text} exactly once"),
        ({"branches": {"a~b": "{text}?"}}, ["last"], "may hold letters"),
        ({"branches": {"mean": "{text}?"}}, ["last", "mean"], "is the name of a position and of a branch"),
        ({"branches": {"q": "{text}?"}, "template": "chat"}, ["last"], "asked of texts"),
    ],
)
def test_branches_that_are_none(dataset, positions, message, models, tmp_path):
    save(tmp_path / "d.jsonl", [{"text": "a"}])
    with pytest.raises(ValueError, match=message):
        run_job(tmp_path, str(models()), {"path": "d.jsonl", **dataset}, positions)

"""Token prediction from the store equals the model's own logits, whatever a head scales, caps or norms."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
import torch
import yaml

import drillcore
from drillcore.backends import source
from drillcore.errors import ModelError
from drillcore.job.file import load_job
from drillcore.runtime.runner import run_stages
from drillcore.system.progress import Silent

TEXTS = ["the river", "a city near the old port", "first", "the north of the capital is a"]


@pytest.mark.parametrize("architecture", ["llama", "gemma2", "cohere", "granite", "gpt2", "biogpt", "lfm2"])
def test_the_last_layers_give_the_models_own_logits(architecture, models, tmp_path, seed):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    draw = np.random.default_rng(seed)
    changes = {"final_logit_softcapping": 5.0} if architecture == "gemma2" else {}
    folder = models(architecture, **changes)
    rows = [{"text": t, "expected": f" {draw.choice(['Toronto', 'Montreal', 'x'])}"} for t in TEXTS]
    (tmp_path / "d.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    job = {
        "models": [{"id": str(folder), "as": "m"}],
        "datasets": [{"name": "d", "path": "d.jsonl", "expected_next": "expected"}],
        "measure": {"permutations": 5},
    }
    (tmp_path / "job.yaml").write_text(yaml.safe_dump(job), encoding="utf-8")
    loaded = load_job(tmp_path / "job.yaml")
    run_stages(loaded, ("extract", "predict"), Silent())
    group = drillcore.open(loaded.store)["m/d"]
    found = group.next_token.sel(quantity=["logprob", "rank", "margin"]).values
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    for i, row in enumerate(rows):
        expected = tokenizer(row["expected"], add_special_tokens=False)["input_ids"][0]
        with torch.inference_mode():
            logits = model(**tokenizer(row["text"], return_tensors="pt")).logits[0, -1].double()
        own = logits[expected]
        others = torch.cat([logits[:expected], logits[expected + 1 :]])
        want = [float(torch.log_softmax(logits, 0)[expected]), 1 + int((logits > own).sum()), float(own - others.max())]
        # Block L through the final norm, and the final norm's own output.
        np.testing.assert_allclose(found[i, -2], want, rtol=1e-4, atol=1e-4)
        np.testing.assert_allclose(found[i, -1], want, rtol=1e-4, atol=1e-4)
    assert group.prediction.dims == ("layer", "prediction_metric", "bound")
    mean = group.prediction.sel(prediction_metric="logprob", bound="value").values
    np.testing.assert_allclose(mean, found[:, :, 0].mean(axis=0), rtol=1e-5)
    again = run_stages(loaded, ("predict",), Silent())
    assert (again / "manifest.json").exists()


@pytest.mark.parametrize("architecture", ["llama", "gpt2", "mamba"])
def test_candidates_have_their_exact_log_probability(architecture, models, tmp_path, seed):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    draw = np.random.default_rng(seed)
    candidates = ["a", " river near the port", " " + "".join(draw.choice(list("north"), 6))]
    folder = models(architecture)
    (tmp_path / "d.jsonl").write_text("\n".join(json.dumps({"text": t}) for t in [*TEXTS, TEXTS[0]]), encoding="utf-8")
    job = {
        "models": [{"id": str(folder), "as": "m"}],
        "datasets": [{"name": "d", "path": "d.jsonl", "candidates": candidates}],
        "measure": {"permutations": 5},
    }
    (tmp_path / "job.yaml").write_text(yaml.safe_dump(job), encoding="utf-8")
    loaded = load_job(tmp_path / "job.yaml")
    run_stages(loaded, ("extract", "predict"), Silent())
    group = drillcore.open(loaded.store)["m/d"]
    assert group.candidate.values.tolist() == candidates
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    for i, text in enumerate([*TEXTS, TEXTS[0]]):
        for c, candidate in enumerate(candidates):
            before = tokenizer(text)["input_ids"]
            after = tokenizer(candidate, add_special_tokens=False)["input_ids"]
            with torch.inference_mode():
                logits = model(input_ids=torch.tensor([before + after])).logits[0].double()
            logprobs = torch.log_softmax(logits, -1)
            want = sum(float(logprobs[len(before) + k - 1, token]) for k, token in enumerate(after))
            np.testing.assert_allclose(group.candidate_logprob.values[i, c], want, rtol=1e-4)


def test_measuring_loads_no_model_and_predicting_does(models, tmp_path, monkeypatch):
    folder = tmp_path / "model"
    shutil.copytree(models(), folder)
    rows = [{"text": t, "expected": " x", "label": "ab"[i % 2]} for i, t in enumerate(TEXTS * 3)]
    (tmp_path / "d.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    dataset = {"name": "d", "path": "d.jsonl", "label": "label", "expected_next": "expected", "candidates": [" x"]}
    job = {"store": "s.zarr", "models": [{"id": str(folder), "as": "m"}], "datasets": [dataset]}
    (tmp_path / "job.yaml").write_text(yaml.safe_dump({**job, "measure": {"permutations": 5}}), encoding="utf-8")
    loaded = load_job(tmp_path / "job.yaml")
    run_stages(loaded, ("extract",), Silent())
    # The weights keep their identity and become unreadable: as long as nobody loads them, nothing is amiss.
    weights = folder / "model.safetensors"
    digest = source.remembered_digest(weights)
    monkeypatch.setattr(source, "remembered_digest", lambda path: digest)
    weights.write_bytes(b"\0" * weights.stat().st_size)
    run_stages(loaded, ("measure",), Silent())
    group = drillcore.open(loaded.store)["m/d"]
    assert "separation" in group and "prediction" not in group
    with pytest.raises(ModelError, match="is cut off or damaged"):
        run_stages(loaded, ("predict",), Silent())

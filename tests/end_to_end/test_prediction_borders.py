"""Next tokens and candidates against the model's own logits on sentence and continuation encoded together."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

import drillcore
from drillcore.errors import StoreError, TextError
from drillcore.job.file import load_job
from drillcore.runtime.runner import run_stages
from drillcore.system.progress import Silent
from support import vocabularies

TEXTS = ["She moved to", "the old port of", "A river runs near", "The largest city of Ontario is"]


class Heard(Silent):
    """Keeps what a run says."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, line: str) -> None:
        self.lines.append(line)

    finish = warn = say


def model_with(models, tmp_path: Path, kind: str, architecture: str = "llama", **changes) -> Path:
    """A tiny model with a tokenizer of this kind."""
    folder = tmp_path / kind
    shutil.copytree(models(architecture, **changes), folder)
    (folder / "tokenizer.json").unlink()
    return vocabularies.write(folder, kind)


def job_of(tmp_path: Path, model: Path, rows: list[dict[str, str]], extract: dict | None = None, **dataset):
    (tmp_path / "d.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    if "next" in rows[0]:
        dataset["expected_next"] = "next"
    job = {
        "store": "s.zarr",
        "models": [{"id": str(model), "as": "m"}],
        "datasets": [{"name": "d", "path": "d.jsonl", **dataset}],
        "measure": {"permutations": 5},
        "extract": extract or {},
    }
    (tmp_path / "job.yaml").write_text(yaml.safe_dump(job), encoding="utf-8")
    return load_job(tmp_path / "job.yaml")


def logprobs_of(model: Path, text: str, after: str) -> tuple[list[float], int]:
    """Log-probability of each token after the sentence in the whole text, and the rank of the first of them."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    loaded = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32, attn_implementation="eager").eval()
    tokenizer = AutoTokenizer.from_pretrained(model)
    alone, whole = tokenizer(text)["input_ids"], tokenizer(text + after)["input_ids"]
    assert whole[: len(alone)] == alone
    with torch.inference_mode():
        logits = loaded(input_ids=torch.tensor([whole])).logits[0].double()
    known = torch.log_softmax(logits, -1)
    places = range(len(alone), len(whole))
    first = logits[len(alone) - 1]
    return [float(known[p - 1, whole[p]]) for p in places], 1 + int((first > first[whole[len(alone)]]).sum())


@pytest.mark.parametrize("kind", ["prepended", "wordpiece", "unigram", "ctrl"])
def test_values_are_those_of_the_whole_text(kind, models, tmp_path, seed):
    draw = np.random.default_rng(seed)
    model = model_with(models, tmp_path, kind, draw.choice(["llama", "gpt2"]))
    rows = [{"text": t, "next": f" {draw.choice(vocabularies.CITIES)}"} for t in TEXTS]
    candidates = [" Toronto", " Montreal", " " + "".join(draw.choice(list("norths"), 5))]
    loaded = job_of(tmp_path, model, rows, candidates=candidates)
    run_stages(loaded, ("extract", "predict"), Silent())
    group = drillcore.open(loaded.store)["m/d"]
    for n, row in enumerate(rows):
        logprobs, rank = logprobs_of(model, row["text"], row["next"])
        got = group.next_token[n, -1].sel(quantity=["logprob", "rank"]).values
        np.testing.assert_allclose(got, [logprobs[0], rank], rtol=1e-4, atol=1e-4)
        want = [sum(logprobs_of(model, row["text"], c)[0]) for c in candidates]
        np.testing.assert_allclose(group.candidate_logprob.values[n], want, rtol=1e-4)


def test_rows_whose_border_is_crossed_are_named_before_anything_is_written(models, tmp_path):
    model = model_with(models, tmp_path, "bytes")
    rows = [{"text": t, "next": " Toronto"} for t in TEXTS]
    rows[2] = {"text": "A river runs near ", "next": "Halifax"}
    loaded = job_of(tmp_path, model, rows)
    with pytest.raises(TextError) as raised:
        run_stages(loaded, ("extract", "predict"), Silent())
    message = str(raised.value)
    assert message.count("\n") == 0 and "d.jsonl: sentence 2 ('A river runs near ')" in message
    assert "crosses the border" in message and "ends in a blank" in message and "cannot_follow: skip" in message
    assert not Path(loaded.store).exists()


def test_skip_leaves_out_what_cannot_follow_and_counts_it(models, tmp_path):
    model = model_with(models, tmp_path, "bytes")
    rows = [{"text": t, "next": " Toronto"} for t in TEXTS]
    rows[2] = {"text": "A river runs near ", "next": "Toronto"}
    loaded = job_of(tmp_path, model, rows, candidates=[" Toronto", "Toronto"], cannot_follow="skip")
    heard = Heard()
    run_stages(loaded, ("extract", "predict"), heard)
    group = drillcore.open(loaded.store)["m/d"]
    assert np.isnan(group.next_token.values).all(axis=(1, 2)).tolist() == [False, False, True, False]
    assert np.isnan(group.candidate_logprob.values[2]).tolist() == [False, True]
    assert any("1 of 4 expected texts are left out: 1 with a token across the border" in line for line in heard.lines)
    record = json.loads((Path(loaded.store) / "m" / "d" / "zarr.json").read_text())["attributes"]["results"]
    assert record["next_token"]["left_out"] == {"crosses": 1} and record["next_token"]["sentences"] == 3
    assert record["candidate_logprob"]["left_out"] == {"crosses": 1}
    # A sentence without the value of a candidate has no likeliest one.
    assert sum(record["candidate_logprob"]["likeliest"].values()) == 3
    again = Heard()
    run_stages(loaded, ("predict",), again)
    assert sum("up to date" in line for line in again.lines) == 2


@pytest.mark.parametrize(
    ("kind", "extract", "text", "reason"),
    [
        ("appends", {}, "She moved to", "ends each sentence with </s>"),
        ("bytes", {"too_long": "truncate"}, "A river runs near " * 40, "is truncated"),
        ("metaspace", {}, "She moved to", "not in the vocabulary"),
    ],
)
def test_other_reasons_are_named_too(kind, extract, text, reason, models, tmp_path):
    model = model_with(models, tmp_path, kind, max_position_embeddings=32)
    rows = [
        {"text": TEXTS[0], "next": " Toronto"},
        {"text": text, "next": " 日" if kind == "metaspace" else " Toronto"},
    ]
    loaded = job_of(tmp_path, model, rows, extract)
    with pytest.raises(TextError, match=reason):
        run_stages(loaded, ("extract",), Silent())
    skipping = job_of(tmp_path, model, rows, extract, cannot_follow="skip")
    heard = Heard()
    run_stages(skipping, ("extract", "predict"), heard)
    group = drillcore.open(skipping.store)["m/d"]
    assert np.isnan(group.next_token.values[1]).all()
    assert np.isnan(group.next_token.values[0]).all() == (kind == "appends")
    assert any("not measured" in line for line in heard.lines) == (kind == "appends")


def test_expected_texts_of_several_tokens_are_noted(models, tmp_path):
    model = model_with(models, tmp_path, "bytes")
    rows = [{"text": t, "next": n} for t, n in zip(TEXTS, [" Toronto", " Toronto's", " xa", " xb"], strict=True)]
    heard = Heard()
    run_stages(job_of(tmp_path, model, rows, candidates=[" xa"]), ("extract",), heard)
    assert any("3 expected texts are several tokens" in line for line in heard.lines)
    assert any("both begin with" in line for line in heard.lines)


def test_predict_alone_refuses_other_expected_texts(models, tmp_path):
    model = model_with(models, tmp_path, "bytes")
    run_stages(job_of(tmp_path, model, [{"text": t, "next": " Toronto"} for t in TEXTS]), ("extract",), Silent())
    changed = job_of(tmp_path, model, [{"text": t, "next": " Halifax"} for t in TEXTS])
    with pytest.raises(StoreError, match="holds other labels or kept columns"):
        run_stages(changed, ("predict",), Silent())


def test_groups_and_folds_decide_the_intervals(models, tmp_path):
    model = model_with(models, tmp_path, "bytes")
    rows = [
        {"text": f"{t} {i}", "next": " Toronto", "a": str(i % 5), "b": str(i // 4)} for i, t in enumerate(TEXTS * 5)
    ]
    figures = []
    for group in ("a", "b"):
        loaded = job_of(tmp_path, model, rows, group=group)
        run_stages(loaded, ("extract", "predict"), Silent())
        figures.append(drillcore.open(loaded.store)["m/d"].prediction.values)
    assert np.array_equal(figures[0][..., 0], figures[1][..., 0], equal_nan=True)
    assert not np.array_equal(figures[0][..., 1], figures[1][..., 1], equal_nan=True)

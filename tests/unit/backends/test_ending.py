"""The final norm is found by what it does, and token prediction is refused where head or norm are not proved."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
import yaml
from torch import nn
from transformers import AutoModelForCausalLM

from drillcore.backends.base import ModelFacts
from drillcore.backends.head import head_problem
from drillcore.backends.transformers import ending
from drillcore.errors import ModelError, RunError
from drillcore.job.file import load_job
from drillcore.runtime.runner import run_stages
from drillcore.system.progress import Silent
from support.backends import open_transformers
from support.plain import random_sentences, relative_error

# Their final norms are called norm, ln_f, final_layer_norm, final_layernorm, layer_norm, embedding_norm.
NAMES = ["llama", "gpt2", "opt", "phi", "biogpt", "xglm", "lfm2"]


@pytest.mark.parametrize("wanted", ["all", "hf", (0, 2)])
@pytest.mark.parametrize("architecture", NAMES)
def test_the_final_norm_is_found_whatever_its_name(architecture, wanted, models, seed):
    folder = models(architecture)
    backend, prepared = open_transformers(folder, wanted)
    assert prepared.head_problem == ""
    plain = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    for sentence in random_sentences(seed, backend.facts.vocab_size, longest=20, count=5):
        states, logits = _last_layer_and_logits(plain, sentence)
        assert relative_error(backend.unembed(states[None]), logits[None]).max() <= 1e-4


def _last_layer_and_logits(plain, sentence):
    layers = next(m for m in plain.modules() if isinstance(m, nn.ModuleList) and len(m) == 3)
    kept = []
    handle = layers[-1].register_forward_hook(
        lambda m, args, out: kept.append(out[0] if isinstance(out, tuple) else out)
    )
    with torch.inference_mode():
        logits = plain(torch.as_tensor(sentence[None].astype(np.int64))).logits[0, -1].numpy()
    handle.remove()
    return kept[0][0, -1].numpy(), logits


def test_a_norm_among_other_modules_is_found(models):
    """Dropout before it, a module that reads the same states and leads nowhere, and a norm made of two."""

    class Decoder(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer, self.aside, self.drop = nn.Linear(8, 8), nn.Linear(8, 8), nn.Dropout(0.5)
            self.first, self.second = nn.LayerNorm(8), nn.Linear(8, 8)

        def forward(self, input_ids, **_):
            states = self.layer(nn.functional.one_hot(input_ids, 8).float())
            self.aside(states)
            return (self.second(self.first(self.drop(states))),)

    decoder = Decoder().eval()
    decoder.get_input_embeddings = lambda: nn.Embedding(8, 8)
    found = ending.find_ending(decoder, decoder, [decoder.layer], ModelFacts("", 1, 8, 8, None, 0), 1)
    assert [*found.final_norm] == [decoder.drop, decoder.first, decoder.second]
    with torch.inference_mode():
        torch.testing.assert_close(found.final_norm(found.block_TH), found.output_TH)
    assert found.problem == "it gives no logits for each token"


@pytest.fixture
def hidden_step(monkeypatch):
    """Llama with a step after its norm that is no module: nothing of it can be found by its name."""
    from transformers import LlamaModel

    original = LlamaModel.forward

    def forward(self, *args, **named):
        output = original(self, *args, **named)
        output["last_hidden_state"] = output.last_hidden_state * torch.linspace(
            1, 3, output.last_hidden_state.shape[-1]
        )
        if output.hidden_states is not None:
            output["hidden_states"] = (*output.hidden_states[:-1], output.last_hidden_state)
        return output

    monkeypatch.setattr(LlamaModel, "forward", forward)


def job_of(tmp_path, folder, **dataset):
    rows = [{"text": t, "next": " x"} for t in ("a river", "a city", "the")]
    (tmp_path / "d.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    job = {
        "models": [{"id": str(folder), "as": "m"}],
        "datasets": [{"name": "d", "path": "d.jsonl", **dataset}],
        "store": str(tmp_path / "s.zarr"),
        "extract": {"layers": "hf"},
    }
    (tmp_path / "job.yaml").write_text(yaml.safe_dump(job), encoding="utf-8")
    return load_job(tmp_path / "job.yaml")


@pytest.mark.parametrize("wish", [{"expected_next": "next"}, {"candidates": [" x", " yz"]}])
def test_prediction_is_refused_where_the_norm_is_not_found(hidden_step, models, tmp_path, wish):
    loaded = job_of(tmp_path, models(), **wish)
    with pytest.raises(ModelError, match="what follows its last decoder layer could not be found") as e:
        run_stages(loaded, ("extract", "predict"), Silent())
    assert str(e.value).startswith("token prediction is refused for model") and e.value.exit_status == 2
    assert "expected_next" in e.value.hint


def test_states_without_prediction_go_on_where_the_norm_is_not_found(hidden_step, models, tmp_path):
    run_stages(job_of(tmp_path, models()), ("extract",), Silent())
    with pytest.raises(ModelError, match="so layer 3 cannot be compared") as error:
        open_transformers(models(), "all")
    assert "extract.layers: hf" in error.value.hint
    # A finished store asks for prediction later: its states are kept, so that the status is 1.
    with pytest.raises(RunError, match="token prediction is refused") as refused:
        run_stages(job_of(tmp_path, models(), expected_next="next"), ("extract", "predict"), Silent())
    assert refused.value.exit_status == 1


def test_a_head_that_gives_other_logits_is_no_proof(models):
    backend, _ = open_transformers(models("granite"))
    loaded = backend._loaded
    assert head_problem(loaded) == ""
    scaled = replace(loaded, ending=replace(loaded.ending, logits_TV=loaded.ending.logits_TV * 1.01))
    assert "give other logits than the model's own: error 0.0099" in head_problem(scaled)
    none = replace(loaded, ending=replace(loaded.ending, logits_TV=None, problem="it gives no logits"))
    assert head_problem(none) == "it gives no logits"
    without = replace(loaded, ending=replace(loaded.ending, final_norm=ending.Chain()))
    assert head_problem(without).startswith("states of layer L give other logits")

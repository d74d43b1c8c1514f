"""Architectures that stand for a kind of layout each: right at every layer, or refused with the true reason.

All of them are tried by `make support-table`.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from support.plain import random_sentences
from tools.architectures.tiny import random_model
from tools.architectures.trial import alone, run_layers, try_architecture

RUN = {
    "lfm2_moe": "padded",  # its final norm is called embedding_norm
    "recurrent_gemma": "padded",
    "xlstm": "padded",
    "llama4_text": "padded",  # get_decoder() gives the whole model
    "modernbert-decoder": "packed",  # get_decoder() gives the head
    "inkling_text": "padded",  # a convolution reads what the deepest MLP gave for other tokens
    "longcat_flash": "packed",  # half as many modules as num_hidden_layers
    "openai-gpt": "padded",  # layers return lists
    "rwkv": "padded",  # the embedding is not among the hidden states
    "mllama": "packed",  # text alone skips the layers that look at images
    "deepseek_v32": "padded",  # a sparse indexer that takes every key of these sentences
    "doge": "packed",
}
WITH_IMAGES = ["qwen2_vl", "mistral3", "smolvlm", "llama4"]
REFUSED = {
    "gemma3n_text": "hand on 4 residual streams of width 64",
    "deepseek_v4": "hand on 4 residual streams of width 64",
    "hrm_text": "its layers are spread over model.L_module.layers, model.H_module.layers",
    "blt": "its layers are spread over model.local_encoder.layers",
    "cpmant": "it adds tokens of its own",
    "reformer": "gives states of width 128, its layers of width 64",
    "xlm": "is not a causal decoder (its type is xlm)",
}


def test_the_committed_table_names_nothing_wrong_and_agrees_with_these():
    lines = Path("docs/models.md").read_text(encoding="utf-8").splitlines()
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("| ")]
    layouts = {row[0]: row[1] for row in rows if len(row) == 5}
    assert not any(row[1].strip("*").startswith(("wrong", "traceback")) for row in rows)
    assert layouts.items() >= RUN.items()


@pytest.mark.parametrize("kind", RUN)
def test_a_causal_architecture_equals_each_sentence_alone(kind):
    outcome = try_architecture(kind, with_images=False)
    assert (outcome.status, outcome.layers, outcome.prediction) == (RUN[kind], "all", True), outcome.reason
    assert outcome.error <= 1e-5


@pytest.mark.parametrize("kind", WITH_IMAGES)
def test_the_text_of_an_image_text_architecture_equals_each_sentence_alone(kind):
    outcome = try_architecture(kind, with_images=True)
    assert outcome.status in ("packed", "padded") and outcome.prediction, outcome.reason
    assert outcome.error <= 1e-5


@pytest.mark.parametrize("kind", REFUSED)
def test_a_refusal_gives_the_true_reason(kind):
    outcome = try_architecture(kind, with_images=False)
    assert outcome.status == "refused" and REFUSED[kind] in outcome.reason


def test_an_encoder_with_a_decoder_is_called_so():
    outcome = try_architecture("t5gemma2", with_images=True)
    assert outcome.status == "refused" and "is an encoder with a decoder" in outcome.reason


def test_layers_before_a_residual_stream_of_attention_run_as_hf():
    outcome = try_architecture("inkling2_text", with_images=False)
    assert (outcome.status, outcome.layers, outcome.prediction) == ("padded", "hf", False)


@pytest.mark.parametrize("wanted", [(0, 2), (1,), (0, 4)])
@pytest.mark.parametrize("kind", ["gemma4_text", "mllama", "llama"])
def test_a_list_of_layers_equals_each_sentence_alone(kind, wanted, tmp_path):
    """Gemma 4 gives each layer inputs of its own, so that its decoder does not run with fewer layers."""
    changes = {"hidden_size_per_layer_input": 16} if kind == "gemma4_text" else {}
    model = random_model(kind, with_images=False, **changes)
    model.save_pretrained(tmp_path)
    assert run_layers(kind, model, tmp_path, wanted).error <= 1e-5


def test_hidden_states_that_end_before_the_norm_make_no_difference(tmp_path):
    model = random_model("llama", with_images=False, tie_last_hidden_states=False)
    model.save_pretrained(tmp_path)
    outcome = run_layers("llama", model, tmp_path, "all")
    assert outcome.status == "packed" and outcome.error <= 1e-5


def test_a_narrower_output_belongs_to_the_head(tmp_path, seed):
    """OPT-350m: 32 wide embeddings and logits around layers of width 64."""
    from support.backends import open_transformers

    model = random_model("opt", with_images=False, word_embed_proj_dim=32, do_layer_norm_before=False)
    model.save_pretrained(tmp_path)
    backend, prepared = open_transformers(tmp_path)
    assert prepared.head_problem == "" and prepared.check.passed
    for sentence in random_sentences(seed, 300, longest=20, count=4):
        states_KH = alone(model, backend._loaded, sentence, tuple(range(5)))
        with torch.inference_mode():
            logits = model(torch.as_tensor(sentence[None].astype("int64"))).logits[0, -1]
        got = torch.from_numpy(backend.unembed(states_KH[None, 4].astype("float32")))[0]
        torch.testing.assert_close(got, logits, rtol=1e-4, atol=1e-4)

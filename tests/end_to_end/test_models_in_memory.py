"""Models that the program has loaded: the states are those of the model as it stands, and nothing of it changes."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModel, AutoModelForCausalLM, AutoTokenizer

import drillcore
from drillcore.backends import in_memory
from drillcore.errors import DrillcoreError, JobError, ModelError, RunError
from drillcore.system.progress import Silent
from support.plain import plain_states, relative_error

TEXTS = ["The capital of France is", "Hello", "Hello there, rivers run", "The capital of Peru is not"]


class Said(Silent):
    """Keeps what is said."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, message: str) -> None:
        self.lines.append(message)

    warn = say


def loaded(folder: Any, dtype: torch.dtype = torch.float32) -> tuple[Any, Any]:
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype)
    return model, AutoTokenizer.from_pretrained(folder)


def standing(model: Any) -> dict[str, Any]:
    """Everything of a model that must not change."""
    return {
        "values": {name: value.clone() for name, value in model.state_dict().items()},
        "tensors": {name: id(p) for name, p in model.named_parameters()},
        "modules": {name: (id(m), m.training) for name, m in model.named_modules()},
        "hooks": {name: (len(m._forward_hooks), len(m._forward_pre_hooks)) for name, m in model.named_modules()},
        "gradients": {name: (p.requires_grad, p.grad, p.device, p.dtype) for name, p in model.named_parameters()},
        "config": (copy.deepcopy(model.config.to_dict()), model.config._attn_implementation),
    }


def assert_unchanged(model: Any, before: dict[str, Any]) -> None:
    now = standing(model)
    values = before.pop("values")
    assert now.pop("values").keys() == values.keys() and now == before
    assert all(torch.equal(value, values[name]) for name, value in model.state_dict().items())


def plain(model: Any, tokenizer: Any) -> np.ndarray:
    """States [N, L + 2, H] by transformers alone, of a copy of the model that acts as it does."""
    acting = copy.deepcopy(model).eval()
    return np.stack([plain_states(acting, tokenizer(text)["input_ids"], 3) for text in TEXTS])


@pytest.mark.parametrize("architecture", ["llama", "gpt2", "gemma2", "mixtral", "gpt_neox", "lfm2"])
def test_the_states_are_those_of_its_folder_and_the_model_stays_as_it_was(models, architecture):
    model, tokenizer = loaded(models(architecture))
    model.train()
    before = standing(model)
    own = drillcore.extract(model, TEXTS, tokenizer=tokenizer)
    assert_unchanged(model, before)
    assert np.array_equal(own.hidden_states, drillcore.extract(models(architecture), TEXTS).hidden_states)
    assert relative_error(own.hidden_states.values, plain(model, tokenizer)).max() < 1e-5
    assert not in_memory._held


@pytest.mark.parametrize("captured", [False, True])
def test_a_hook_of_the_program_acts_and_stays(models, seed, captured):
    """Also where transformers has captured states before, with hooks of its own that then come first."""
    model, tokenizer = loaded(models())
    other, _ = loaded(models())
    if captured:
        model(**tokenizer(TEXTS[0], return_tensors="pt"), output_hidden_states=True)
    direction = torch.randn(32, generator=torch.Generator().manual_seed(seed)) * 3
    handle = model.model.layers[1].register_forward_hook(lambda module, arguments, output: output + direction)
    other.model.layers[1].register_forward_hook(lambda module, arguments, output: output + direction)
    before = standing(model)
    states = drillcore.extract(model, TEXTS, tokenizer=tokenizer).hidden_states.values
    assert_unchanged(model, before)
    assert relative_error(states, plain(other, tokenizer)).max() < 1e-5
    handle.remove()
    without = drillcore.extract(model, TEXTS, tokenizer=tokenizer).hidden_states.values
    assert np.array_equal(without[:, :2], states[:, :2])
    assert (relative_error(without[:, 2:], states[:, 2:]) > 1e-3).all()


def test_a_hook_that_looks_at_a_place_in_the_batch_is_right_or_refused(models):
    """It changes the last token of a row, which in a pack is the last sentence's alone."""
    model, tokenizer = loaded(models())

    def last(module, arguments, output):
        changed = output.clone()
        changed[:, -1] += 5.0
        return changed

    model.model.layers[0].register_forward_hook(last)
    before = standing(model)
    try:
        states = drillcore.extract(model, TEXTS, tokenizer=tokenizer).hidden_states.values
    except DrillcoreError as error:
        assert "hooks at model.layers.0" in error.hint and str(error).startswith(
            "with the hooks that it has, the model"
        )
        assert "in memory" not in str(error)
    else:
        assert relative_error(states, plain(model, tokenizer)).max() < 1e-5
    assert_unchanged(model, before)


def test_a_model_in_bfloat16_computes_in_it(models):
    model, tokenizer = loaded(models(), torch.bfloat16)
    before = standing(model)
    states = drillcore.extract(model, TEXTS, tokenizer=tokenizer).hidden_states.values
    assert_unchanged(model, before)
    assert (states.view(np.uint32) & 0xFFFF == 0).all()  # values of bfloat16
    assert np.array_equal(states, drillcore.extract(models(), TEXTS, dtype="bfloat16").hidden_states)


@pytest.mark.parametrize("tied", [True, False])
def test_a_decoder_without_its_head_is_taken(models, tied):
    folder = models("llama", tie_word_embeddings=tied)
    decoder = AutoModel.from_pretrained(folder)
    before = standing(decoder)
    states = drillcore.extract(decoder, TEXTS)
    assert_unchanged(decoder, before)
    assert np.array_equal(states.hidden_states, drillcore.extract(folder, TEXTS).hidden_states)


@pytest.mark.parametrize("wrapped", [torch.compile, torch.nn.DataParallel], ids=["compile", "parallel"])
def test_what_pytorch_puts_around_a_model_is_taken_off(models, wrapped):
    model, tokenizer = loaded(models())
    states = drillcore.extract(wrapped(model), TEXTS, tokenizer=tokenizer)
    assert np.array_equal(states.hidden_states, drillcore.extract(models(), TEXTS).hidden_states)


def test_the_tokenizer_is_found_by_name_given_by_path_or_given_as_it_is(models, tmp_path):
    model, tokenizer = loaded(models())
    by_name = drillcore.extract(model, TEXTS)
    by_path = drillcore.extract(model, TEXTS, tokenizer=models("gpt2"))
    assert np.array_equal(by_name.hidden_states, by_path.hidden_states)
    tokenizer.add_tokens(["France"])
    model.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    changed = drillcore.extract(model, TEXTS, tokenizer=tokenizer)
    assert changed.n_tokens.values.tolist()[0] == by_name.n_tokens.values.tolist()[0] - len("France") + 1
    model.name_or_path = model.config.name_or_path = ""
    with pytest.raises(ModelError, match="where its tokenizer is"):
        drillcore.extract(model, TEXTS)


def test_a_tokenizer_that_cannot_be_saved_as_it_is_is_refused(models):
    model, tokenizer = loaded(models())

    class Changed:
        """Adds a token that its files know nothing of."""

        save_pretrained = tokenizer.save_pretrained

        def __call__(self, texts: list[str], **settings: Any) -> dict[str, Any]:
            return {"input_ids": [[5, *ids] for ids in tokenizer(texts, **settings)["input_ids"]]}

    with pytest.raises(ModelError, match=r"other tokens for texts\[0\] once it is saved"):
        drillcore.extract(model, TEXTS, tokenizer=Changed())


def test_one_model_serves_many_calls_and_is_loaded_once(models, monkeypatch):
    from drillcore.backends.transformers import backend

    loads, checks = [], []
    load, check = backend.load, backend.run_check
    monkeypatch.setattr(backend, "load", lambda *a: loads.append(1) or load(*a))
    monkeypatch.setattr(backend, "run_check", lambda *a, **named: checks.append(1) or check(*a, **named))
    said = Said()
    with drillcore.Extractor(models(), layers=["embed", "block_2", -1], progress=said) as extractor:
        calls = [extractor([text], labels=[i]) for i, text in enumerate(TEXTS)]
        assert (len(loads), len(checks)) == (1, 1)
        together = extractor(TEXTS)
    assert (len(loads), len(checks)) == (1, 1)
    told = "\n".join(said.lines)
    assert told.count("loading and checking") == told.count("self-check passed") == 1
    assert told.count("audit passed") == len(TEXTS) + 1
    whole = drillcore.extract(models(), TEXTS, layers=[0, 2, 4])
    for i, one in enumerate(calls):
        assert one.text.values.tolist() == [TEXTS[i]] and one.label.values.tolist() == [str(i)]
        assert relative_error(one.hidden_states.values[0], whole.hidden_states.values[i]).max() < 1e-5
    assert np.array_equal(together.hidden_states, whole.hidden_states)
    assert together.layer_name.values.tolist() == ["embed", "block_2", "final_norm"]
    with pytest.raises(RuntimeError, match="closed"):
        extractor(TEXTS)


def test_an_extractor_goes_on_after_a_wrong_call(models):
    with drillcore.Extractor(models("gpt2")) as extractor:
        with pytest.raises(DrillcoreError, match=r"texts: sentence 0 has .* tokens, the context"):
            extractor(["a" * 600])
        assert extractor("Hello").sizes["sentence"] == 1
        with pytest.raises(TypeError):
            extractor(5)
        tree = extractor(TEXTS)
    assert tree.sizes["sentence"] == 4


def test_every_call_is_audited(models, monkeypatch):
    from drillcore.runtime.work import pipeline

    with drillcore.Extractor(models()) as extractor:
        assert extractor(TEXTS).sizes["sentence"] == 4
        put = pipeline._put
        monkeypatch.setattr(pipeline, "_put", lambda states, rows, *rest: put(states, rows[::-1], *rest))
        with pytest.raises(RunError, match="the audit found rows stored wrong"):
            extractor(["another one", "and one more", "a third"])


def test_positions_give_a_tree(models):
    model, tokenizer = loaded(models())
    with drillcore.Extractor(model, tokenizer=tokenizer, positions=["last", "mean"]) as extractor:
        tree = extractor(TEXTS, fields={"number": [1, 2, 3, 4]})
    assert sorted(tree) == ["last", "mean"] and tree["mean"].hidden_states.shape == (4, 5, 32)


def test_layers_come_in_the_order_that_was_asked_for(models):
    with drillcore.Extractor(models(), layers=["block_3", 0, -1]) as extractor:
        states = extractor(TEXTS, labels=["x", None, "y", "y"])
    assert states.layer.values.tolist() == [3, 0, 4]
    assert states.layer_name.values.tolist() == ["block_3", "embed", "final_norm"]
    every = drillcore.extract(models(), TEXTS)
    np.testing.assert_allclose(states.hidden_states, every.hidden_states.sel(layer=[3, 0, 4]), rtol=1e-4, atol=1e-5)
    assert states.label.dtype == object and states.label.values.tolist() == ["x", "", "y", "y"]
    assert states.text.values.astype(str).dtype.kind == "U"
    assert drillcore.extract(models(), TEXTS, layers=[4, 1]).layer.values.tolist() == [4, 1]
    tree = drillcore.extract(models(), TEXTS, layers=np.array([3, 1]), positions=["last", "mean"])
    assert all(tree[name].layer.values.tolist() == [3, 1] for name in ("last", "mean"))


def test_places_in_the_texts_count_from_nought(models):
    with pytest.raises(DrillcoreError, match=r"texts\[1\]: field `label` is inf"):
        drillcore.extract(models(), TEXTS[:2], labels=[0.5, float("inf")])


def test_fields_come_back_and_the_model_keeps_its_name(models):
    model, tokenizer = loaded(models())
    said = Said()
    with drillcore.Extractor(model, tokenizer=tokenizer, layers=[-1], progress=said) as extractor:
        states = extractor(TEXTS, fields={"number": [3, 1, 2, 0], "who": list("abcd")})
        assert states.number.values.tolist() == [3, 1, 2, 0] and states.who.values.tolist() == list("abcd")
        with pytest.raises(DrillcoreError, match="fields: `row_id` is a name that drillcore uses itself") as refused:
            extractor(TEXTS, fields={"row_id": [1, 2, 3, 4]})
        assert refused.value.hint == "Give the field another name."
    name = Path(str(models())).name
    assert repr(extractor).startswith(f"Extractor({name}, layers=[-1]")
    assert any(line.startswith(f"{name}: self-check passed") for line in said.lines)


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"dtype": "bfloat16"}, "dtype is bfloat16, but the model is loaded already, as float32"),
        ({"device": "cuda:3"}, "device is cuda:3, but the model is loaded already, as cpu"),
        ({"backend": "vllm"}, "backend: vllm cannot run a model that is loaded already"),
        ({"revision": "main"}, "revision says how a model is loaded"),
        ({"layer": [1]}, "there is no setting layer; did you mean `layers`?"),
        ({"layers": [5]}, "layer 5 is out of range"),
        ({"layers": ["final_norm", 4]}, "final_norm and 4 are the same layer"),
    ],
)
def test_what_a_loaded_model_cannot_be_is_said_before_it_runs(models, settings, named):
    model, tokenizer = loaded(models())
    before = standing(model)
    with pytest.raises(JobError) as caught:
        drillcore.extract(model, TEXTS, tokenizer=tokenizer, **settings)
    assert named in str(caught.value) and not in_memory._held
    assert_unchanged(model, before)


def test_what_is_no_causal_model_with_weights_is_refused(models):
    with pytest.raises(ModelError, match="of type Linear, not a model of transformers"):
        drillcore.extract(torch.nn.Linear(2, 2), TEXTS)
    config = loaded(models())[0].config
    with torch.device("meta"):
        empty = AutoModelForCausalLM.from_config(config)
    with pytest.raises(ModelError, match="not in memory"):
        drillcore.extract(empty, TEXTS)
    with pytest.raises(TypeError, match="model is of type int"):
        drillcore.extract(5, TEXTS)

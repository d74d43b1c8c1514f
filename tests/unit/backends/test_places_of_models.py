"""States of any token of a sentence, and means over tokens, are those of the sentence alone, in the same passes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from drillcore.backends.transformers import cpu_trees
from drillcore.backends.transformers.backend import TransformersBackend
from drillcore.tokens.places import Places
from drillcore.tokens.sequences import Sequences
from support.backends import open_transformers
from support.plain import random_sentences

IN_SHORT = ("llama", "gemma3_text", "gpt_neox", "mistral", "qwen3")
HEADS = {"llama": {"head_dim": 16}, "qwen3": {"head_dim": 16}, "mistral": {"head_dim": 16}}


def states_of(backend: TransformersBackend, tokens: Sequences, places: tuple[Places, ...]) -> list[np.ndarray]:
    """The rows [R, K, H] of each group."""
    rows: list[dict[int, np.ndarray]] = [{} for _ in places or [None]]
    work = replace(backend.lay_out(tokens), places=places)
    nodes = 0
    for part in backend.run(work):
        nodes += part.num_nodes
        np.testing.assert_allclose(np.abs(part.values_GKH).max(-1), part.absmax_GK)
        for number, row in zip(part.sentence_S.tolist(), part.row_S.tolist(), strict=True):
            assert number not in rows[part.group]
            rows[part.group][number] = np.asarray(part.values_GKH[row], np.float32)
    assert nodes == work.num_nodes
    return [np.stack([group[i] for i in range(len(group))]) for group in rows]


def alone(folder, tokens: Sequences, num_layers: int) -> list[np.ndarray]:
    """States [T, K, H] of every token of each sentence alone, by plain transformers in float32."""
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(folder, dtype="float32").eval()
    decoder, last = model.get_decoder(), []
    layers = next(m for m in decoder.modules() if isinstance(m, torch.nn.ModuleList) and len(m) == num_layers)
    layers[-1].register_forward_hook(lambda m, a, out: last.append(out[0] if isinstance(out, tuple) else out))
    found = []
    for sentence in tokens:
        last.clear()
        with torch.inference_mode():
            ids = torch.tensor(np.asarray(sentence)[None].astype(np.int64))
            states = decoder(input_ids=ids, output_hidden_states=True, use_cache=False).hidden_states
        by_layer = [*states[:num_layers], last[0].reshape(states[0].shape), states[-1]]
        found.append(torch.stack([s[0] for s in by_layer], 1).numpy())
    return found


def drawn(seed: int) -> Sequences:
    """Sentences that share prefixes, one of them of one token, some equal, some long."""
    draw = np.random.default_rng(seed)
    long = [draw.integers(3, 384, n) for n in (150, 220)]
    return Sequences.of([*random_sentences(seed, 384, longest=90), *long, [*long[0][:140], 7], long[1][:200], [5], [5]])


def relative(got: np.ndarray, want: np.ndarray) -> float:
    return float((np.linalg.norm(got - want, axis=-1) / np.linalg.norm(want, axis=-1)).max())


@pytest.mark.parametrize("layout", ["packed", "padded"])
@pytest.mark.parametrize("architecture", IN_SHORT)
def test_places_are_those_of_a_sentence_alone(architecture, layout, models, seed):
    folder, tokens = models(architecture, **HEADS.get(architecture, {})), drawn(seed)
    backend, prepared = open_transformers(folder, layout=layout)
    if layout == "packed":
        assert prepared.numerics["attention"] == cpu_trees.NAME
    draw, lengths = np.random.default_rng(seed), tokens.lengths_N
    some = [np.sort(draw.choice(n, draw.integers(0, min(n, 5) + 1), replace=False)) for n in lengths]
    starts = draw.integers(0, lengths)
    stops = starts + 1 + draw.integers(0, lengths - starts)
    places = (
        Places.between(0 * lengths, lengths, is_mean=True),
        Places.last(tokens),
        Places.of(some),
        Places.between(starts, stops, is_mean=True),
    )
    means, last, few, spans = states_of(backend, tokens, places)
    want = alone(folder, tokens, backend.facts.num_layers)
    assert relative(last, np.stack([w[-1] for w in want])) <= 1e-5
    assert relative(few, np.concatenate([w[i] for w, i in zip(want, some, strict=True)])) <= 1e-5
    exact = [w.astype(np.float64) for w in want]
    assert relative(means, np.stack([w.mean(0) for w in exact])) <= 1e-5
    assert relative(spans, np.stack([w[a:b].mean(0) for w, a, b in zip(exact, starts, stops, strict=True)])) <= 1e-5
    (only,) = states_of(backend, tokens, ())
    np.testing.assert_array_equal(only, states_of(backend, tokens, (Places.last(tokens),))[0])
    (only_means,) = states_of(backend, tokens, places[:1])
    assert relative(only_means, np.stack([w.mean(0) for w in exact])) <= 1e-5


def test_a_device_without_memory_gives_the_same_places(models, seed, monkeypatch):
    backend, _ = open_transformers(models("llama", head_dim=16), batch_tokens=512)
    tokens = drawn(seed)
    places = (Places.last(tokens), Places.between(0 * tokens.lengths_N, tokens.lengths_N, is_mean=True))
    want = states_of(backend, tokens, places)
    forward = backend._loaded.decoder.forward

    def small(*args, **kwargs):
        if kwargs["input_ids"].numel() > 260:
            raise torch.OutOfMemoryError("simulated")
        return forward(*args, **kwargs)

    monkeypatch.setattr(backend._loaded.decoder, "forward", small)
    for got, wanted in zip(_halved(backend, tokens, places), want, strict=True):
        assert relative(got, wanted) <= 1e-5


def _halved(backend, tokens, places):
    rows: list[dict[int, np.ndarray]] = [{} for _ in places]
    notes = set()
    for part in backend.run(replace(backend.lay_out(tokens), places=places)):
        notes.add(part.note)
        for number, row in zip(part.sentence_S.tolist(), part.row_S.tolist(), strict=True):
            rows[part.group][number] = np.asarray(part.values_GKH[row], np.float32)
    assert any("out of memory" in note for note in notes)
    return [np.stack([group[i] for i in range(len(group))]) for group in rows]


def test_means_in_bfloat16_are_added_up_in_float32(models, seed):
    backend, _ = open_transformers(models("llama", head_dim=16), dtype="bfloat16", batch_tokens=512)
    tokens = Sequences.of([np.random.default_rng(seed).integers(3, 384, 400)])
    every = Places.between(np.array([0]), np.array([400]))
    rows, (mean,) = states_of(backend, tokens, (every, replace(every, is_mean=True)))
    assert relative(mean[None], rows.astype(np.float64).mean(0)[None]) <= 1e-6


def test_a_wrong_node_would_be_noticed(models, seed, monkeypatch):
    from drillcore.tokens import places as module

    folder, tokens = models("llama", head_dim=16), drawn(seed)
    backend, _ = open_transformers(folder)
    real = module._Paths.nodes
    monkeypatch.setattr(module._Paths, "nodes", lambda self, slot, depth: real(self, slot, np.maximum(depth - 1, 0)))
    (last,) = states_of(backend, tokens, (Places.last(tokens),))
    assert relative(last, np.stack([w[-1] for w in alone(folder, tokens, backend.facts.num_layers)])) > 1e-2

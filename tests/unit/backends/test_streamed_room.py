"""How much of a streamed model is in memory, and where its batches wait, changes no byte."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from drillcore.backends.base import all_states, states_of
from drillcore.backends.transformers import loading
from drillcore.backends.transformers.streamed.choice import Choice
from drillcore.backends.transformers.streamed.layers import StreamedLayers
from drillcore.backends.transformers.streamed.waiting import Copies
from drillcore.backends.transformers.streamed.weights import LayerWeights
from drillcore.tokens.sequences import Sequences
from support.backends import open_transformers
from support.plain import random_sentences


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("staying", [1, 2, 4])
def test_layers_that_stay_are_read_once_and_give_the_same_bytes(dtype, staying, models, monkeypatch):
    """Through the self-check too, which computes in float32 and without prepared linear layers."""
    folder, kinds = models("llama", num_hidden_layers=5), {"threads": 1, "batch_tokens": 64, "dtype": dtype}
    read, load = [], LayerWeights.load
    monkeypatch.setattr(LayerWeights, "load", lambda self, layer: (read.append(layer), load(self, layer))[1])
    monkeypatch.setattr(loading, "choose", lambda *_: Choice(is_streamed=True, staying=staying))
    streamed, prepared = open_transformers(folder, **kinds)
    checked = sorted(read.count(layer) for layer in range(5))
    assert checked[staying - 1] < checked[staying], "the self-check, too, finds them in memory"
    monkeypatch.setattr(loading, "choose", lambda *_: Choice(is_streamed=False))
    resident, other = open_transformers(folder, **kinds)
    read.clear()
    block = Sequences.of(random_sentences(10, 384))
    for _ in range(2):
        np.testing.assert_array_equal(all_states(streamed, block), all_states(resident, block))
    assert prepared.check.relative_error == other.check.relative_error
    counts = sorted(read.count(layer) for layer in range(5))
    assert counts[:staying] == [0] * staying and counts[staying] >= 2
    layers = streamed._loaded.streamed
    assert len(layers._held) == staying
    streamed.close()
    assert all(place.is_empty for places in layers._weights.places for place in places)


def test_layers_that_stay_are_all_but_one_at_most(models, monkeypatch):
    monkeypatch.setattr(loading, "choose", lambda *_: Choice(is_streamed=True, staying=99))
    backend, _ = open_transformers(models("llama"), (1, 2), threads=1)
    assert backend._loaded.streamed.staying == 1


def test_a_layer_in_float32_is_alone_in_memory(models, monkeypatch):
    dtypes, load, ready = [], LayerWeights.load, StreamedLayers._make_ready

    def look(weights):
        dtypes.append(sorted(str(places[0].module.weight.dtype) for places in weights.places if not places[0].is_empty))

    def loaded(self, layer):
        load(self, layer)
        look(self)

    def made_ready(self, number, linears, **more):
        undo = ready(self, number, linears, **more)
        look(self._weights)
        return undo

    monkeypatch.setattr(LayerWeights, "load", loaded)
    monkeypatch.setattr(StreamedLayers, "_make_ready", made_ready)
    open_transformers(models("llama", num_hidden_layers=6), weights="streamed", threads=1, dtype="bfloat16")
    assert ["torch.float32"] in dtypes and ["torch.bfloat16"] * 2 in dtypes
    assert all(found == ["torch.float32"] for found in dtypes if "torch.float32" in found)


def test_what_a_pass_gives_stays_when_its_tensors_have_left(models):
    """Also where a last layer computes in place, so that its output is what it was given."""
    backend, _ = open_transformers(models("llama"), weights="streamed", threads=1)
    streamed = backend._loaded.streamed

    def run(number):
        states = torch.full((1, 2, 64), float(number))
        streamed._parking.wait_for(0, streamed.keep, (states,))
        return states.add_(1.0)

    found = streamed.together([lambda n=n: run(n) for n in range(4)], [1] * 4)
    assert [states.unique().tolist() for states in found] == [[n + 1.0] for n in range(4)]


def test_batches_that_the_device_does_not_hold_wait_in_the_hosts_memory(models, monkeypatch):
    """One sweep then, where the device alone would take several; what it holds meanwhile is what was planned for."""
    backend, _ = open_transformers(models("llama"), weights="streamed", threads=1, batch_tokens=64)
    block = Sequences.of(random_sentences(11, 384))
    work, room = backend.lay_out(block), backend.sweeps._room
    whole = states_of(backend, work)
    each = max(room().memory_of(batch) for batch in work.parts)
    assert len(work.parts) >= 12
    sweeps, together, seen = [], StreamedLayers.together, []

    def run(self, passes, in_host=()):
        sweeps.append((len(passes), len(in_host)))
        return together(self, passes, in_host)

    def freed(self, kept, free=Copies.free):
        free(self, kept)
        all_kept = [k for waiting in backend._loaded.streamed._parking._waiting.values() for k in waiting._away]
        seen.append((sum(k.storage.nbytes() for k in all_kept), sum(k.host.numel() for k in all_kept)))

    monkeypatch.setattr(StreamedLayers, "together", run)
    monkeypatch.setattr(Copies, "free", freed)
    for memory, host, expected in (
        (len(work.parts) * each, 2**40, [(len(work.parts), 0)]),
        (len(work.parts) * each // 2, 2**40, [(len(work.parts), len(work.parts))]),
        (len(work.parts) * each // 2, 0, None),
    ):
        sweeps.clear()
        seen.clear()
        backend.sweeps._room = lambda m=memory, h=host: replace(room(), memory_bytes=m, host_bytes=h)
        np.testing.assert_array_equal(states_of(backend, work), whole)
        if expected is None:
            assert len(sweeps) > 1 and all(in_host == 0 for _, in_host in sweeps)
            continue
        assert sweeps == expected
        if expected[0][1]:
            # Half way through the layers, all but those on their way are gone.
            here, away = seen[len(seen) // 2]
            assert here <= 3 * each and away > here

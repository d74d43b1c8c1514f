"""Streamed decoder layers give the bytes of resident ones, with one of them in memory at a time."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from drillcore.backends.base import all_states, states_of
from drillcore.backends.transformers.backend import TransformersBackend
from drillcore.backends.transformers.feed import Feeder
from drillcore.backends.transformers.flex_attention import NAME as FLEX
from drillcore.backends.transformers.flex_attention import TILE
from drillcore.backends.transformers.masks import AttentionKinds
from drillcore.backends.transformers.streamed import sweep
from drillcore.backends.transformers.streamed.layers import StreamedLayers
from drillcore.backends.transformers.streamed.waiting import Copies
from drillcore.backends.transformers.streamed.weights import LayerWeights
from drillcore.errors import RunError, SelfCheckError
from drillcore.tokens.batches import batches
from drillcore.tokens.packs import build_packs
from drillcore.tokens.places import Places
from drillcore.tokens.sequences import Sequences
from drillcore.tokens.widths import PackRule
from support.backends import mix_up_layers, open_transformers
from support.models_table import layers_of
from support.plain import random_sentences
from tools.architectures.tiny import architectures, random_model
from tools.architectures.trial import some_sentences

CPU = torch.device("cpu")
# Each stands for something that layers hand on, share, rename or keep: routers, shared modules, positions, buffers.
KINDS = [
    "gpt2",
    "gemma3_text",
    "mixtral",
    "zamba2",
    "mllama",
    "rwkv",
    "lfm2",
    "deepseek_v3",
    "llama4_text",
    "doge",
    "longcat_flash",
]


def open_both(folder: Path, wanted="all", **extract):
    """The resident and the streamed backend, prepared, and what both were prepared with."""
    return [open_transformers(folder, wanted, **extract, **more) for more in ({}, {"weights": "streamed"})]


def assert_same(folder: Path, wanted="all", **extract) -> TransformersBackend:
    """The streamed backend, whose bytes and numerics are the resident one's."""
    (resident, one), (streamed, other) = open_both(folder, wanted, threads=1, **extract)
    assert other.numerics == {**one.numerics, "weights": "streamed"}
    assert (other.head_problem, other.check.relative_error) == (one.head_problem, one.check.relative_error)
    sentences = some_sentences(resident.facts.vocab_size)
    block = Sequences.of(sentences)
    np.testing.assert_array_equal(all_states(streamed, block), all_states(resident, block))
    assert_same_in_host(streamed, resident, [Sequences.of(sentences[:5]), Sequences.of(sentences[5:])])
    resident.close()
    return streamed


def assert_same_in_host(streamed, resident, blocks) -> None:
    """The resident bytes too, where what batches hand to their layers waits elsewhere until they go on."""
    together, free, freed = StreamedLayers.together, Copies.free, []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            StreamedLayers, "together", lambda self, passes, in_host=(): together(self, passes, [1] * len(passes))
        )
        patch.setattr(Copies, "free", lambda self, kept: free(self, [freed.append(k) or k for k in kept]))
        works = [streamed.lay_out(block) for block in blocks]
        streamed.sweeps.announce(works)
        for work, block in zip(works, blocks, strict=True):
            np.testing.assert_array_equal(states_of(streamed, work), all_states(resident, block))
    assert len(freed) >= 2 * len(works)


def check_architecture(kind: str, folder: Path) -> None:
    random_model(kind, with_images=False).save_pretrained(folder)
    assert_same(folder, "all" if layers_of(kind) == "all" else "hf", dtype="float32").close()


@pytest.mark.parametrize("kind", KINDS)
def test_an_architecture_gives_the_resident_bytes(kind, tmp_path):
    assert layers_of(kind)
    check_architecture(kind, tmp_path / "model")


@pytest.mark.long
@pytest.mark.parametrize("kind", [k for k in architectures(with_images=False) if layers_of(k)])
def test_every_architecture_of_the_table_gives_the_resident_bytes(kind, tmp_path):
    check_architecture(kind, tmp_path / "model")


@pytest.mark.long
def test_the_demo_model_gives_the_resident_bytes():
    from drillcore.backends.demo_model import ensure_demo_model

    assert_same(ensure_demo_model(), dtype="float32").close()


def test_below_float32_too(models):
    backend = assert_same(models("llama"), dtype="bfloat16")
    assert backend._numerics["dtype"] == "bfloat16"


def test_some_layers_only_and_nothing_is_read_beyond_them(models, monkeypatch):
    read = set()
    load = LayerWeights.load
    monkeypatch.setattr(LayerWeights, "load", lambda self, layer: (read.add(layer), load(self, layer))[1])
    backend = assert_same(models("llama"), (1, 2))
    read.clear()
    all_states(backend, Sequences.of([[5, 6, 7]]))
    assert read <= {0, 1}


def test_sharded_files_and_tied_weights(tmp_path):
    from transformers import AutoModelForCausalLM

    from support.tiny import tiny_config, write_tokenizer

    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(tiny_config("llama", tie_word_embeddings=True))
    model.save_pretrained(tmp_path, max_shard_size="20KB")
    write_tokenizer(tmp_path)
    assert len(list(tmp_path.glob("*.safetensors"))) > 3
    backend = assert_same(tmp_path)
    head, table = backend._loaded.causal.get_output_embeddings(), backend._loaded.causal.get_input_embeddings()
    assert head.weight is table.weight and not head.weight.is_meta


def test_no_more_than_two_layers_are_in_memory(models, monkeypatch):
    backend, _ = open_transformers(models("llama", num_hidden_layers=6), weights="streamed", threads=1)
    seen = []
    load = LayerWeights.load

    def counted(self, layer):
        load(self, layer)
        seen.append(sum(not places[0].is_empty for places in self.places))

    monkeypatch.setattr(LayerWeights, "load", counted)
    work = backend.lay_out(Sequences.of(random_sentences(0, 384)))
    states_of(backend, work)
    states_of(backend, work)
    assert len(seen) >= 12 and max(seen) == 2
    backend.close()


def test_a_layer_is_read_once_for_all_batches_of_a_sweep_and_of_several_works(models, monkeypatch):
    backend, _ = open_transformers(models("llama"), weights="streamed", threads=1, batch_tokens=64)
    resident, _ = open_transformers(models("llama"), threads=1, batch_tokens=64)
    blocks = [Sequences.of(random_sentences(seed, 384)) for seed in (1, 2)]
    read, load = [], LayerWeights.load
    monkeypatch.setattr(LayerWeights, "load", lambda self, layer: (read.append(layer), load(self, layer))[1])
    works = [backend.lay_out(block) for block in blocks]
    assert all(len(work.parts) > 3 for work in works)
    swept = backend.sweeps.num_swept
    backend.sweeps.announce(works)
    got = [states_of(backend, work) for work in works]
    assert backend.sweeps.num_swept == swept + 1
    assert sorted(read) == [0, 1, 2] or sorted(read) == [0, 0, 1, 2]  # the first one may be on its way again
    for states, block in zip(got, blocks, strict=True):
        np.testing.assert_array_equal(states, all_states(resident, block))


def test_where_a_sweep_ends_changes_nothing(models, monkeypatch):
    backend, _ = open_transformers(models("llama"), weights="streamed", threads=1, batch_tokens=64)
    block = Sequences.of(random_sentences(4, 384))
    work = backend.lay_out(block)
    whole = states_of(backend, work)
    room, sweeps = backend.sweeps._room, []
    together = sweep.Sweeps._together
    monkeypatch.setattr(
        sweep.Sweeps, "_together", lambda self, taken, room: (sweeps.append(len(taken)), together(self, taken, room))[1]
    )
    for memory, disk in ((1, 2**40), (2**40, 1), (40_000, 2**40)):
        sweeps.clear()
        backend.sweeps._room = lambda memory=memory, disk=disk: replace(room(), memory_bytes=memory, disk_bytes=disk)
        np.testing.assert_array_equal(states_of(backend, work), whole)
        assert len(sweeps) > 1 and sum(sweeps) == len(work.parts)


def test_means_and_other_places(models):
    (resident, _), (streamed, _) = open_both(models("llama"), threads=1)
    block = Sequences.of(random_sentences(5, 384))
    lengths = block.lengths_N
    every, means = Places.between(0 * lengths, lengths), Places.between(0 * lengths, lengths, is_mean=True)
    several = Places.means(np.zeros(2, np.int64), lengths[[0, 2]], np.isin(np.arange(len(block)), [0, 2]).astype(int))
    found = []
    for backend in (resident, streamed):
        work = replace(backend.lay_out(block), places=(Places.last(block), every, means, several))
        parts = list(backend.run(work))
        found.append([(p.group, p.sentence_S, p.values_GKH[p.row_S], p.absmax_GK[p.row_S]) for p in parts])
    assert len(found[0]) == len(found[1]) and {p[0] for p in found[0]} == {0, 1, 2, 3}
    for one, other in zip(*found, strict=True):
        for these, those in zip(one, other, strict=True):
            np.testing.assert_array_equal(these, those)


@pytest.mark.long
def test_masks_that_batches_share_are_those_of_the_pass_that_goes_on(models):
    kinds = {"attention": "flex", "compile": "off", "batch_tokens": TILE}
    (resident, one), (streamed, _) = open_both(models("llama"), threads=1, **kinds)
    assert one.numerics["attention"] == "drillcore_packs"
    block = Sequences.of(random_sentences(6, 384))
    assert len(streamed.lay_out(block).parts) > 1
    np.testing.assert_array_equal(all_states(streamed, block), all_states(resident, block))


def test_a_mask_that_batches_share_is_put_back():
    feeder = Feeder(AttentionKinds(("full_attention",), None), CPU, torch.float32, packed=True, attention=FLEX)
    (one,), (other,) = (
        batches(build_packs(Sequences.of(s), PackRule(TILE)), TILE) for s in ([[5, 6], [5, 7]], [[5, 6, 7, 8]])
    )

    def seen(mask):
        return [int(mask.mask_mod(0, 0, torch.tensor(2), torch.tensor(k))) for k in range(3)]

    mask = feeder.feed(one)["attention_mask"]
    want, restore = seen(mask), feeder.kept()
    feeder.feed(other)
    assert seen(mask) != want
    restore()
    assert seen(mask) == want == [1, 0, 1]


def test_out_of_memory_splits_the_sweep_then_the_batch(models):
    backend, _ = open_transformers(models("llama"), weights="streamed", threads=1)
    block = Sequences.of(random_sentences(7, 384, count=120))
    whole = all_states(backend, block)
    forward, most = backend._loaded.decoder.forward, 2

    def small(**arguments):
        if len(arguments["input_ids"]) > most:
            raise torch.OutOfMemoryError("no memory left")
        return forward(**arguments)

    backend._loaded.decoder.forward = small
    work = backend.lay_out(block)
    parts = list(backend.run(work))
    assert any("halved" in p.note for p in parts) and sum(p.num_nodes for p in parts) == work.num_nodes
    np.testing.assert_allclose(all_states(backend, block), whole, rtol=1e-4, atol=1e-5)


def test_what_a_pass_raises_ends_the_others(models):
    backend, _ = open_transformers(models("llama"), weights="streamed", threads=1, batch_tokens=64)
    block, ended = Sequences.of(random_sentences(8, 384)), []
    layer, calls = backend._loaded.decoder_layers[1], []

    def fail(*_):
        calls.append(0)
        if len(calls) == 3:
            raise ZeroDivisionError

    def run(number):
        try:
            return backend._loaded.decoder(input_ids=torch.arange(5 + number)[None], use_cache=False)
        finally:
            ended.append(number)

    handle = layer.register_forward_pre_hook(fail)
    with pytest.raises(ZeroDivisionError), backend._as_transformers():
        backend._loaded.together([lambda n=n: run(n) for n in range(6)])
    handle.remove()
    assert sorted(ended) == list(range(6)) and not backend._loaded.streamed._parking._hubs
    assert np.isfinite(all_states(backend, block)).all()


@pytest.mark.parametrize("how", ["cut", "grown", "replaced", "touched", "gone"])
def test_files_that_change_under_the_run_are_told_of_and_nothing_is_given(how, tmp_path):
    from support.tiny import tiny_model

    folder = tiny_model(tmp_path / "m")
    backend, _ = open_transformers(folder, weights="streamed", threads=1)
    block = Sequences.of(random_sentences(9, 384))
    file = folder / "model.safetensors"
    before, data = file.stat(), file.read_bytes()
    if how == "cut":
        os.truncate(file, len(data) // 2)
    elif how == "grown":
        file.write_bytes(data + b"\0" * 64)
    elif how == "replaced":
        (tmp_path / "other").write_bytes(data[:-4] + b"\1\2\3\4")
        (tmp_path / "other").replace(file)
    elif how == "touched":
        os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns + 1))
    else:
        file.unlink()
    given = []
    with pytest.raises(RunError, match=r"weights changed while they were read: .*model.safetensors"):
        given += backend.run(backend.lay_out(block))
    assert not given


def test_a_loader_that_mixes_up_layers_is_found_by_the_layers_that_accelerate_reads(models, monkeypatch):
    mix_up_layers(monkeypatch)
    with pytest.raises(SelfCheckError, match=r"as it is streamed, gives other states .* and has other weights: 1: "):
        open_transformers(models("llama"), weights="streamed", threads=1)


def test_settings_of_pytorch_are_those_of_the_sweep(models):
    """A pass that is parked inside a context must not leave it for the others."""
    backend, _ = open_transformers(models("llama"), weights="streamed", threads=1)
    seen = []

    def run():
        with torch.inference_mode():
            backend._loaded.decoder(input_ids=torch.arange(4)[None], use_cache=False)
            seen.append(torch.is_inference_mode_enabled())

    with backend._as_transformers():
        backend._loaded.together([run, run])
    assert seen == [True, True] and not torch.is_inference_mode_enabled()


def test_a_buffer_that_is_made_empty_and_filled_keeps_its_values(models, monkeypatch):
    from transformers.models.llama.modeling_llama import LlamaModel

    build = LlamaModel.__init__

    def with_buffer(self, config):
        build(self, config)
        self.register_buffer("filled", torch.empty(3).fill_(2.0), persistent=False)

    monkeypatch.setattr(LlamaModel, "__init__", with_buffer)
    backend, _ = open_transformers(models("llama"), weights="streamed", threads=1)
    assert backend._loaded.decoder.filled.tolist() == [2.0, 2.0, 2.0]
    backend.close()

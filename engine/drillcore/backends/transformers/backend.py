"""The `transformers` backend: base model, forward hooks, packs or padded batches through the public interface.

Shape legend: R rows, W width, G gathered nodes, K layers, H hidden size, V vocabulary.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from drillcore.backends import self_check
from drillcore.backends.alone import QUANTISED_AT_FIRST, QUANTISED_BOUND, Alone
from drillcore.backends.base import FloatStates, Prepared, SelfCheck, States, Work, states_of
from drillcore.backends.device import dtype_name, host_hardware, num_threads
from drillcore.backends.head import head_problem, unembed
from drillcore.backends.lengths import length_rules
from drillcore.backends.self_check import CheckSentences
from drillcore.backends.source import ModelSource
from drillcore.backends.transformers import cpu_trees as trees
from drillcore.backends.transformers import flex_attention as flex
from drillcore.backends.transformers.checking import Checked, run_check
from drillcore.backends.transformers.compiled import NAME as COMPILED
from drillcore.backends.transformers.compiled import Compilations, CompiledLayers
from drillcore.backends.transformers.cpu_attention import WIDEST
from drillcore.backends.transformers.cpu_linears import NAME as ONEDNN
from drillcore.backends.transformers.cpu_linears import are_worth
from drillcore.backends.transformers.dequantised import is_dequantised
from drillcore.backends.transformers.device_memory import MOST_NODES, fitting_nodes, free_bytes, node_bytes
from drillcore.backends.transformers.feed import Feeder
from drillcore.backends.transformers.hooks import Gatherer
from drillcore.backends.transformers.host import BatchCopy, keep_freed_memory
from drillcore.backends.transformers.masks import attention_kinds
from drillcore.backends.transformers.merged import NAME as MERGED
from drillcore.backends.transformers.merged import MergedLinears
from drillcore.backends.transformers.packing import halves_of, pack_batches, pack_numerics, pack_rule, raised_note
from drillcore.backends.transformers.plain import compute_alone
from drillcore.backends.transformers.sharded import load
from drillcore.backends.transformers.sharding import dense_only
from drillcore.backends.transformers.streamed.passes import Linears, prepared_linears, refuse_made_over, sweeps_of
from drillcore.backends.transformers.surroundings import pinned
from drillcore.backends.transformers.trace import first_tensor
from drillcore.backends.transformers.ways import Way, register, way_of, ways_to_try
from drillcore.backends.weight_files import first_line
from drillcore.errors import ModelError, SelfCheckError
from drillcore.job.extract import Extract
from drillcore.tokens.batches import Batch, batches, padded_batches
from drillcore.tokens.packs import build_packs
from drillcore.tokens.places import Places, gathering
from drillcore.tokens.sequences import Sequences
from drillcore.tokens.widths import PackRule

# What a model raises that does not accept a layout.
NOT_ACCEPTED: tuple[type[Exception], ...] = (TypeError, ValueError, RuntimeError, IndexError, AttributeError)


class TransformersBackend:
    """One model on one device (or spread by device_map). sweeps: what runs its batches where layers are streamed."""

    @pinned()
    def __init__(self, source: ModelSource, extract: Extract, layers: Sequence[int]) -> None:
        started = time.perf_counter()
        self.facts = source.facts
        self._source, self._extract = source, extract
        self._layers = tuple(layers)
        torch.set_num_threads(num_threads(extract))
        self._loaded = load(source, extract, self._layers)
        self._plain_attention = self._loaded.decoder.config._attn_implementation
        self._kinds = attention_kinds(self._loaded.decoder.config)
        self._rules = length_rules(source.config)
        loaded = self._loaded
        with ExitStack() as stack:
            stack.callback(loaded.close)
            hidden_size, num_layers, skipped = self.facts.hidden_size, self.facts.num_layers, loaded.ending.skipped
            self._gatherer = Gatherer(loaded.decoder_layers, self._layers, hidden_size, num_layers, skipped)
            if loaded.shards is not None:
                self._gatherer.compute_whole_mlp()  # as the other processes do
            self._gatherer.keep_shortcut_if_exact(loaded.decoder, loaded.ending.ids_T, loaded.dtype)
            stack.pop_all()
        self.sweeps = sweeps_of(loaded, self._gatherer, lambda: self._feeder if self._numerics else None, self._halves)
        device = self._loaded.device
        self._side = torch.cuda.Stream(device) if device.type == "cuda" else None
        keep_freed_memory()
        self._numerics: dict[str, Any] = {}
        self._dtype = self._loaded.dtype
        self._memory: dict[str, int] = {}
        self._merged: MergedLinears | None = None
        self._linears: Linears | None = None
        self._compile: CompiledLayers | None = None
        self._load_seconds = time.perf_counter() - started

    @pinned()
    def prepare(self, sample: Sequences, stored: dict[str, Any] | None) -> Prepared:
        """Resolve numerics and check them; falls back from packs to padded batches and notes why.

        Raises SelfCheckError where no layout is within its bound, ModelError where the model is not causal.
        """
        started = time.perf_counter()
        refuse_made_over(self._loaded, stored)
        notes, self._most = list(self._loaded.notes), QUANTISED_BOUND if stored else QUANTISED_AT_FIRST
        for way in [way_of(stored)] if stored else self._ways(notes):
            numerics, before = stored or self._resolve(way), Compilations.so_far()
            try:
                self._use(numerics)
                check = self._check(sample, (*notes, *raised_note(self._extract.batch_tokens, numerics)))
            except NOT_ACCEPTED + flex.refusals() as error:
                if isinstance(error, torch.OutOfMemoryError):
                    raise
                notes.append(f"{way}: the model does not accept it ({type(error).__name__}: {first_line(error)})")
                continue
            if check.passed:
                seconds = self._load_seconds + time.perf_counter() - started
                compiled = asdict(Compilations.so_far().since(before)) if way.compiled else {}
                problem = head_problem(self._loaded)
                numerics = dict(self._numerics)
                more: dict[str, Any] = {"compiled": compiled, "memory": dict(self._memory)}
                return Prepared(numerics, check, seconds, check.notes, head_problem=problem, **more)
            notes.append(f"{way}: {check.failure}")
        raise SelfCheckError(
            f"model {self._source.model.id} disagrees with transformers one sentence at a time; " + "; ".join(notes),
            hint="The model is refused, since its states would be silently wrong.",
        )

    def _ways(self, notes: list[str]) -> list[Way]:
        """Ways to try, the cheapest first."""
        if self._rules.positions_depend_on_batch:
            notes.append("positions depend on the longest sentence of a batch: batches hold lengths that agree")
        if self._extract.layout == "auto" and not self._kinds.packable:
            notes.append(f"padded batches: layers of kind {', '.join(self._kinds.kinds)} cannot be packed")
        loaded = self._loaded
        kinds = {"packable": self._kinds.packable, "quantised": loaded.is_quantised}
        extract = self._extract if loaded.shards is None else dense_only(self._extract)
        if loaded.streamed is not None:
            # What is compiled or merged is made of weights that stay.
            extract = extract.model_copy(update={"compile": "off", "merge": "off"})
        return ways_to_try(extract, loaded.device, loaded.dtype, self._plain_attention, **kinds)

    def _use(self, numerics: dict[str, Any]) -> None:
        """Use these numerics in all following passes."""
        self._rest()
        self._numerics = numerics
        self._is_single = self._loaded.is_quantised and numerics["batch_nodes"] == 1
        if self._loaded.is_quantised and numerics["layout"] == "equal":
            self._gatherer.compute_whole_mlp()
        register(numerics["attention"])
        self._compute_in(self._loaded.dtype)
        self._loaded.causal.set_attn_implementation(numerics["attention"])
        if numerics["attention"] == trees.NAME != self._loaded.decoder.config._attn_implementation:
            raise ValueError("its attention cannot be replaced")
        self._compile = None
        self._merge(merged=numerics.get("merged") is not None)
        if self._linears is None and numerics.get("linear") == ONEDNN:
            self._linears = prepared_linears(self._loaded, numerics["batch_nodes"])
        if numerics.get("compile") is not None:
            self._compile = CompiledLayers(self._loaded.causal, self._loaded.decoder_layers)
        self._use_ours()

    def _merge(self, *, merged: bool) -> None:
        """Merge linear layers, or take them apart; those of oneDNN are made of what is in place."""
        if merged == (self._merged is not None):
            return
        self._linears, self._merged = None, None
        if merged:
            loaded = self._loaded
            with self._as_transformers():
                self._merged = MergedLinears(loaded.decoder, loaded.decoder_layers, loaded.ending.ids_T)

    def _use_ours(self) -> None:
        """Compute as these numerics say; a dtype that is not the model's own is compiled and laid out for nothing."""
        if self._merged is not None:
            self._merged.use()
        if self._dtype != self._loaded.dtype:
            return
        if self._linears is not None and self._numerics.get("linear") == ONEDNN:
            self._linears.use()
        if self._compile is not None:
            self._compile.use()

    def _rest(self) -> None:
        """Compute as transformers does, but for attention."""
        if self._merged is not None:
            self._merged.rest()
        if self._linears is not None:
            self._linears.rest()
        if self._compile is not None:
            self._compile.rest()

    def _compute_in(self, dtype: torch.dtype) -> None:
        """Masks and states of this dtype in all following passes."""
        numerics, self._dtype = self._numerics, dtype
        self._feeder = Feeder(
            self._kinds,
            self._loaded.device,
            dtype,
            packed=numerics["layout"] == "packed",
            attention=numerics["attention"],
        )

    def _resolve(self, way: Way) -> dict[str, Any]:
        """Everything that decides bytes."""
        on_cpu = self._loaded.device.type == "cpu"
        packs = pack_numerics(
            way.attention,
            self._extract.batch_tokens,
            on_cpu=on_cpu,
            hidden_size=self.facts.hidden_size,
            memory_bytes=host_hardware(self._extract).memory_bytes,
            fitting_nodes=self._fitting_nodes(),
            thresholds=[t for t in self._rules.thresholds if t != self._kinds.window],
        )
        return {
            "layout": way.layout,
            **packs,
            **({"batch_nodes": 1} if way.single else {}),
            "attention": way.attention,
            **({"compile": COMPILED} if way.compiled else {}),
            **({"merged": MERGED} if way.merged else {}),
            "linear": ONEDNN if self._takes_onednn() and not way.compiled else "torch",
            "dtype": dtype_name(self._loaded.dtype),
            "device": "cpu" if on_cpu else torch.cuda.get_device_name(self._loaded.device),
            "instructions": torch.backends.cpu.get_cpu_capability() if on_cpu else "",
            "threads": torch.get_num_threads(),
            **({"tensor_parallel": self._extract.tensor_parallel} if self._loaded.shards is not None else {}),
            **({"weights": "streamed"} if self._loaded.streamed is not None else {}),
            **({"dequantized": "fp8"} if is_dequantised(self._source) else {}),
            "torch": torch.__version__,
        }

    def _fitting_nodes(self) -> int:
        """Nodes of a batch that a GPU has memory for, beside the weights."""
        loaded = self._loaded
        node = node_bytes(self._source.config, self.facts.hidden_size, len(self._layers), loaded.dtype.itemsize)
        self._memory = {"node_bytes": node.total}
        if loaded.device.type != "cuda":
            return MOST_NODES
        self._memory["free_bytes"] = free_bytes(loaded.device)
        return fitting_nodes(self._memory["free_bytes"], node)

    def _takes_onednn(self) -> bool:
        loaded = self._loaded
        is_whole = self._source.model.device_map is None and loaded.shards is None
        memory_bytes = host_hardware(self._extract).memory_bytes
        return loaded.device.type == "cpu" and is_whole and are_worth(loaded.decoder_layers, loaded.dtype, memory_bytes)

    def _check(self, sample: Sequences, notes: tuple[str, ...]) -> SelfCheck:
        facts, numerics, loaded = self.facts, self._numerics, self._loaded
        if loaded.final_norm is None and loaded.cut in self._layers:
            raise ModelError(
                f"model {self._source.model.id}: what follows its last decoder layer could not be found by running it, "
                f"so layer {loaded.cut} cannot be compared with transformers",
                hint="Leave that layer out: extract.layers: hf.",
            )
        checked = Checked(self._loaded, self._layers, self._rules, self._as_transformers)
        widest = 0
        if numerics["layout"] == "packed":
            widest = max(numerics["width"], pack_rule(numerics).widest)
        sentences = self_check.choose_sentences(
            sample,
            facts.vocab_size,
            facts.max_tokens,
            self._rules,
            widest,
            self._kinds.window,
            narrow=WIDEST if numerics["attention"] == trees.NAME else None,
        )
        layout, most = numerics["layout"], 0.0 if self._is_single else self._most
        check = run_check(checked, sentences, self._check_states, layout, most)
        return replace(check, notes=(*notes, *check.notes))

    def _check_states(self, sentences: CheckSentences, dtype: torch.dtype) -> FloatStates:
        """States [C, K, H] of the check's sentences, in our batches and this dtype; siblings together in one pack."""
        self._rest()
        self._compute_in(dtype)
        self._use_ours()
        works = [self.lay_out(sentences.apart), *(self._in_one_pack(s) for s in sentences.together)]
        try:
            if self.sweeps is not None:
                self.sweeps.announce(works)
            return np.concatenate([states_of(self, work) for work in works])
        finally:
            self._compute_in(self._loaded.dtype)
            self._use_ours()

    def _in_one_pack(self, sentences: Sequences) -> Work:
        if self._numerics["layout"] != "packed":
            return self.lay_out(sentences)
        width = -(-int(sentences.lengths_N.sum()) // flex.TILE) * flex.TILE
        if self._numerics["attention"] == flex.NAME and width <= self._numerics["width"]:
            return self.lay_out(sentences)
        return Work(len(sentences), 0, 0, list(batches(build_packs(sentences, PackRule(width)), width)))

    @contextmanager
    def _as_transformers(self) -> Iterator[None]:
        """The model as transformers would run it."""
        causal, ours = self._loaded.causal, self._loaded.decoder.config._attn_implementation
        if ours != self._plain_attention:
            causal.set_attn_implementation(self._plain_attention)
        self._rest()
        try:
            yield
        finally:
            if ours != self._plain_attention:
                causal.set_attn_implementation(ours)
            self._use_ours()

    @pinned()
    def alone(self, sentences: Sequences, places: Places | None = None) -> Alone:
        """States of each sentence alone, with the model as transformers would run it."""
        with self._as_transformers():
            return compute_alone(self._loaded, self._layers, sentences, places)

    def lay_out(self, block: Sequences) -> Work:
        """Packs or padded batches of a block; batches hold sentences of one regime of positions only."""
        parts = []
        equal = self._numerics["layout"] == "equal"
        regimes_N = block.lengths_N if equal else self._rules.regimes(block.lengths_N)
        for regime in np.unique(regimes_N).tolist():
            index = np.flatnonzero(regimes_N == regime)
            if len(index) == len(block):
                parts += self._batches(block)
            else:
                parts += [replace(b, sentence_S=index[b.sentence_S]) for b in self._batches(block.take(index))]
        useful = sum(b.num_nodes for b in parts)
        return Work(len(block), useful, sum(b.token_ids_RW.size for b in parts) - useful, parts)

    def _batches(self, block: Sequences) -> list[Batch]:
        if self._numerics["layout"] != "packed":
            return list(padded_batches(block, self._numerics["batch_nodes"]))
        return pack_batches(block, self._numerics)

    def run(self, work: Work) -> Iterator[States]:
        """Forward passes, batch by batch; on CUDA the next pass runs while the states of the last one are copied."""
        if self.sweeps is not None:
            yield from self.sweeps.run(work)
            return
        copies: deque[BatchCopy] = deque()
        for batch in work.parts:
            for copy in self._run(batch, "", work):
                copies.append(copy)
                if self._side is None or len(copies) > 1:
                    yield from copies.popleft().take()
        while copies:
            yield from copies.popleft().take()

    def _run(self, batch: Batch, note: str, work: Work) -> Iterator[BatchCopy]:
        """One batch; halved, and again, where the device has no memory for it."""
        try:
            copy = self._forward(batch, note, work)
        except torch.OutOfMemoryError as error:
            halves, note = self._halves(batch, error)
        else:
            yield copy
            return
        # Outside the handler: its traceback keeps the tensors that did not fit alive.
        if self._loaded.device.type == "cuda":
            torch.cuda.empty_cache()
        for half in halves:
            yield from self._run(half, note, work)

    def _halves(self, batch: Batch, error: Exception) -> tuple[Sequence[Batch], str]:
        step = flex.TILE if self._numerics["attention"] == flex.NAME else 1
        return halves_of(batch, step, str(self._loaded.device), error)

    @pinned()
    def _forward(self, batch: Batch, note: str, work: Work) -> BatchCopy:
        with torch.inference_mode():
            if self._rules.scaled_above is not None:
                with self._as_transformers():
                    self_check.settle_positions(self._loaded.decoder)
            arguments, wanted = self._feeder.feed(batch), gathering(batch, work.places)
            means = self._gatherer.begin_places(wanted, self._feeder.to_device, self._dtype)
            try:
                output = self._loaded.decoder(use_cache=False, **arguments)
                states_GKH = self._gatherer.finish(first_tensor(output))
            finally:
                self._gatherer.cancel()
            return BatchCopy(batch, wanted, (states_GKH, *means), note, self._side, work.store_dtype)

    @pinned()
    def unembed(self, states_GH: FloatStates) -> NDArray[np.float32]:
        """Logits [G, V] of states [G, H] of layer L through the model's own final norm and head."""
        return unembed(self._loaded, states_GH)

    def close(self) -> None:
        """Free the model."""
        self._gatherer.remove()
        if self._numerics.get("attention") == flex.NAME:
            flex.forget()
        self._loaded.close()
        del self._loaded
        if torch.cuda.is_available():
            torch.cuda.empty_cache()

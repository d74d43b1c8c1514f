"""The `vllm` backend: vLLM's offline engine in pooling mode, with hooks in its worker that gather the wanted layers.

Prompts go in as token ids in lexicographic order, each once, so that vLLM's prefix cache finds shared prefixes. States
come back through shared memory.

Shape legend: G unique prompts of a part, K layers, H hidden size.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from drillcore.backends.alone import Alone
from drillcore.backends.base import FloatStates, Prepared, States, Work, all_states
from drillcore.backends.lengths import LengthRules, length_rules
from drillcore.backends.self_check import choose_sentences
from drillcore.backends.source import ModelSource
from drillcore.backends.transformers.plain import alone_states
from drillcore.backends.vllm.engine import VllmEngine
from drillcore.backends.vllm.prompts import by_group, make_parts, num_computed
from drillcore.backends.vllm.reference import Reference
from drillcore.backends.vllm.refusals import refuse, vllm_version
from drillcore.backends.vllm.settings import Settings, check_memory, resolve_settings
from drillcore.backends.vllm.shared_rows import SharedRows
from drillcore.backends.vllm.worker import Orders
from drillcore.errors import RunError, SelfCheckError
from drillcore.job.extract import Extract
from drillcore.tokens.places import Places
from drillcore.tokens.sequences import Sequences

LAYOUT = "vllm"
# Size of the rows that one call of the engine fills: it bounds memory, and no row is overwritten before it is read.
ROWS_BYTES = 128 * 2**20
MIN_ROWS, MAX_ROWS = 64, 4096


class VllmBackend:
    """One model in one vLLM engine."""

    def __init__(self, source: ModelSource, extract: Extract, layers: Sequence[int]) -> None:
        self.facts = source.facts
        self._source, self._extract = source, extract
        self._layers = tuple(layers)
        self._version = vllm_version()
        refuse(source, extract)
        self._engine: VllmEngine | None = None
        self._rows: SharedRows | None = None
        self._reference: Reference | None = None
        self._prepared: Prepared | None = None
        self._settings: Settings | None = None

    def alone(self, sentences: Sequences, places: Places | None = None) -> Alone:
        """States of each sentence alone by transformers, whose model is gone again before the engine starts."""
        self.close()
        return alone_states(self._source, self._extract, self._layers, sentences, places)

    def prepare(self, sample: Sequences, stored: dict[str, Any] | None) -> Prepared:
        """Start the engine and check it, unless it already runs with these numerics."""
        if self._prepared and self._engine and (stored is None or _agree(stored, self._prepared.numerics)):
            return self._prepared
        self.close()
        started = time.perf_counter()
        settings = resolve_settings(self._source, self._extract, stored)
        sentences = check_sentences(sample, settings, self.facts.vocab_size, length_rules(self._source.config))
        with tempfile.TemporaryDirectory(prefix="drillcore-weights-") as folder:
            written = Path(folder) if _must_be_written(self._source) else None
            self._reference = Reference(self._source, self._extract, self._layers, sentences, written)
            check_memory(self._source, settings, self._reference.weight_bytes)
            self._start(settings, str(written or self._source.location))
        notes = list(self._reference.notes)
        for sums in [stored["adds_residual"]] if stored else [True, False]:
            self._engine_running().add_residuals(sums)
            check = self._reference.check(all_states(self, sentences), LAYOUT, tuple(notes))
            if check.passed:
                numerics = self._numerics(settings, sums)
                seconds, problem = time.perf_counter() - started, self._reference.head_problem()
                self._prepared = Prepared(numerics, check, seconds, check.notes, head_problem=problem)
                return self._prepared
            notes.append(f"vllm, layers' output {'in two parts' if sums else 'whole'}: {check.failure}")
        self.close()
        raise SelfCheckError(
            f"model {self._source.model.id} disagrees with transformers one sentence at a time; " + "; ".join(notes),
            hint="Set extract.backend: transformers.",
        )

    def _start(self, settings: Settings, location: str) -> None:
        row_bytes = 4 * len(self._layers) * self.facts.hidden_size
        num_rows = int(np.clip(ROWS_BYTES // row_bytes, MIN_ROWS, MAX_ROWS))
        dtype = "float16" if settings.dtype == "float16" else "float32"
        self._engine = VllmEngine(self._source, location, settings)
        self._rows = SharedRows.create(num_rows, len(self._layers), self.facts.hidden_size, dtype)
        try:
            self._engine.install(Orders(self._layers, self.facts.num_layers, self._rows.file))
        finally:
            self._rows.settled()
        self._settings = replace(settings, kv_blocks=self._engine.kv_blocks)

    def _numerics(self, settings: Settings, sums: bool) -> dict[str, Any]:
        """Everything that decides bytes."""
        engine = self._engine_running()
        on_cpu = engine.facts["device"] == "cpu"
        return {
            "layout": LAYOUT,
            **asdict(replace(settings, kv_blocks=engine.kv_blocks)),
            "prefix_caching": True,
            "adds_residual": sums,
            "attention": engine.facts["attention"],
            "device": engine.facts["device"],
            "instructions": torch.backends.cpu.get_cpu_capability() if on_cpu else "",
            "threads_of_a_rank": engine.facts["threads"],
            "torch": torch.__version__,
            "vllm": self._version,
        }

    def lay_out(self, block: Sequences) -> Work:
        """Each distinct prompt once, in the order that shares most."""
        assert self._settings is not None and self._rows is not None
        longest = int(block.lengths_N.max(initial=0))
        if longest > self._settings.max_tokens:
            raise RunError(
                f"sentence {int(block.lengths_N.argmax())} of a block has {longest} tokens; the engine's cache has "
                f"room for sentences of {self._settings.max_tokens}",
                hint="On a CPU set VLLM_CPU_KVCACHE_SPACE (GiB) higher; else set extract.backend: transformers.",
            )
        parts = make_parts(block, self._rows.file.num_rows)
        return Work(len(block), num_computed(parts, self._settings.block_tokens), 0, parts)

    def run(self, work: Work) -> Iterator[States]:
        """States of each part, as the engine finishes it."""
        if any(places.is_mean or (np.diff(places.bounds_N1) > 1).any() for places in work.places):
            raise RunError(
                "backend vllm gives the states of last tokens only", hint="Set extract.backend: transformers."
            )
        engine = self._engine_running()
        assert self._rows is not None
        # Earlier blocks must not change the batches, and so the bytes, of this one.
        engine.forget_prefixes()
        for part in work.parts:
            rows_G, cached = engine.encode(part.prompts)
            states = States(
                self._rows.values_CKH[rows_G],
                self._rows.absmax_CK[rows_G],
                part.sentence_S,
                part.row_S,
                num_nodes=part.num_tokens - cached,
                num_padding=0,
            )
            yield from by_group(states, work.places)

    def unembed(self, states_GH: FloatStates) -> NDArray[np.float32]:
        """Logits [G, V] of states [G, H] of layer L, as transformers computes them."""
        assert self._reference is not None
        return self._reference.unembed(states_GH)

    def close(self) -> None:
        """End the engine's processes."""
        engine, self._engine = self._engine, None
        self._prepared = None
        if engine is not None:
            engine.close()

    def _engine_running(self) -> VllmEngine:
        if self._engine is None:
            raise RunError("the engine is not running", hint="Call prepare first.")
        return self._engine


def check_sentences(sample: Sequences, settings: Settings, vocab_size: int, rules: LengthRules) -> Sequences:
    """The sentences of every backend's self-check, and two that share more than one block of the prefix cache."""
    sentences = list(choose_sentences(sample, vocab_size, settings.max_tokens, rules).all())
    draw = np.random.default_rng(1)
    trunk = draw.integers(0, vocab_size, min(2 * settings.block_tokens + 3, settings.max_tokens - 2))
    siblings = [np.concatenate([trunk, draw.integers(0, vocab_size, n)]).astype(np.int32) for n in (1, 2)]
    return Sequences.of([*sentences, *siblings])


def _must_be_written(source: ModelSource) -> bool:
    """Whether no file holds the weights that are computed with, so that an engine needs some: drawn, or merged."""
    return source.model.random_weights or source.adapter is not None


def _agree(stored: dict[str, Any], numerics: dict[str, Any]) -> bool:
    return all(stored.get(name) == value for name, value in numerics.items())

"""Fixed sentences whose states a store keeps for each model: whether the model still gives the same ones.

A change of the weights, of the revision, of a library or of a setting such as the base of rotary positions shows here,
before new states are written beside old ones.

Shape legend: C canaries, K layers.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from drillcore.backends import MODEL_DISTRIBUTIONS
from drillcore.backends.alone import BOUND, OWN_DTYPE_BOUNDS, Alone, relative_errors
from drillcore.backends.source import ModelSource, identity
from drillcore.store.canaries import Canaries
from drillcore.system.versions import installed_versions
from drillcore.tokens.sequences import Sequences
from drillcore.tokens.tokenizer import Tokenizer

TEXTS = (
    "The capital of France is",
    "In 1969 two people walked on the Moon while a third one stayed in orbit around it.",
    "def area(radius): return 3.14159 * radius ** 2  # π r², in m²; площадь круга, 圆的面积",
    "Once upon a time, in a village between two rivers, there lived a clockmaker whose clocks ran neither fast nor "
    "slow. People came from the cities on both banks to hear them strike twelve, and each went home sure that the "
    "other bank was a little behind. Nobody asked the clockmaker, who owned no watch and rose with the birds.",
)
# A text of fewer distinct tokens says nothing of positions: attention over equal values gives the same value.
FEW_TOKENS = 4
NUM_IDS = 48
MAX_NAMED = 5
# On the same device with the same libraries a model gives the same bits, or nearly so; elsewhere it rounds otherwise.
SAME_MACHINE_BOUND = 1e-5
# Entries of a configuration that say where and by which version it was read.
NOT_THE_MODEL = ("_name_or_path", "transformers_version", "_commit_hash", "dtype", "torch_dtype", "architectures")


def canary_tokens(tokenizer: Tokenizer, vocab_size: int, max_tokens: int | None) -> Sequences:
    """Token ids of the canaries: their texts, or ids drawn over the vocabulary where a tokenizer knows too little."""
    draw, rows = np.random.default_rng(0), []
    for ids in tokenizer.encode(TEXTS):
        drawn = draw.integers(0, vocab_size, NUM_IDS).tolist()
        rows.append((ids if len(set(ids)) >= FEW_TOKENS else drawn)[:max_tokens])
    return Sequences.of(rows)


def stored_tokens(canaries: Canaries) -> Sequences:
    """Token ids that stored canaries are of."""
    return Sequences.of(canaries.facts["ids"])


def make_canaries(
    alone: Alone, tokens: tuple[Sequences, Sequences], layers: Sequence[int], source: ModelSource, special_tokens: str
) -> Canaries:
    """What to store: the states, and what is known of the model, to name later what has changed.

    tokens: those that the states are of, and those that the tokenizer gives now.
    """
    return Canaries(
        alone.states_CKH,
        {
            "texts": list(TEXTS),
            "ids": [ids.tolist() for ids in tokens[0]],
            "tokenized": [ids.tolist() for ids in tokens[1]],
            "special_tokens": special_tokens,
            "layers": list(layers),
            "dtype": alone.dtype,
            "own_dtype": alone.own_dtype,
            "machine": alone.machine,
            "model": _known(source),
            "versions": installed_versions(MODEL_DISTRIBUTIONS),
        },
    )


@dataclass(frozen=True)
class Change:
    """How a model compares with the one whose canaries are stored.

    what: how its states differ; empty where they are the same. named: what is known to have changed, whether or not it
    shows in the states.
    """

    what: str = ""
    named: str = ""


def changed(canaries: Canaries, alone: Alone, layers: Sequence[int], source: ModelSource) -> Change:
    """Compare a model with the stored canaries; alone: of `stored_tokens` at `layers`, now."""
    facts = canaries.facts
    shared = [k for k in facts["layers"] if k in layers]
    names = _differences(facts, source)
    named = ", ".join(names[:MAX_NAMED]) + (f" and {len(names) - MAX_NAMED} more" if len(names) > MAX_NAMED else "")
    if not shared:
        return Change(named=named)
    before_CKH = canaries.states_CKH[:, [facts["layers"].index(k) for k in shared]]
    now_CKH = alone.states_CKH[:, [list(layers).index(k) for k in shared]]
    if before_CKH.shape != now_CKH.shape:
        return Change("its states have another size than those of its canary sentences in the store", named)
    errors_CK = np.where(np.isnan(before_CKH).any(axis=2), 0.0, relative_errors(now_CKH, before_CKH))
    bound = _bound(facts, alone)
    if bool((errors_CK <= bound).all()):
        return Change(named=named)
    canary, slot = np.unravel_index(int(np.nan_to_num(errors_CK, nan=np.inf).argmax()), errors_CK.shape)
    what = (
        f"its canary sentence {int(canary) + 1} (“{_short(TEXTS[int(canary)])}”) has other states than in the store, "
        f"relative error {errors_CK[canary, slot]:.2g} at layer {shared[int(slot)]} (bound {bound:.0e})"
    )
    return Change(what, named or "nothing that is recorded of its configuration, weights and libraries")


def _bound(facts: Mapping[str, Any], alone: Alone) -> float:
    """The largest relative error of a canary that passes: narrow where nothing else decides its bits."""
    if (facts["dtype"], facts["own_dtype"]) != (alone.dtype, alone.own_dtype):
        dtypes = {facts["dtype"], facts["own_dtype"], alone.dtype, alone.own_dtype}
        return max(OWN_DTYPE_BOUNDS.get(dtype, BOUND) for dtype in dtypes)
    same = facts["machine"] == alone.machine and facts["versions"] == installed_versions(MODEL_DISTRIBUTIONS)
    if same and alone.dtype == "float32":
        return SAME_MACHINE_BOUND
    bound = OWN_DTYPE_BOUNDS.get(alone.dtype, BOUND)
    return max(bound, alone.quantised_bound)


def other_tokens(canaries: Canaries, tokens: Sequences, special_tokens: str) -> str:
    """How the tokenizer differs from the one whose tokens are stored; empty where it does not."""
    facts = canaries.facts
    if facts["special_tokens"] != special_tokens or facts["texts"] != list(TEXTS):
        return ""
    wrong = [
        c for c, (before, now) in enumerate(zip(facts["tokenized"], tokens, strict=True)) if before != now.tolist()
    ]
    if not wrong:
        return ""
    return f"its tokenizer gives other tokens for canary sentence {wrong[0] + 1} (“{_short(TEXTS[wrong[0]])}”)"


def _known(source: ModelSource) -> dict[str, Any]:
    config: dict[str, Any] = json.loads(source.config.to_json_string(use_diff=False))
    named = {k: v for k, v in identity(source).items() if k != "config"}
    return {**named, "config": {k: v for k, v in config.items() if k not in NOT_THE_MODEL}}


def _differences(facts: dict[str, Any], source: ModelSource) -> list[str]:
    """What is known to have changed, each in a few words."""
    before = {**facts["model"], **facts["versions"]}
    return [*_pairs("", before, {**_known(source), **installed_versions(MODEL_DISTRIBUTIONS)})]


def _pairs(place: str, before: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[str]:
    for name in sorted({*before, *now}):
        old, new = before.get(name), now.get(name)
        if isinstance(old, dict) and isinstance(new, dict):
            yield from _pairs(f"{place}{name}.", old, new)
        elif old != new:
            yield f"{place}{name} {_short(str(old))} → {_short(str(new))}"


def _short(text: str) -> str:
    return text if len(text) <= 40 else text[:37] + "..."

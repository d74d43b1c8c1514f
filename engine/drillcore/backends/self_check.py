"""The self-check: our states against `transformers` one sentence at a time, independent of our hooks.

Structure (masks, positions, layers, norm, gathered nodes) is compared in float32, where packed and single sentences
differ by rounding only. A lower precision is held to its own noise: that of one sentence at a time.

Shape legend: C sentences of the check, K layers, H hidden size.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from drillcore.backends.alone import BOUND, NOISE_FACTOR, ONE_STEP
from drillcore.backends.base import RoundingCheck
from drillcore.backends.lengths import LengthRules
from drillcore.backends.transformers.trace import relative_error
from drillcore.errors import ModelError
from drillcore.tokens.sequences import Sequences

# Length of the job's sentences but the longest, and of random ones.
MAX_SENTENCE = 512
# Rows of the job that are compared: the shortest, the longest, and some between them.
OWN_SENTENCES = 7
# All hidden states of one sentence at most; of a longer one only the last layer is compared.
MAX_HIDDEN_BYTES = 2 * 2**30


@dataclass(frozen=True)
class CheckSentences:
    """What the self-check compares.

    apart: sentences in any batches. together: sets of long siblings, each to be laid out in one pack, so that columns
    and depths differ by more than a window.
    """

    apart: Sequences
    together: tuple[Sequences, ...] = ()

    def all(self) -> Sequences:
        """Every sentence [C]: first those apart, then set by set."""
        return Sequences.of([*self.apart, *(s for siblings in self.together for s in siblings)])


def choose_sentences(
    sample: Sequences,
    vocab_size: int,
    max_tokens: int | None,
    rules: LengthRules | None = None,
    widest_pack: int = 0,
    by_depth: int | None = None,
    narrow: int | None = None,
) -> CheckSentences:
    """Sentences that would reveal a mistake: some of the job, its longest uncut, and random ones that share prefixes.

    sample: rows of the job, the longest among them. max_tokens: longest sentence that the model takes, or None. rules:
    where the model's behaviour changes; lengths on both sides of each place that the job's sentences reach are added,
    and siblings where only a pack of at most `widest_pack` nodes reaches it. by_depth: a window that our own masks
    apply to depths, which no pack of shorter sentences can reach. narrow: width above which packs are computed in
    another way; siblings fill a wider one.
    """
    draw = np.random.default_rng(0)
    limit = max_tokens or 2**31
    short = min(MAX_SENTENCE, limit)
    trunk = _random(draw, vocab_size, min(24, short))
    sentences = [trunk[:1], trunk[:5], trunk]
    # Branches of the trunk: two at the same node, one further down, and one that shares nothing with it.
    for cut, tail in ((5, 1), (5, 9), (12, 3), (0, 2)):
        sentences.append(np.concatenate([trunk[:cut], _random(draw, vocab_size, tail)])[:short])
    own = sorted((np.asarray(s[:limit], np.int32) for s in sample), key=len)
    places = {round(i) for i in np.linspace(0, len(own) - 1, OWN_SENTENCES)} if own else set()
    sentences += [own[i] if i == len(own) - 1 else own[i][:short] for i in sorted(places)]
    longest = len(own[-1]) if own else 0
    siblings = []
    for threshold in rules.thresholds if rules else ():
        if threshold < min(longest, limit):
            sentences += [_random(draw, vocab_size, threshold), _random(draw, vocab_size, threshold + 1)]
        if threshold < longest:
            siblings.append(_siblings(draw, vocab_size, threshold, min(threshold + 1, limit)))
        elif threshold < widest_pack and threshold != by_depth:
            siblings.append(_family(draw, vocab_size, threshold, min(MAX_SENTENCE, limit, threshold + 1), 1 / 8))
    if narrow is not None:
        siblings.append(_family(draw, vocab_size, narrow, min(96, limit), 1 / 2))
    return CheckSentences(Sequences.of([s for s in sentences if len(s)]), tuple(siblings))


def _random(draw: np.random.Generator, vocab_size: int, length: int) -> NDArray[np.int32]:
    return draw.integers(0, vocab_size, length).astype(np.int32)


def _siblings(draw: np.random.Generator, vocab_size: int, threshold: int, length: int) -> Sequences:
    """Three sentences that share three quarters of `threshold` tokens and branch before, at and after each other."""
    cut = max(1, 3 * threshold // 4)
    trunk, first = _random(draw, vocab_size, cut), np.sort(draw.choice(vocab_size, 3, replace=False))
    tails = [_random(draw, vocab_size, max(0, length - cut - 1)) for _ in first]
    joined = [np.concatenate([trunk, [token], tail])[:length] for token, tail in zip(first, tails, strict=True)]
    return Sequences.of([np.asarray(s, np.int32) for s in joined])


def _family(draw: np.random.Generator, vocab_size: int, nodes: int, length: int, part: float) -> Sequences:
    """At least two sentences of this length that share this part of it and together have more than so many nodes."""
    trunk = _random(draw, vocab_size, max(1, int(length * part)))
    tail = max(1, length - len(trunk))
    count = max(2, (nodes - len(trunk)) // tail + 1)
    return Sequences.of([np.concatenate([trunk, _random(draw, vocab_size, tail)])[:length] for _ in range(count)])


def reference(
    decoder: Any,
    sentence: NDArray[np.int32],
    num_layers: int,
    places: Sequence[int | None] | None = None,
    take: Callable[[Tensor], Tensor] = lambda states_TH: states_TH[-1],
    beside: NDArray[np.int64] | None = None,
) -> dict[int, Tensor]:
    """States [H] of the last token by layer, this sentence alone, from `output_hidden_states=True`.

    beside: other sentences of its length [rows, T], which are computed in the same batch. take: what else is made of
    the states of all tokens of a layer. places: where layers 0 to L - 1 stand in the hidden states; None: each at its
    number. Layer L is missing: transformers returns it after the final norm only, which is layer L + 1. Of a sentence
    whose hidden states would need more than `MAX_HIDDEN_BYTES` there is only layer L + 1. Raises ModelError where the
    decoder does not return its hidden states.
    """
    parameter, name = in_memory(decoder), type(decoder).__name__
    rows_RT = np.asarray(sentence, np.int64)[None]
    ids = torch.as_tensor(rows_RT if beside is None else np.concatenate([rows_RT, beside]), device=parameter.device)
    hidden_size = decoder.config.get_text_config(decoder=True).hidden_size
    too_large = ids.numel() * hidden_size * (num_layers + 1) * parameter.element_size() > MAX_HIDDEN_BYTES
    settle_positions(decoder)
    with torch.inference_mode():
        output = decoder(input_ids=ids, output_hidden_states=not too_large, use_cache=False)
    layers = {num_layers + 1: take(output.last_hidden_state[0])}
    if too_large:
        return layers
    if output.hidden_states is None:
        raise ModelError(f"{name} does not return its hidden states", hint="It is not supported yet.")
    for k in range(num_layers):
        place = k if places is None else places[k]
        if place is not None:
            layers[k] = take(output.hidden_states[place][0])
        elif k == 0:
            layers[k] = take(decoder.get_input_embeddings()(ids)[0])
        else:
            raise ModelError(
                f"the hidden states that {name} returns do not hold what its decoder layer {k} gives",
                hint="It is not supported yet.",
            )
    return layers


def in_memory(decoder: nn.Module) -> Tensor:
    """A parameter that is in memory: those of layers that are streamed may not be."""
    return next(p for p in decoder.parameters() if not p.is_meta)


def in_turn(passes: Sequence[Callable[[], Tensor]]) -> list[Tensor]:
    """Call one after the other; their results."""
    return [run() for run in passes]


def settle_positions(decoder: Any) -> None:
    """Reset dynamic NTK, which keeps the scale of the longest sentence that it has seen.

    Running one token resets it: the scale falls back with any sentence shorter than the model's context.
    """
    config = decoder.config.get_text_config(decoder=True)
    if "dynamic" not in str(getattr(config, "rope_parameters", None)):
        return
    token = torch.zeros((1, 1), dtype=torch.long, device=in_memory(decoder).device)
    with torch.inference_mode():
        decoder(input_ids=token, use_cache=False)


def worst_by_layer(errors_C: Sequence[dict[int, float]]) -> dict[int, float]:
    """The largest error of each layer; a NaN stays one."""
    return _by_layer(errors_C, np.max)


def rounding_check(
    dtype: str, ours_C: Sequence[dict[int, float]], alone_C: Sequence[dict[int, float]], *, routed: bool = False
) -> RoundingCheck:
    """Errors of `dtype` against float32, ours and those of one sentence at a time, as root mean squares by layer.

    routed: the model chooses among experts. Rounding can send a token to another expert, in our batches or alone; where
    such a token makes the root mean square too large, the median over the sentences is compared instead.
    """
    ours, alone = _by_layer(ours_C, _rms), _by_layer(alone_C, _rms)
    if routed:
        ours_median, alone_median = _by_layer(ours_C, np.median), _by_layer(alone_C, np.median)
        for layer in [k for k in ours if ours[k] > NOISE_FACTOR * alone[k]]:
            ours[layer], alone[layer] = ours_median[layer], alone_median[layer]
    return RoundingCheck(dtype, ours, alone, NOISE_FACTOR, ONE_STEP[dtype])


def _rms(errors_C: list[float]) -> float:
    return float(np.sqrt(np.mean(np.square(errors_C))))


def _by_layer(errors_C: Sequence[dict[int, float]], summary: Callable[[list[float]], Any]) -> dict[int, float]:
    layers = sorted({k for errors in errors_C for k in errors})
    return {k: float(summary([e[k] for e in errors_C if k in e])) for k in layers}


def first_difference(
    decoder: nn.Module,
    sentences: Sequences,
    rules: LengthRules,
    bound: float = BOUND,
    together: Callable[[Sequence[Callable[[], Tensor]]], list[Tensor]] = in_turn,
) -> float | None:
    """The relative difference that later tokens make to a token's state, or None where they make none.

    Takes the longest sentence on each side of every switch of positions, cuts it at a few tokens, runs each prefix
    alone, and compares its last state with the state of the same token in the whole sentence. together: calls passes.
    """

    def last_states(ids: Tensor) -> Tensor:
        settle_positions(decoder)
        with torch.inference_mode():
            states: Tensor = decoder(input_ids=ids, use_cache=False).last_hidden_state[0]
            return states

    device = in_memory(decoder).device
    for sentence, lengths in _prefixes(sentences, rules):
        ids = torch.as_tensor(np.asarray(sentence, np.int64), device=device)[None]
        whole, *parts = together([partial(last_states, part) for part in (ids, *(ids[:, :n] for n in lengths))])
        for length, part in zip(lengths, parts, strict=True):
            difference = relative_error(whole[length - 1], part[-1])
            if not difference <= bound:
                return difference
    return None


def _prefixes(sentences: Sequences, rules: LengthRules) -> Iterator[tuple[NDArray[np.int32], list[int]]]:
    """The longest sentence of each regime, and lengths of its prefixes in the same regime."""
    lengths_C = sentences.lengths_N
    regimes_C = rules.regimes(lengths_C)
    for regime in np.unique(regimes_C).tolist():
        index = np.flatnonzero(regimes_C == regime)
        sentence = sentences[int(index[np.argmax(lengths_C[index])])]
        wanted = np.array(sorted({1, len(sentence) // 2, len(sentence) - 1} - {0, len(sentence)}), np.int64)
        same = wanted[rules.regimes(wanted) == regime] if len(wanted) else wanted
        if len(same):
            yield sentence, same.tolist()

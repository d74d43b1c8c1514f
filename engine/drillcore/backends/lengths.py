"""Lengths at which a model's behaviour changes, read from its configuration. Numpy only.

Windows, chunks and top-k indexers begin to matter at a length; LongRoPE and dynamic NTK change the positions of a whole
batch with its longest sentence. The self-check samples both sides of each such length, and batches hold sentences of
one side only.

Shape legend: N sentences.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Int64 = NDArray[np.int64]

# Fields of configurations that name a number of tokens, and fields that look alike but do not.
LENGTH_FIELD = re.compile(
    r"window|chunk|original_max_position|index_topk|block_size|floor|^local_attention|compress|_budget"
)
OTHER_FIELD = re.compile(r"feed_forward|lm_head|pattern|layers|num_|_before|_after|^conf_|audio|image|vision|inference")

ROUTING = re.compile(r"experts|index_topk")


@dataclass(frozen=True)
class LengthRules:
    """What a model's configuration says about lengths.

    thresholds: lengths in tokens, ascending; a sentence longer than one of them may be treated in another way.
    switches: lengths above which LongRoPE replaces the positions of the whole batch. scaled_above: longest batch that
    dynamic NTK leaves alone, or None; above it each length has positions of its own.

    >>> rules = LengthRules((4096,), switches=(4096,))
    >>> rules.regimes(np.array([10, 4096, 4097])).tolist()
    [0, 0, 1]
    >>> LengthRules((2048,), scaled_above=2048).regimes(np.array([10, 2048, 2050, 2051])).tolist()
    [0, 0, 2050, 2051]
    """

    thresholds: tuple[int, ...] = ()
    switches: tuple[int, ...] = ()
    scaled_above: int | None = None

    @property
    def positions_depend_on_batch(self) -> bool:
        """Whether a sentence's positions depend on the longest sentence of its batch."""
        return bool(self.switches) or self.scaled_above is not None

    def regimes(self, lengths_N: Int64) -> Int64:
        """A number for each length [N]; only sentences with equal numbers may share a batch."""
        regime_N = np.searchsorted(np.array(self.switches, np.int64), lengths_N, side="left").astype(np.int64)
        if self.scaled_above is not None:
            regime_N += np.where(lengths_N > self.scaled_above, lengths_N, 0)
        return regime_N


def length_rules(config: Any) -> LengthRules:
    """Read the rules from a `transformers` configuration."""
    text = config.get_text_config(decoder=True)
    switches, scaled = set(), False
    for scheme in _rope_schemes(text):
        kind = str(scheme.get("rope_type", scheme.get("type", "default")))
        scaled |= "dynamic" in kind
        if kind == "longrope":
            switches.add(int(scheme.get("original_max_position_embeddings") or text.original_max_position_embeddings))
    longest = getattr(text, "max_position_embeddings", None) if scaled else None
    thresholds = {*_lengths_in(text.to_dict()), *switches, *([longest] if longest else [])}
    return LengthRules(tuple(sorted(thresholds)), tuple(sorted(switches)), longest)


def longest_sentence(config: Any) -> int | None:
    """Tokens of the longest sentence that the configuration allows, or None without a limit.

    Dynamic NTK stretches `max_position_embeddings` by its factor.
    """
    text = config.get_text_config(decoder=True)
    limit = getattr(text, "max_position_embeddings", None)
    schemes = [s for s in _rope_schemes(text) if "dynamic" in str(s.get("rope_type", s.get("type", "")))]
    if not isinstance(limit, int) or not schemes:
        return limit if isinstance(limit, int) else None
    return int(limit * min(float(s.get("factor") or 1) for s in schemes))


def is_routed(config: Any) -> bool:
    """Whether the model chooses among experts, or among tokens to attend to."""
    text = config.get_text_config(decoder=True).to_dict()
    numbers = [v for k, v in text.items() if ROUTING.search(k) and isinstance(v, int)]
    return any(number > 1 for number in numbers)


def _rope_schemes(text: Any) -> list[dict[str, Any]]:
    """Rotary settings, of each kind of layer where these differ."""
    rope = getattr(text, "rope_parameters", None) or getattr(text, "rope_scaling", None) or {}
    if not isinstance(rope, dict):
        return []
    nested = [value for value in rope.values() if isinstance(value, dict)]
    return nested or [rope]


def _lengths_in(settings: dict[str, Any]) -> Iterator[int]:
    for name, value in settings.items():
        if isinstance(value, dict):
            yield from _lengths_in(value)
        elif type(value) is int and value > 1 and LENGTH_FIELD.search(str(name)) and not OTHER_FIELD.search(str(name)):
            yield value
    if isinstance(settings.get("index_topk_blocks"), int):
        yield settings["index_topk_blocks"] * int(settings.get("index_block_size") or 1)

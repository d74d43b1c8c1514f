"""Prompts for vLLM: each distinct sentence once, in the order that makes most use of its prefix cache.

Shape legend: S sentences of a part.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise, takewhile

import numpy as np
from numpy.typing import NDArray

from drillcore.backends.base import States
from drillcore.tokens.places import Places
from drillcore.tokens.sequences import Sequences


@dataclass(frozen=True)
class Part:
    """Prompts of one call: sentence sentence_S[i] of the block gets the state of prompt row_S[i]."""

    prompts: list[list[int]]
    sentence_S: NDArray[np.int64]
    row_S: NDArray[np.int64]

    @property
    def num_tokens(self) -> int:
        """Tokens of all prompts."""
        return sum(map(len, self.prompts))


def make_parts(block: Sequences, max_prompts: int) -> list[Part]:
    """The distinct sentences of a block in lexicographic order, in parts of at most `max_prompts`.

    >>> [part.prompts for part in make_parts(Sequences.of([[5, 6], [5], [5, 6]]), max_prompts=4)]
    [[[5], [5, 6]]]
    """
    sentences = [s.tolist() for s in block]
    prompts: list[list[int]] = []
    prompt_N = np.empty(len(block), np.int64)
    for i in sorted(range(len(block)), key=sentences.__getitem__):
        if not prompts or prompts[-1] != sentences[i]:
            prompts.append(sentences[i])
        prompt_N[i] = len(prompts) - 1
    parts = []
    for start in range(0, len(prompts), max_prompts):
        sentence_S = np.flatnonzero((prompt_N >= start) & (prompt_N < start + max_prompts))
        parts.append(Part(prompts[start : start + max_prompts], sentence_S, prompt_N[sentence_S] - start))
    return parts


def num_computed(parts: Sequence[Part], block_tokens: int) -> int:
    """Tokens left to compute if the prefix cache holds the predecessor of every prompt.

    The cache shares whole blocks of `block_tokens` tokens, and never a prompt's last token.

    >>> num_computed(make_parts(Sequences.of([[1, 2, 3, 4, 5], [1, 2, 3, 4, 6]]), 10), block_tokens=2)
    6
    """
    prompts = [p for part in parts for p in part.prompts]
    saved = 0
    for before, this in pairwise(prompts):
        shared = sum(1 for _ in takewhile(lambda ab: ab[0] == ab[1], zip(before, this[:-1], strict=False)))
        saved += shared // block_tokens * block_tokens
    return sum(map(len, prompts)) - saved


def by_group(states: States, places: Sequence[Places]) -> Iterator[States]:
    """The states of sentences as those of each group that has some of them: a dataset and its branches.

    places: of the groups in the block, at most the last token of each sentence; none where there is one group.
    """
    if not places:
        yield states
        return
    for group, wanted in enumerate(places):
        is_in_S = np.diff(wanted.bounds_N1)[states.sentence_S] == 1
        if is_in_S.any():
            rows_S = wanted.bounds_N1[states.sentence_S[is_in_S]]
            yield replace(states, sentence_S=rows_S, row_S=states.row_S[is_in_S], group=group)
            # Tokens are told once.
            states = replace(states, num_nodes=0)

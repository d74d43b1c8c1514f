"""What follows a sentence, as tokens: found by encoding sentence and continuation together, never one alone.

Tokenizers merge across the border between the two, or write a word in another way at the beginning of a text. A
continuation counts only where the sentence's own tokens stay as they are before it.
Shape legend: N sentences, C continuations of each.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import IntEnum
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from drillcore.system.files import digest
from drillcore.texts.rows import RowTable
from drillcore.tokens.cache import cached
from drillcore.tokens.sequences import Sequences
from drillcore.tokens.tokenizer import BATCH, Around, Tokenizer

# Increase this whenever the same tokenizer and texts would give another answer.
VERSION = 1


class Fault(IntEnum):
    """Why a continuation has no tokens after its sentence."""

    ABSENT = -1
    CROSSES = -2
    APPENDED = -3
    UNKNOWN = -4
    NOTHING = -5
    TRUNCATED = -6


@dataclass(frozen=True)
class Continuations:
    """Token ids of C continuations of each of N sentences.

    ids: N * C rows, those of a sentence side by side. faults_NC: int8, a Fault where a continuation has no tokens, else
    0; its row of `ids` means nothing then.
    """

    ids: Sequences
    faults_NC: NDArray[np.int8]

    @property
    def per_sentence(self) -> int:
        """Continuations of a sentence, C."""
        return int(self.faults_NC.shape[1])

    def of(self, sentence: int) -> list[list[int] | None]:
        """The token ids of each continuation of a sentence, None where it has none."""
        first, faults = sentence * self.per_sentence, self.faults_NC[sentence]
        return [None if fault else self.ids[first + c].tolist() for c, fault in enumerate(faults)]

    def first_tokens(self) -> NDArray[np.int64]:
        """First token of the only continuation of each sentence [N], -1 where it has none."""
        first_N = np.asarray(self.ids.ids_T[self.ids.offsets_N1[:-1]], np.int64)
        return np.where(self.faults_NC[:, 0] == 0, first_N, -1)

    def slice(self, start: int, stop: int) -> Continuations:
        """Those of sentences start .. stop - 1."""
        width = self.per_sentence
        return Continuations(self.ids.slice(start * width, stop * width), self.faults_NC[start:stop])

    def without(self, truncated_N: NDArray[np.bool_]) -> Continuations:
        """The same, with nothing after sentences that lost tokens: what follows them is their own text."""
        faults_NC = np.where(truncated_N[:, None] & (self.faults_NC != Fault.ABSENT), Fault.TRUNCATED, self.faults_NC)
        return Continuations(self.ids, faults_NC.astype(np.int8))

    def left_out(self) -> dict[str, int]:
        """How many continuations have no tokens after their sentence, by the fault's name."""
        counts = Counter(self.faults_NC[self.faults_NC < Fault.ABSENT].tolist())
        return {Fault(fault).name.lower(): count for fault, count in sorted(counts.items(), reverse=True)}

    def faulty(self) -> Iterator[tuple[int, int, Fault]]:
        """Sentence, continuation and fault, in order."""
        for n, c in np.argwhere(self.faults_NC < Fault.ABSENT):
            yield int(n), int(c), Fault(int(self.faults_NC[n, c]))


def continue_rows(
    rows: RowTable, tokenizer: Tokenizer, around: Around, tokens: Sequences, texts: Sequence[str] | None
) -> Continuations:
    """The continuations of all rows, taken from the cache or computed and written there.

    tokens: the sentences' own ids, not truncated. texts: the same continuations for every sentence; None for the column
    `expected_next` of each. Raises ModelError where the tokenizer gives other tokens each time.
    """
    per_sentence = 1 if texts is None else len(texts)
    key = digest([VERSION, rows.digest, tokenizer.key(around), None if texts is None else list(texts)])
    maker = _Maker(tokenizer, around)

    def encode(numbers: Sequence[int]) -> list[list[int]]:
        made = []
        for number in numbers:
            n, c = divmod(number, per_sentence)
            made += maker.make(rows.texts(n, n + 1), [tokens[n].tolist()], [_of(rows, texts, n, n + 1)[0][c : c + 1]])
        return made

    def every() -> Iterator[list[int]]:
        size = max(1, BATCH // per_sentence)
        for start in range(0, rows.num_rows, size):
            stop = min(start + size, rows.num_rows)
            sentences = [ids.tolist() for ids in tokens.slice(start, stop)]
            yield from maker.make(rows.texts(start, stop), sentences, _of(rows, texts, start, stop))

    ids = cached("continuations", key, rows.num_rows * per_sentence, encode, every)
    first_NC = np.asarray(ids.ids_T[ids.offsets_N1[:-1]]).reshape(-1, per_sentence)
    return Continuations(ids, np.minimum(first_NC, 0).astype(np.int8))


def _of(rows: RowTable, texts: Sequence[str] | None, start: int, stop: int) -> list[list[str]]:
    """The continuations of sentences start .. stop - 1."""
    if texts is not None:
        return [list(texts)] * (stop - start)
    return [
        ["" if value is None else str(value)] for value in rows.slice(start, stop).column("expected_next").to_pylist()
    ]


class _Maker:
    """Encodes sentences together with what follows them; a continuation without tokens becomes its Fault alone."""

    def __init__(self, tokenizer: Tokenizer, around: Around) -> None:
        self._tokenizer, self._around = tokenizer, around
        self._ends_alone = around.is_chat or not tokenizer.added[1]
        self._is_known = lru_cache(maxsize=100_000)(self._find_known)

    def make(self, texts: list[str], sentences: list[list[int]], then: list[list[str]]) -> list[list[int]]:
        """Ids of every continuation, those of a sentence side by side. sentences: their own ids."""
        repeated = [text for text, after in zip(texts, then, strict=True) for _ in after]
        before = [ids for ids, after in zip(sentences, then, strict=True) for _ in after]
        after = [text for texts_after in then for text in texts_after]
        together = self._tokenizer.encode(repeated, self._around, after)
        return [self._one(*each) for each in zip(repeated, before, after, together, strict=True)]

    def _one(self, text: str, before: list[int], after: str, together: list[int]) -> list[int]:
        if not after:
            return [Fault.ABSENT]
        if not self._ends_alone:
            return [Fault.APPENDED]
        if together[: len(before)] != before or self._hides_border(text, before, after):
            return [Fault.CROSSES]
        ids = together[len(before) :]
        if not ids:
            return [Fault.NOTHING]
        return ids if self._is_known(after) and not self._holds_unknown(ids, after) else [Fault.UNKNOWN]

    def _holds_unknown(self, ids: list[int], text: str) -> bool:
        unknown = self._tokenizer.unknown
        return unknown is not None and unknown[0] in ids and unknown[1] not in text

    def _find_known(self, text: str) -> bool:
        """Whether the tokenizer drops nothing of a text but blanks; taken for granted where it does not tell."""
        spans = self._tokenizer.spans(text)
        if spans is None:
            return True
        covered = {place for start, stop in spans for place in range(start, stop)}
        return all(place in covered or not char.isprintable() or char.isspace() for place, char in enumerate(text))

    def _hides_border(self, text: str, before: list[int], after: str) -> bool:
        """Whether the sentence ends in the unknown token, and that token may have swallowed what follows."""
        unknown = self._tokenizer.unknown
        if unknown is None or not before or before[-1] != unknown[0]:
            return False
        rendered = self._tokenizer.render(text, self._around)
        if rendered.endswith(unknown[1]):
            return False
        spans = self._tokenizer.spans(rendered + after)
        border = len(rendered)
        return spans is None or any(start < border < stop for start, stop in spans)

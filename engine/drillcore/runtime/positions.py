"""Where the rows of a group are taken: a position's places in the sentences of one model and dataset.

Places that are named by characters are found in the text as it is encoded, through the tokenizer's own offsets, once
for each dataset and tokenizer; what cannot be proved is refused.

Shape legend: N sentences, Q places of all of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from drillcore.errors import TextError
from drillcore.job.groups import Group, column_of, number_of
from drillcore.job.positions import Position
from drillcore.runtime.continuing import around_of
from drillcore.system.files import digest
from drillcore.texts.problems import Problems
from drillcore.texts.read import lines_of
from drillcore.texts.rows import RowTable
from drillcore.texts.spans import occurrence_of, span_of
from drillcore.tokens.cache import cached
from drillcore.tokens.characters import Characters, characters_of
from drillcore.tokens.places import Places
from drillcore.tokens.sequences import Sequences
from drillcore.tokens.tokenizer import BATCH, Tokenizer
from drillcore.tokens.within import Within

Int64 = NDArray[np.int64]
# Increase this whenever the same rows and tokenizer would give other places.
VERSION = 2


@dataclass(frozen=True)
class Placed:
    """The places of one position in all sentences of a dataset.

    tokens: of the sentences. special: ids of special tokens. found: of each sentence, 1 where no token reaches beyond
    the characters that are meant, the first token and the one after the last, and for each row the characters that it
    stands for in the sentence's text, -1 where they are outside. None for positions that need no characters, and where
    the tokenizer does not tell.
    """

    position: Position
    tokens: Sequences
    special: frozenset[int]
    found: Sequences | None = None

    def places(self, start: int, stop: int) -> Places:
        """Places in sentences start .. stop - 1."""
        tokens, position = self.tokens.slice(start, stop), self.position
        lengths_N = tokens.lengths_N
        if position.by_characters:
            first_N, stop_N = self._found_at(start, stop, 1), self._found_at(start, stop, 2)
            return Places.between(first_N if position.pool != "last" else stop_N - 1, stop_N, is_mean=position.is_mean)
        if position.mean is not None:
            return _pooled(
                tokens, position.mean.skip_first, frozenset() if position.mean.special_tokens else self.special
            )
        count_N = np.minimum(lengths_N, position.last) if position.last is not None else lengths_N
        return Places.between(lengths_N - count_N, lengths_N)

    def counts(self, start: int, stop: int) -> Int64:
        """Rows of each of the sentences start .. stop - 1."""
        if not self.position.is_ragged:
            return np.ones(stop - start, np.int64)
        if self.position.by_characters:
            return self._found_at(start, stop, 2) - self._found_at(start, stop, 1)
        lengths_N = self.tokens.slice(start, stop).lengths_N
        return lengths_N if self.position.last is None else np.minimum(lengths_N, self.position.last)

    def num_rows(self, start: int, stop: int) -> int:
        """Rows of sentences start .. stop - 1."""
        return int(self.counts(start, stop).sum())

    @cached_property
    def _first_row_N1(self) -> Int64:
        return np.concatenate([[0], np.cumsum(self.counts(0, len(self.tokens)))])

    def sentences_of(self, rows_C: Int64) -> tuple[Int64, Int64]:
        """The sentence of each row, and which of its rows it is."""
        sentence_C = np.searchsorted(self._first_row_N1, rows_C, side="right") - 1
        return sentence_C, rows_C - self._first_row_N1[sentence_C]

    def places_of(self, rows_C: Int64) -> Places:
        """The places of some rows, each as if it were of a sentence of its own."""
        found = []
        for sentence, number in zip(*(each.tolist() for each in self.sentences_of(rows_C)), strict=True):
            places = self.places(sentence, sentence + 1)
            found.append(places if places.is_mean else Places.of([places.index_Q[[number]]]))
        return Places.join(found)

    def columns_of(self, row: int) -> dict[str, Any]:
        """What is known of one row, by the coordinate's name."""
        (sentence,), (number,) = self.sentences_of(np.array([row]))
        known = self.columns(int(sentence), int(sentence) + 1)
        found = {name: values[number].item() for name, values in known.items()}
        return {**found, "sentence": int(sentence)} if self.position.is_ragged else found

    def part(self, start: int, stop: int) -> Placed:
        """Those of sentences start .. stop - 1 alone."""
        found = None if self.found is None else self.found.slice(start, stop)
        return replace(self, tokens=self.tokens.slice(start, stop), found=found)

    def now(self) -> Places:
        """The places in all its sentences."""
        return self.places(0, len(self.tokens))

    def _found_at(self, start: int, stop: int, which: int) -> Int64:
        """One of the three numbers at the beginning of what was found for each sentence."""
        assert self.found is not None
        found = self.found.slice(start, stop)
        return np.asarray(found.ids_T, np.int64)[found.offsets_N1[:-1] + which]

    def _characters(self, start: int, stop: int) -> Int64:
        """The characters of each row [R, 2]."""
        assert self.found is not None
        found = self.found.slice(start, stop)
        of_rows_T = np.ones(len(found.ids_T), bool)
        for which in range(3):
            of_rows_T[found.offsets_N1[:-1] + which] = False
        return np.asarray(found.ids_T, np.int64)[of_rows_T].reshape(-1, 2)

    def columns(self, start: int, stop: int) -> dict[str, NDArray[Any]]:
        """What is known of the rows of sentences start .. stop - 1, by the coordinate's name."""
        places, tokens = self.places(start, stop), self.tokens.slice(start, stop)
        found: dict[str, NDArray[Any]] = {}
        if places.is_mean:
            found["n_pooled"] = np.diff(places.bounds_N1)
        else:
            begin_Q = np.repeat(tokens.offsets_N1[:-1], np.diff(places.bounds_N1))
            found |= {"token": places.index_Q, "token_id": np.asarray(tokens.ids_T[begin_Q + places.index_Q])}
            if self.position.last is not None:
                found["position"] = places.index_Q - np.repeat(tokens.lengths_N, np.diff(places.bounds_N1))
        if self._has_characters:
            shape = (places.num_rows, 2)
            characters_R2 = np.full(shape, -1) if self.found is None else self._characters(start, stop)
            found |= {"char_start": characters_R2[:, 0], "char_end": characters_R2[:, 1]}
        if self.position.by_characters:
            found["exact"] = np.repeat(self._found_at(start, stop, 0).astype(bool), self.counts(start, stop))
        tokens.release()
        return found

    def column_types(self) -> list[tuple[str, str]]:
        """Names and dtypes of those coordinates."""
        names = ["n_pooled"] if self.position.is_mean else ["token", "token_id"]
        names += ["position"] if self.position.last is not None else []
        listed = [(name, "int32") for name in [*names, *(["char_start", "char_end"] * self._has_characters)]]
        return [*listed, *([("exact", "bool")] * self.position.by_characters)]

    @property
    def _has_characters(self) -> bool:
        return self.position.by_characters or self.position.is_ragged

    def notes(self) -> Iterator[str]:
        """What a reader of the states must know."""
        if self.position.is_ragged and self.found is None:
            yield "this tokenizer does not tell the characters of its tokens: char_start and char_end are -1"
        if not self.position.by_characters:
            return
        inexact = int((self._found_at(0, len(self.tokens), 0) == 0).sum())
        if inexact:
            what = "take in characters beside those that are meant" if self.position.is_mean else "reach beyond"
            yield f"in {inexact:,} of {len(self.tokens):,} sentences the tokens {what} (coordinate `exact`)"


def _pooled(tokens: Sequences, skip_first: int, left_out: frozenset[int]) -> Places:
    """The tokens of a mean."""
    offsets_N1, ids_T = tokens.offsets_N1, np.asarray(tokens.ids_T)
    sentence_T = np.repeat(np.arange(len(tokens)), np.diff(offsets_N1))
    index_T = np.arange(len(ids_T)) - offsets_N1[sentence_T]
    kept_T = (index_T >= skip_first) & ~np.isin(ids_T, np.array(sorted(left_out), np.int64))
    bounds_N1 = np.concatenate([[0], np.cumsum(np.bincount(sentence_T[kept_T], minlength=len(tokens)))])
    return Places(index_T[kept_T], bounds_N1.astype(np.int64), is_mean=True)


def place(
    group: Group, rows: RowTable, tokens: Sequences, tokenizer: Tokenizer, file: Path, problems: Problems
) -> Placed:
    """Find the places of a group's position; adds to `problems` a sentence that has none.

    tokens: of the whole sentences. Raises TextError where this tokenizer cannot tell.
    """
    position = group.position
    faults: list[tuple[int, str]] = []
    found = None
    if position.by_characters or position.is_ragged:
        finder = Finder(group, tokenizer, rows_of(rows), lambda number: tokens[number].tolist(), faults)
        key = digest(["places", VERSION, rows.digest, tokenizer.key(around_of(group)), position.record()])
        try:
            found = cached("places", key, rows.num_rows, finder.of, lambda: finder.all(rows.num_rows))
        except _NotFoundError:
            found = None
        except TextError:
            if position.by_characters:
                raise
    placed = Placed(position, tokens, tokenizer.special, found)
    if position.mean is not None:
        bounds = [(s, min(s + BATCH, len(tokens))) for s in range(0, len(tokens), BATCH)]
        for start, stop in bounds:
            empty = np.flatnonzero(np.diff(placed.places(start, stop).bounds_N1) == 0)
            lengths_N = tokens.slice(start, stop).lengths_N
            tokens.release()
            what = "of which the mean leaves out the first ones and special ones"
            faults += [(start + i, f"has {lengths_N[i]} tokens, {what}: none is left") for i in empty.tolist()]
    _add(faults, group, file, problems)
    return placed


def place_again(group: Group, table: list[dict[str, Any]], tokens: Sequences, tokenizer: Tokenizer) -> Placed:
    """The places in some rows, given by their columns; raises TextError where one has none."""
    found, faults = None, list[tuple[int, str]]()
    if group.position.by_characters or group.position.is_ragged:
        finder = Finder(group, tokenizer, lambda rows: [table[n] for n in rows], lambda n: tokens[n].tolist(), faults)
        try:
            found = Sequences.of(finder.of(range(len(table))))
        except TextError:
            if group.position.by_characters:
                raise
    if faults:
        raise TextError(f"sentence {faults[0][0]} {faults[0][1]}", hint="Its text or its other columns have changed.")
    return Placed(group.position, tokens, tokenizer.special, found)


def rows_of(rows: RowTable) -> Callable[[Sequence[int]], list[dict[str, Any]]]:
    """Reads the columns of some rows, given by their numbers."""

    def read(numbers: Sequence[int]) -> list[dict[str, Any]]:
        if isinstance(numbers, range):
            found: list[dict[str, Any]] = rows.slice(numbers.start, numbers.stop).to_pylist()
        else:
            found = [rows.slice(n, n + 1).to_pylist()[0] for n in numbers]
        rows.release()
        return found

    return read


def _add(faults: Sequence[tuple[int, str]], group: Group, file: Path, problems: Problems) -> None:
    """Name the lines of what is wrong, as far as it is shown."""
    shown = {row for row, _ in faults[: problems.limit]}
    lines = lines_of(file, group, shown) if shown else {}
    for row, what in faults:
        problems.add(str(file), lines.get(row), f"sentence {row} {what} ({group.name})")


class _NotFoundError(Exception):
    """Some sentence has no such place: nothing is kept in the cache."""


class Finder:
    """Finds places by characters, for rows given by their numbers.

    read: gives their columns. ids_of: the token ids of one. faults: gets the rows that have no such place, and why.
    """

    def __init__(
        self,
        group: Group,
        tokenizer: Tokenizer,
        read: Callable[[Sequence[int]], list[dict[str, Any]]],
        ids_of: Callable[[int], list[int]],
        faults: list[tuple[int, str]],
    ) -> None:
        self._group, self._position, self._read, self._ids_of = group, group.position, read, ids_of
        self._tokenizer, self._around, self._faults = tokenizer, around_of(group), faults
        self._within = Within.of(tokenizer, self._around)

    def all(self, num_rows: int) -> Iterator[list[int]]:
        """Of every row; raises _NotFoundError at the end where one has no such place."""
        for start in range(0, num_rows, BATCH):
            yield from self.of(range(start, min(start + BATCH, num_rows)))
        if self._faults:
            raise _NotFoundError

    def of(self, numbers: Sequence[int]) -> list[list[int]]:
        """Of some rows, each as `Placed.found` has it; empty where a row has no such place."""
        table = self._read(numbers)
        written = list(self._tokenizer.rendered([row["text"] for row in table], self._around))
        found = list[list[int]]()
        encoded = characters_of(self._tokenizer, written, self._around)
        for number, row, rendered, (ids, characters) in zip(numbers, table, written, encoded, strict=True):
            if list(ids) != self._ids_of(number):
                raise TextError(
                    f"the tokenizer gives other tokens for sentence {number} when it is asked for offsets",
                    hint=f"{self._group.name}: positions by character cannot be trusted with it; `last` works.",
                )
            try:
                found.append(self._found(row, rendered, characters))
            except ValueError as error:
                self._faults.append((number, str(error)))
                found.append([])
        return found

    def _found(self, row: dict[str, Any], rendered: str, characters: Characters) -> list[int]:
        """Of one row; raises ValueError where it has no such place."""
        num_tokens, position = len(characters.start_T), self._position
        place = self._within.place(row["text"], rendered)
        if not position.by_characters:
            first = 0 if position.last is None else max(0, num_tokens - position.last)
            rows = [(token, token + 1) for token in range(first, num_tokens)]
            return [1, first, num_tokens, *self._of_rows(rows, characters, place)]
        start, stop = self._meant(row, rendered, place)
        taken = characters.over(start, stop)
        if taken is None:
            raise ValueError(f"has no token for {rendered[start:stop]!r}")
        begin = taken.stop - 1 if position.pool == "last" else taken.first
        before = rendered[int(characters.start_T[begin]) : start] * (begin == taken.first)
        beyond = before + rendered[stop : int(characters.stop_T[taken.stop - 1])]
        each = [(token, token + 1) for token in range(taken.first, taken.stop)]
        rows = each if position.pool == "all" else [(begin, taken.stop)]
        return [int(not beyond.strip()), taken.first, taken.stop, *self._of_rows(rows, characters, place)]

    def _of_rows(
        self, rows: Sequence[tuple[int, int]], characters: Characters, place: tuple[int, int, int] | None
    ) -> Iterator[int]:
        """The characters of the text that ranges of tokens stand for, the first and the one after the last; or -1."""
        for first, stop in rows:
            start, end = int(characters.start_T[first]), int(characters.stop_T[stop - 1])
            inside = place is not None and place[1] <= start < end <= place[2]
            yield from (start - place[0], end - place[0]) if place is not None and inside else (-1, -1)

    def _meant(self, row: dict[str, Any], rendered: str, place: tuple[int, int, int] | None) -> tuple[int, int]:
        """The first character that is meant in what is encoded, and the one after the last; raises ValueError.

        place: of the sentence's text there, if that is known.
        """
        position, group, text = self._position, self._group, row["text"]
        if position.after is not None:
            start = rendered.rfind(position.after)
            if start < 0:
                raise ValueError(f"does not hold the marker {position.after!r}")
            stop = start + len(position.after)
            return start, stop
        if position.span is not None:
            start, stop = (row[column_of(group, field)] for field in position.span)
            meant = span_of(start, stop, len(text))
        else:
            assert position.text is not None
            meant = occurrence_of(row[column_of(group, position.text)], number_of(position), text)
        if place is None:
            raise ValueError("is written otherwise by the chat template, so that its characters cannot be found there")
        shift, first, stop = place
        return max(first, shift + meant[0]), min(stop, shift + meant[1])

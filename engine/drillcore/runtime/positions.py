"""Where the rows of a group are taken: a position's places in the sentences of one model and dataset.

Places that are named by characters are found in the text as it is encoded, through the tokenizer's own offsets, once
for each dataset and tokenizer; what cannot be proved is refused.

Shape legend: N sentences, Q places of all of them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from drillcore.errors import TextError
from drillcore.job.groups import Group
from drillcore.job.positions import Position
from drillcore.runtime.continuing import around_of
from drillcore.runtime.finders import OF_TURN, Finder, NotFoundError
from drillcore.system.files import digest
from drillcore.texts.files import called
from drillcore.texts.problems import Problems
from drillcore.texts.read import lines_of
from drillcore.texts.rows import RowTable
from drillcore.tokens.cache import cached
from drillcore.tokens.places import Places
from drillcore.tokens.sequences import Sequences
from drillcore.tokens.tokenizer import BATCH, Tokenizer

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
        if position.turns is not None:
            turns_R = self._turns(start, stop)
            if position.is_mean:
                return Places.means(turns_R[:, 1], turns_R[:, 2], self.counts(start, stop))
            return Places(turns_R[:, 2] - 1, np.concatenate([[0], np.cumsum(self.counts(start, stop))]))
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
        if self.position.turns is not None:
            assert self.found is not None
            return self.found.slice(start, stop).lengths_N // OF_TURN
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
            if places.row_Q is not None:
                found.append(Places.of([places.index_Q[places.row_Q == number]], is_mean=True))
            else:
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

    def _turns(self, start: int, stop: int) -> Int64:
        """What was found of each turn [R, 6]."""
        assert self.found is not None
        return np.asarray(self.found.slice(start, stop).ids_T, np.int64).reshape(-1, OF_TURN)

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
        if places.row_Q is not None:
            found["n_pooled"] = np.bincount(places.row_Q, minlength=places.num_rows)
        elif places.is_mean:
            found["n_pooled"] = np.diff(places.bounds_N1)
        else:
            begin_Q = np.repeat(tokens.offsets_N1[:-1], np.diff(places.bounds_N1))
            found |= {"token": places.index_Q, "token_id": np.asarray(tokens.ids_T[begin_Q + places.index_Q])}
            if self.position.last is not None:
                found["position"] = places.index_Q - np.repeat(tokens.lengths_N, np.diff(places.bounds_N1))
        if self.position.turns is not None:
            turns_R = self._turns(start, stop)
            found |= {"message": turns_R[:, 3], "char_start": turns_R[:, 4], "char_end": turns_R[:, 5]}
            found["exact"] = turns_R[:, 0].astype(bool)
        elif self._has_characters:
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
        names += ["message"] if self.position.turns is not None else []
        listed = [(name, "int32") for name in [*names, *(["char_start", "char_end"] * self._has_characters)]]
        return [*listed, *([("exact", "bool")] * (self.position.by_characters or self.position.turns is not None))]

    @property
    def _has_characters(self) -> bool:
        return self.position.by_characters or self.position.is_ragged

    def digest(self) -> str:
        """Of all that its coordinates are made from, beside the rows."""
        read = [self.tokens] if self.found is None else [self.tokens, self.found]
        parts = [hashlib.sha256(np.ascontiguousarray(s.ids_T, "<i4").data).hexdigest() for s in read]
        parts += [hashlib.sha256(np.ascontiguousarray(s.offsets_N1, "<i8").data).hexdigest() for s in read]
        self.tokens.release()
        return digest([self.position.record(), VERSION, sorted(self.special), *parts])

    def notes(self) -> Iterator[str]:
        """What a reader of the states must know."""
        if self.position.is_ragged and self.found is None:
            yield "this tokenizer does not tell the characters of its tokens: char_start and char_end are -1"
        if self.position.turns is not None:
            inexact, count = (
                int((self._turns(0, len(self.tokens))[:, 0] == 0).sum()),
                self.num_rows(0, len(self.tokens)),
            )
            if inexact:
                yield f"in {inexact:,} of {count:,} turns a token of the text reaches beyond it (coordinate `exact`)"
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


def place(group: Group, rows: RowTable, tokens: Sequences, tokenizer: Tokenizer, problems: Problems) -> Placed:
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
        except NotFoundError:
            found = None
        except TextError:
            if position.by_characters or position.turns is not None:
                raise
    placed = Placed(position, tokens, tokenizer.special, found)
    if position.turns is not None and found is not None and not len(found.ids_T):
        what = f"no conversation has a message of the role {position.turns.role!r} ({group.name})"
        problems.add(called(group, rows.files[0]), None, what)
    if position.mean is not None:
        bounds = [(s, min(s + BATCH, len(tokens))) for s in range(0, len(tokens), BATCH)]
        for start, stop in bounds:
            empty = np.flatnonzero(np.diff(placed.places(start, stop).bounds_N1) == 0)
            lengths_N = tokens.slice(start, stop).lengths_N
            tokens.release()
            what = "of which the mean leaves out the first ones and special ones"
            faults += [(start + i, f"has {lengths_N[i]} tokens, {what}: none is left") for i in empty.tolist()]
    _add(faults, group, rows.files, problems)
    return placed


def place_again(group: Group, table: list[dict[str, Any]], tokens: Sequences, tokenizer: Tokenizer) -> Placed:
    """The places in some rows, given by their columns; raises TextError where one has none."""
    found, faults = None, list[tuple[int, str]]()
    if group.position.by_characters or group.position.is_ragged:
        finder = Finder(group, tokenizer, lambda rows: [table[n] for n in rows], lambda n: tokens[n].tolist(), faults)
        try:
            found = Sequences.of(finder.of(range(len(table))))
        except TextError:
            if group.position.by_characters or group.position.turns is not None:
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


def _add(faults: Sequence[tuple[int, str]], group: Group, files: Sequence[Path], problems: Problems) -> None:
    """Name the lines of what is wrong, as far as it is shown."""
    shown = {row for row, _ in faults[: problems.limit]}
    lines = lines_of(files, group, shown) if shown else {}
    for row, what in faults:
        file, line = lines.get(row, (files[0], None))
        problems.add(called(group, file), line, f"sentence {row} {what} ({group.name})")

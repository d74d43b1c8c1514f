"""Finds the tokens of places that are named by characters, or by the turn of a conversation, in texts as encoded.

What cannot be proved is refused. The tokenizer's own offsets are used, and proved for each text.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from drillcore.errors import TextError
from drillcore.job.groups import Group, column_of, number_of
from drillcore.runtime.continuing import around_of
from drillcore.texts.conversations import messages_of
from drillcore.texts.spans import occurrence_of, span_of
from drillcore.tokens.characters import Characters, characters_of
from drillcore.tokens.tokenizer import BATCH, Tokenizer
from drillcore.tokens.turns import TurnTokens, tokens_of_turns
from drillcore.tokens.within import Within

# Numbers of each turn that is found: whether no token reaches beyond its text, its first token and the one after its
# last, the number of the message, and the characters, or -1.
OF_TURN = 6


class NotFoundError(Exception):
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
        # Offsets of a conversation count in all that its template writes.
        self._within = Within() if group.messages is not None else Within.of(tokenizer, self._around)

    def all(self, num_rows: int) -> Iterator[list[int]]:
        """Of every row; raises NotFoundError at the end where one has no such place."""
        for start in range(0, num_rows, BATCH):
            yield from self.of(range(start, min(start + BATCH, num_rows)))
        if self._faults:
            raise NotFoundError

    def of(self, numbers: Sequence[int]) -> list[list[int]]:
        """Of some rows, each as `Placed.found` has it; empty where a row has no such place."""
        table = self._read(numbers)
        if self._position.turns is not None:
            return [self._turns(n, row) for n, row in zip(numbers, table, strict=True)]
        written = list(self._tokenizer.rendered([row["text"] for row in table], self._around))
        found = list[list[int]]()
        encoded = characters_of(self._tokenizer, written, self._around)
        for number, row, rendered, (ids, characters) in zip(numbers, table, written, encoded, strict=True):
            self._compare(number, list(ids))
            try:
                found.append(self._found(row, rendered, characters))
            except ValueError as error:
                self._faults.append((number, str(error)))
                found.append([])
        return found

    def _compare(self, number: int, ids: list[int]) -> None:
        """Raise TextError where the ids are not those that the sentence has without offsets."""
        if ids != self._ids_of(number):
            raise TextError(
                f"the tokenizer gives other tokens for sentence {number} when it is asked for offsets",
                hint=f"{self._group.name}: positions by character cannot be trusted with it; `last` works.",
            )

    def _turns(self, number: int, row: dict[str, Any]) -> list[int]:
        """The turns of one conversation, `OF_TURN` numbers each; none where one of them has no such place."""
        wanted = self._position.turns
        assert wanted is not None
        messages, more = messages_of(row["text"])
        ids, characters, turns = tokens_of_turns(self._tokenizer, messages, {**dict(self._around.chat), **more})
        self._compare(number, ids)
        found: list[int] = []
        for message, turn in enumerate(turns):
            if wanted.role not in (None, turn.role):
                continue
            try:
                first, stop, exact = _place_of(turn, wanted.at, message)
            except ValueError as error:
                self._faults.append((number, str(error)))
                return []
            place = (0, 0, int(characters.stop_T.max(initial=0)))
            found += [int(exact), first, stop, message, *self._of_rows([(first, stop)], characters, place)]
        return found

    def _found(self, row: dict[str, Any], rendered: str, characters: Characters) -> list[int]:
        """Of one row; raises ValueError where it has no such place."""
        num_tokens, position = len(characters.start_T), self._position
        text = rendered if self._group.messages is not None else row["text"]
        place = self._within.place(text, rendered)
        if not position.by_characters:
            first = 0 if position.last is None else max(0, num_tokens - position.last)
            rows = [(token, token + 1) for token in range(first, num_tokens)]
            return [1, first, num_tokens, *self._of_rows(rows, characters, place)]
        start, stop = self._meant(row, rendered, place)
        if start >= stop:
            raise ValueError("has characters there that the chat template trims")
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


def _place_of(turn: TurnTokens, at: str, message: int) -> tuple[int, int, bool]:
    """The tokens of a turn that are meant, and whether they hold nothing else; raises ValueError where it has none."""
    if turn.problem:
        raise ValueError(turn.problem)
    if at == "mean":
        return turn.first, turn.stop, turn.begins and turn.ends
    token = {"content_last": turn.stop - 1, "end_of_turn": turn.marker, "generation_prompt": turn.prompt}[at]
    if token is None:
        what = "special token that ends its turn" if at == "end_of_turn" else "token before its text"
        raise ValueError(f"message {message} ({turn.role}): it has no {what}")
    return token, token + 1, turn.ends or at != "content_last"

"""Which characters of a text each of its tokens stands for: from the tokenizer's own offsets, and proved for each text.

Shape legend: T tokens of a text.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from drillcore.errors import TextError
from drillcore.tokens.tokenizer import Around, Tokenizer

Int64 = NDArray[np.int64]
# Code points that one composed character may stand for.
MOST_PARTS = 4


@dataclass(frozen=True)
class Characters:
    """The characters of a text, as encoded, that its tokens stand for.

    start_T, stop_T: the first one of each token and the one after its last, in code points; equal for a token that
    stands for none, which the tokenizer added. Tokens that are parts of one character have its place, each.

    >>> characters = Characters(np.array([0, 0, 4]), np.array([0, 4, 9]))
    >>> characters.over(2, 4), characters.over(4, 6), characters.over(9, 12)
    (Range(first=1, stop=2, exact=True), Range(first=2, stop=3, exact=False), None)
    """

    start_T: Int64
    stop_T: Int64

    def over(self, first: int, stop: int) -> Range | None:
        """The tokens that overlap characters `first` to before `stop`; None where there are none."""
        inside = np.flatnonzero((self.start_T < stop) & (self.stop_T > first) & (self.start_T < self.stop_T))
        if first >= stop or not len(inside):
            return None
        return Range(int(inside[0]), int(inside[-1]) + 1, bool(self.stop_T[inside[-1]] <= stop))


@dataclass(frozen=True)
class Range:
    """Tokens `first` to before `stop`. exact: whether the last one ends within the characters that were asked for."""

    first: int
    stop: int
    exact: bool


def characters_of(
    tokenizer: Tokenizer, rendered: Sequence[str], around: Around
) -> Iterator[tuple[list[int], Characters]]:
    """Token ids and characters of texts as they are encoded, with what `around` adds.

    Raises TextError, which names the reason, where the tokenizer tells no offsets or they do not reproduce a text.
    """
    encoded = tokenizer.encode_rendered(rendered, around)
    if encoded is None:
        raise TextError(
            "this tokenizer does not tell which characters its tokens stand for",
            hint="Positions by character need a fast tokenizer (tokenizer.json).",
        )
    for text, (ids, offsets) in zip(rendered, encoded, strict=True):
        places = np.array(offsets, np.int64).reshape(-1, 2)
        proof = _Proof(tokenizer, text, ids, Characters(places[:, 0].copy(), places[:, 1].copy()))
        problem = proof.problem()
        if problem:
            raise TextError(
                f"the offsets of this tokenizer do not reproduce the text {text[:80]!r}: {problem}",
                hint="Positions by character cannot be trusted with it; `last` works.",
            )
        yield ids, proof.characters


class _Proof:
    """Offsets of one text: what tokenizers do to them undone, then each token compared with its characters."""

    def __init__(self, tokenizer: Tokenizer, text: str, ids: Sequence[int], characters: Characters) -> None:
        self._tokenizer, self._text, self._ids, self.characters = tokenizer, text, ids, characters
        self._written = [tokenizer.written_bytes(i) for i in ids]
        self._literal = [tokenizer.added_texts.get(i) for i in ids]

    def problem(self) -> str:
        """Why offsets cannot be those of the text's tokens; empty where each token is written as its characters are."""
        found = self._misplaced()
        if not found:
            self._put_back()
            self._extend_composed()
            found = self._misplaced() or self._missing() or self._misread()
        return found

    def _misplaced(self) -> str:
        start_T, stop_T, text = self.characters.start_T, self.characters.stop_T, self._text
        if len(self._ids) != len(start_T):
            return f"{len(self._ids)} tokens have {len(start_T)} offsets"
        if len(start_T) and (start_T.min() < 0 or stop_T.max() > len(text) or (start_T > stop_T).any()):
            return "an offset lies outside"
        real = start_T < stop_T
        backwards = (np.diff(start_T[real]) < 0).any() or (np.diff(stop_T[real]) < 0).any()
        return "offsets go backwards" if backwards else ""

    def _put_back(self) -> None:
        """Undo what tokenizers do to offsets, token by token: spaces swallowed, cut off, or written before a text."""
        start_T, stop_T, text = self.characters.start_T, self.characters.stop_T, self._text
        before = 0
        for number, literal in enumerate(self._literal):
            said = self._written[number].decode(errors="replace")
            start, stop = int(start_T[number]), int(stop_T[number])
            if literal is not None:
                # An added token may take the spaces around it along.
                place = text[start:stop].find(literal)
                if place >= 0:
                    start, stop = start + place, start + place + len(literal)
            elif start < stop:
                if not said.strip() and (text[start:stop].strip() or self._is_first_of_next(number)):
                    stop = start  # a space that is not of the text
                elif said.strip():
                    start, stop = self._with_spaces(said, before, start, stop)
            elif said and not said.strip() and text[before : before + len(said)] == said:
                start, stop = before, before + len(said)
            start_T[number], stop_T[number] = start, stop
            if start < stop:
                before = max(before, stop)

    def _extend_composed(self) -> None:
        """Where one composed character stands for several of the text, offsets end after the first of them."""
        start_T, stop_T, text = self.characters.start_T, self.characters.stop_T, self._text
        starts = np.sort(start_T[start_T < stop_T])
        for stop in np.unique(stop_T[start_T < stop_T]).tolist():
            following = int(np.searchsorted(starts, stop))
            until = int(starts[following]) if following < len(starts) else len(text)
            if stop < until <= stop + MOST_PARTS and len(unicodedata.normalize("NFC", text[stop - 1 : until])) == 1:
                stop_T[(stop_T == stop) & (start_T < stop_T)] = until

    def _is_first_of_next(self, number: int) -> bool:
        """Whether the following token has this one's place, and more: a space before a text has that of its start."""
        start_T, stop_T = self.characters.start_T, self.characters.stop_T
        following = number + 1
        if following >= len(start_T) or start_T[following] != start_T[number] or stop_T[following] < stop_T[number]:
            return False
        said = self._written[following].decode(errors="replace")
        # Parts of one character have its place, each.
        return "\ufffd" not in said or self._literal[following] is not None

    def _with_spaces(self, said: str, before: int, start: int, stop: int) -> tuple[int, int]:
        """A token's characters with the spaces that its offsets were trimmed of."""
        text = self._text
        has = text[start:stop]
        lead = (len(said) - len(said.lstrip(" "))) - (len(has) - len(has.lstrip(" ")))
        tail = (len(said) - len(said.rstrip(" "))) - (len(has) - len(has.rstrip(" ")))
        while lead > 0 and start > before and text[start - 1] == " ":
            start, lead = start - 1, lead - 1
        while tail > 0 and stop < len(text) and text[stop] == " ":
            stop, tail = stop + 1, tail - 1
        return start, stop

    def _missing(self) -> str:
        """Names a character that no token stands for; empty where there is none, but for what normalizers drop."""
        start_T, stop_T, text = self.characters.start_T, self.characters.stop_T, self._text
        depth = np.zeros(len(text) + 1, np.int64)
        real = start_T < stop_T
        np.add.at(depth, start_T[real], 1)
        np.add.at(depth, stop_T[real], -1)
        for place in np.flatnonzero(np.cumsum(depth)[:-1] == 0).tolist():
            if _folded(text[place]):
                return f"no token stands for {text[place]!r} at {place}"
        return ""

    def _misread(self) -> str:
        """Names tokens that stand for characters they are not written as; empty where there are none."""
        start_T, stop_T = self.characters.start_T, self.characters.stop_T
        unknown = self._tokenizer.unknown[0] if self._tokenizer.unknown else None
        groups: list[list[int]] = []
        for number in np.flatnonzero(start_T < stop_T).tolist():
            # Tokens that share a character are parts of it, and are read together.
            if groups and start_T[number] < stop_T[groups[-1][-1]]:
                groups[-1].append(number)
            else:
                groups.append([number])
        for group in groups:
            if any(self._ids[number] == unknown for number in group):
                continue
            said = b"".join(self._written[number] for number in group).decode(errors="replace")
            stands_for = self._text[start_T[group[0]] : stop_T[group[-1]]]
            if not self._same(said, stands_for):
                return f"{said!r} would stand for {stands_for!r}"
        return ""

    def _same(self, said: str, stands_for: str) -> bool:
        if said == stands_for or said.removeprefix(" ") == stands_for:
            return True
        if not self._tokenizer.normalizes:
            return False
        if not said.strip() or not stands_for.strip():
            return not said.strip() and not stands_for.strip()
        return _folded(unicodedata.normalize("NFC", said)) == _folded(stands_for)


def _folded(text: str) -> str:
    """A text without what normalizers change: case, accents, compatibility forms, spaces, control characters.

    >>> _folded(" Ｅ\u0301té\\n"), _folded("İ") == _folded("i")
    ('ete', True)
    """
    spread = unicodedata.normalize("NFKD", unicodedata.normalize("NFKD", text).casefold())
    return "".join(c for c in spread if unicodedata.category(c)[0] not in "MZC" and c not in "▁\ufffd")

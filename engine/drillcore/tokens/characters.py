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
# Stands for bytes that are no whole character.
FRAGMENT = "\ufffd"


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
        if not len(inside):
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
        characters = Characters(places[:, 0], places[:, 1])
        written = [tokenizer.written(i) for i in ids]
        problem = _misplaced(text, ids, characters)
        if not problem:
            characters = _without_spaces(text, written, characters)
            problem = _missing(text, characters) or _misread(tokenizer, text, ids, written, characters)
        if problem:
            raise TextError(
                f"the offsets of this tokenizer do not reproduce the text {text[:80]!r}: {problem}",
                hint="Positions by character cannot be trusted with it; `last` works.",
            )
        yield ids, characters


def _misplaced(text: str, ids: Sequence[int], characters: Characters) -> str:
    """Why offsets cannot be those of a text's tokens; empty where they can."""
    start_T, stop_T = characters.start_T, characters.stop_T
    if len(ids) != len(start_T):
        return f"{len(ids)} tokens have {len(start_T)} offsets"
    if len(ids) and (start_T.min() < 0 or stop_T.max() > len(text) or (start_T > stop_T).any()):
        return "an offset lies outside"
    real = start_T < stop_T
    backwards = (np.diff(start_T[real]) < 0).any() or (np.diff(stop_T[real]) < 0).any()
    return "offsets go backwards" if backwards else ""


def _without_spaces(text: str, written: Sequence[str], characters: Characters) -> Characters:
    """A space that the tokenizer writes before a text has the place of the first character: it stands for none."""
    stop_T = characters.stop_T.copy()
    for number in np.flatnonzero(characters.start_T < stop_T).tolist():
        if not written[number].strip() and text[characters.start_T[number] : stop_T[number]].strip():
            stop_T[number] = characters.start_T[number]
    return Characters(characters.start_T, stop_T)


def _missing(text: str, characters: Characters) -> str:
    """Names a character that no token stands for; empty where there is none, but for what normalizers drop."""
    real = characters.start_T < characters.stop_T
    depth = np.zeros(len(text) + 1, np.int64)
    np.add.at(depth, characters.start_T[real], 1)
    np.add.at(depth, characters.stop_T[real], -1)
    for place in np.flatnonzero(np.cumsum(depth)[:-1] == 0).tolist():
        if _folded(text[place]):
            return f"no token stands for {text[place]!r} at {place}"
    return ""


def _misread(
    tokenizer: Tokenizer, text: str, ids: Sequence[int], written: Sequence[str], characters: Characters
) -> str:
    """Names a token that stands for characters it is not written as; empty where there is none."""
    unknown = tokenizer.unknown[0] if tokenizer.unknown else None
    for number in np.flatnonzero(characters.start_T < characters.stop_T).tolist():
        said, stands_for = written[number], text[characters.start_T[number] : characters.stop_T[number]]
        if ids[number] != unknown and FRAGMENT not in said and _folded(said) != _folded(stands_for):
            return f"token {said!r} would stand for {stands_for!r}"
    return ""


def _folded(text: str) -> str:
    """A text without what normalizers change: case, accents, compatibility forms, spaces, control characters.

    >>> _folded(" Ｅ\u0301té\\n"), _folded("İ") == _folded("i")
    ('ete', True)
    """
    spread = unicodedata.normalize("NFKD", unicodedata.normalize("NFKD", text).casefold())
    return "".join(c for c in spread if unicodedata.category(c)[0] not in "MZC" and c != "▁")

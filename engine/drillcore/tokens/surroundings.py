"""What stands around every sentence once it is encoded: special tokens that are doubled or end all of them, dates.

Shape legend: N sentences.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from drillcore.tokens.sequences import Sequences
from drillcore.tokens.tokenizer import Around, Tokenizer


def notes_on(tokenizer: Tokenizer, around: Around, tokens: Sequences) -> Iterator[str]:
    """One plain line for each thing that a user may not know of, with the token and the setting that removes it.

    tokens: of all sentences, not truncated.
    """
    lengths_N = tokens.lengths_N
    if len(tokens) and lengths_N.min() > 0:
        yield from _ends(tokenizer, around, tokens)
        yield from _twice(tokenizer, around, tokens, at_end=False)
        yield from _twice(tokenizer, around, tokens, at_end=True)
    tokens.release()
    date = tokenizer.date_in(around)
    if date is not None:
        remedy = "chat: {date_string: ...} of the dataset fixes it" if tokenizer.reads("date_string") else WRITTEN_OUT
        yield f"the chat template writes today's date ({date}): on another day the tokens are others; {remedy}"


WRITTEN_OUT = "a `template` with text that holds {text} leaves it out"


def _at(tokens: Sequences, place: int) -> NDArray[np.int64]:
    """The token at a place of each sentence [N], counted from its end where negative; -1 where it is too short."""
    starts_N, lengths_N = tokens.offsets_N1[:-1], tokens.lengths_N
    inside_N = lengths_N > (place if place >= 0 else -place - 1)
    places_N = starts_N + (place if place >= 0 else lengths_N + place)
    return np.where(inside_N, tokens.ids_T[np.where(inside_N, places_N, 0)], -1).astype(np.int64)


def _ends(tokenizer: Tokenizer, around: Around, tokens: Sequences) -> Iterator[str]:
    """All sentences end in one special token: its state is stored, not that of the sentence's own last token."""
    last_N = _at(tokens, -1)
    last = int(last_N[0])
    if last not in tokenizer.special or not (last_N == last).all():
        return
    piece = tokenizer.pieces([last])[0]
    if _adds(tokenizer, around, last, at_end=True):
        others = [p for ids in tokenizer.added for p in tokenizer.pieces(ids) if p != piece]
        beside = f" (and {', '.join(others)})" if others else ""
        cause = f"which the tokenizer adds; extract.special_tokens: none leaves it out{beside}"
    elif around.is_chat:
        cause = f"which the chat template writes; {WRITTEN_OUT}"
    elif around.template is not None and _written(tokenizer, around, piece, at_end=True):
        cause = "which `template` of the dataset writes; take it out there if it is not meant"
    else:
        cause = "which stands in the texts themselves"
    yield f"every sentence ends in the special token {piece}, {cause}: its states are those of {piece}"


def _twice(tokenizer: Tokenizer, around: Around, tokens: Sequences, *, at_end: bool) -> Iterator[str]:
    """Sentences that begin, or end, with the same special token twice, a blank between the two at most."""
    edge_N = _at(tokens, -1 if at_end else 0)
    near = [_at(tokens, place) for place in ((-2, -3) if at_end else (1, 2))]
    special_N = np.isin(edge_N, list(tokenizer.special))
    twice_N = special_N & ((near[0] == edge_N) | ((near[1] == edge_N) & (tokens.lengths_N > 3)))
    if not twice_N.any():
        return
    n = int(np.flatnonzero(twice_N)[0])
    token = int(edge_N[n])
    piece, edge = tokenizer.pieces([token])[0], "end" if at_end else "begin"
    if around.is_chat:
        source = "the chat template writes both"
    elif _adds(tokenizer, around, token, at_end=at_end):
        written = around.template is not None and _written(tokenizer, around, piece, at_end=at_end)
        place = "`template` of the dataset" if written else "the text"
        source = f"one is in {place}, the other is added by the tokenizer; extract.special_tokens: none leaves that out"
    else:
        source = "both are in the text or its template"
    count = f"{int(twice_N.sum()):,} of {len(tokens):,} sentences"
    yield f"{count} {edge} with {piece} twice (sentence {n} first): {source}"


def _adds(tokenizer: Tokenizer, around: Around, token: int, *, at_end: bool) -> bool:
    """Whether the tokenizer itself adds this token at that end of a sentence."""
    before, after = tokenizer.added
    return not around.is_chat and token in (after[-1:] if at_end else before)


def _written(tokenizer: Tokenizer, around: Around, piece: str, *, at_end: bool) -> bool:
    """Whether the template's text writes a token at that end."""
    before, _, after = (around.template or "").partition("{text}")
    return after.rstrip().endswith(piece) if at_end else before.lstrip().startswith(piece)

"""Characters of tokens: for tokenizers of every kind, and texts whose characters and tokens do not align."""

from __future__ import annotations

import random

import numpy as np
import pytest

from drillcore.backends.demo_model import demo_directory, ensure_demo_model
from drillcore.errors import TextError
from drillcore.tokens import characters as module
from drillcore.tokens.characters import Characters, characters_of
from drillcore.tokens.tokenizer import Around, Tokenizer
from support.vocabularies import FAST, SLOW, write

# Emoji of several code points, right-to-left, combining marks, characters of four bytes, composed and decomposed.
ODD = ["👩‍👩‍👧‍👦", "🇨🇦", "שלום", "مرحبا", "e\u0301", "é", "ﬁ", "Ⅷ", "日本語", "𝔸", "naïve", "\u200dx", "İ", "ß"]
PLAIN = ["Toronto", "Montreal's", " ", "  ", "is", "the", "city", "of", ",", ".", "?!", "1999", "\n", "now", "e"]


def drawn(seed: int, count: int = 40) -> list[str]:
    draw = random.Random(seed)
    return ["".join(draw.choice([*ODD, *PLAIN, " "]) for _ in range(draw.randint(1, 25))) for _ in range(count)]


@pytest.fixture
def open_kind(tmp_path):
    return lambda kind, **settings: Tokenizer(str(write(tmp_path / kind, kind, **settings)), "auto")


@pytest.mark.parametrize("kind", FAST)
def test_every_character_belongs_to_the_token_that_is_written_so(open_kind, kind, seed):
    tokenizer, texts = open_kind(kind), [t for t in drawn(seed) if t.strip()]
    found = list(characters_of(tokenizer, texts, Around()))
    assert [ids for ids, _ in found] == tokenizer.encode(texts)
    for text, (ids, characters) in zip(texts, found, strict=True):
        assert characters.over(0, len(text)) is not None
        for place, letter in enumerate(text):
            over = characters.over(place, place + 1)
            if module._folded(letter) and over is not None:
                tokens = range(over.first, over.stop)
                assert all(characters.start_T[t] <= place < characters.stop_T[t] for t in tokens)
        added = [t for t, i in enumerate(ids) if i in tokenizer.special and i != (tokenizer.unknown or (None,))[0]]
        assert 0 in added and all(characters.start_T[t] == characters.stop_T[t] for t in added)


def bytes_of(piece: str) -> bytes:
    """What a piece of a vocabulary of bytes stands for (GPT-2's letters for bytes)."""
    shown = [*range(33, 127), *range(161, 173), *range(174, 256)]
    letters = {chr(b): b for b in shown}
    letters |= {chr(256 + i): b for i, b in enumerate(b for b in range(256) if b not in shown)}
    return bytes(letters[c] for c in piece)


@pytest.mark.parametrize("which", ["bytes", "demo"])
def test_the_last_token_over_a_span_is_the_one_that_completes_it(open_kind, which, seed):
    ensure_demo_model()
    tokenizer = open_kind("bytes") if which == "bytes" else Tokenizer(str(demo_directory()), "none")
    texts, draw = drawn(seed), random.Random(seed)
    first = len(tokenizer.added[0])
    for text, (ids, characters) in zip(texts, characters_of(tokenizer, texts, Around()), strict=True):
        # Where each token ends in the text's bytes: told by its bytes alone.
        ends = np.cumsum([len(bytes_of(piece)) for piece in tokenizer.pieces(ids[first:])])
        assert ends[-1] == len(text.encode())
        for _ in range(5):
            low = draw.randrange(len(text))
            high = draw.randrange(low, len(text)) + 1
            if text[low].isspace() or text[high - 1].isspace():
                continue  # some tokenizers count the space before a word, some do not
            over = characters.over(low, high)
            completes = int(np.searchsorted(ends, len(text[:high].encode()))) + first
            begins = int(np.searchsorted(ends, len(text[:low].encode()), side="right")) + first
            assert (over.first, over.stop - 1) == (begins, completes), (text, low, high)
            assert over.exact == (ends[completes - first] == len(text[:high].encode()))


def test_what_is_written_around_is_part_of_the_text(open_kind):
    tokenizer, around = open_kind("bytes"), Around("Say: {text} now")
    ((ids, characters),) = characters_of(tokenizer, [tokenizer.render("Toronto", around)], around)
    over = characters.over(5, 12)
    assert tokenizer.encode(["Toronto"], around) == [ids]
    said = "".join(tokenizer.written(i) for i in ids[over.first : over.stop])
    assert said.strip() == "Toronto"


@pytest.mark.parametrize("kind", SLOW)
def test_a_tokenizer_that_tells_no_offsets_is_refused(open_kind, kind):
    with pytest.raises(TextError, match="does not tell which characters"):
        list(characters_of(open_kind(kind), ["Toronto"], Around()))


@pytest.mark.parametrize("wrong", ["shifted", "backwards", "outside", "uncovered", "short"])
def test_offsets_that_are_wrong_are_refused(open_kind, wrong, monkeypatch):
    tokenizer, text = open_kind("bytes"), "She moved to Toronto, the old port."
    ((ids, offsets),) = tokenizer.encode_rendered([text], Around())
    changed = {
        "shifted": [(a + 1, b + 1) if a > 0 and b < len(text) else (a, b) for a, b in offsets],
        "backwards": [*offsets[:2], offsets[4], offsets[3], *offsets[4:]][: len(offsets)],
        "outside": [*offsets[:-1], (offsets[-1][0], len(text) + 1)],
        "uncovered": [*offsets[:3], (0, 0), *offsets[4:]],
        "short": offsets[:-1],
    }[wrong]
    monkeypatch.setattr(tokenizer, "encode_rendered", lambda *_: [(ids, changed)])
    with pytest.raises(TextError, match="do not reproduce the text"):
        list(characters_of(tokenizer, [text], Around()))


def test_spans_between_and_beyond_tokens():
    characters = Characters(np.array([0, 0, 5]), np.array([0, 4, 9]))
    assert characters.over(4, 5) is None and characters.over(9, 20) is None and characters.over(0, 0) is None
    assert characters.over(3, 6).first == 1 and characters.over(3, 6).stop == 3 and not characters.over(3, 6).exact

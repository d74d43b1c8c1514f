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
from support.vocabularies import FAST, OFFSETS, SLOW, write

# Emoji of several code points, right-to-left, combining marks, characters of four bytes, composed and decomposed.
ODD = ["👩‍👩‍👧‍👦", "🇨🇦", "שלום", "مرحبا", "e\u0301", "é", "ﬁ", "Ⅷ", "日本語", "𝔸", "naïve", "\u200dx", "İ", "ß"]
ODD += ["…", "™", "\u1112\u1161\u11ab", "\ufffd"]
PLAIN = ["Toronto", "Montreal's", " ", "  ", "is", "the", "city", "of", ",", ".", "?!", "1999", "\n", "now", "e"]


def drawn(seed: int, count: int = 40) -> list[str]:
    draw = random.Random(seed)
    return ["".join(draw.choice([*ODD, *PLAIN, " "]) for _ in range(draw.randint(1, 25))) for _ in range(count)]


@pytest.fixture
def open_kind(tmp_path):
    return lambda kind, **settings: Tokenizer(str(write(tmp_path / kind, kind, **settings)), "auto")


@pytest.mark.parametrize("kind", [*FAST, *OFFSETS])
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
        assert (0 in added or kind == "trimmed") and all(characters.start_T[t] == characters.stop_T[t] for t in added)


def bytes_of(piece: str) -> bytes:
    """What a piece of a vocabulary of bytes stands for (GPT-2's letters for bytes)."""
    shown = [*range(33, 127), *range(161, 173), *range(174, 256)]
    letters = {chr(b): b for b in shown}
    letters |= {chr(256 + i): b for i, b in enumerate(b for b in range(256) if b not in shown)}
    return bytes(letters[c] for c in piece)


@pytest.mark.parametrize("which", ["bytes", "trimmed", "demo"])
def test_the_last_token_over_a_span_is_the_one_that_completes_it(open_kind, which, seed):
    ensure_demo_model()
    tokenizer = open_kind(which) if which != "demo" else Tokenizer(str(demo_directory()), "none")
    texts, draw = drawn(seed), random.Random(seed)
    first = len(tokenizer.added[0])
    for text, (ids, characters) in zip(texts, characters_of(tokenizer, texts, Around()), strict=True):
        # Where each token ends in the text's bytes: told by its bytes alone.
        ends = np.cumsum([len(bytes_of(piece)) for piece in tokenizer.pieces(ids[first:])])
        assert ends[-1] == len(text.encode())
        for _ in range(5):
            low = draw.randrange(len(text))
            high = draw.randrange(low, len(text)) + 1
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
    said = "".join(tokenizer.written_bytes(i).decode() for i in ids[over.first : over.stop])
    assert said.strip() == "Toronto"


@pytest.mark.parametrize("kind", SLOW)
def test_a_tokenizer_that_tells_no_offsets_is_refused(open_kind, kind):
    with pytest.raises(TextError, match="does not tell which characters"):
        list(characters_of(open_kind(kind), ["Toronto"], Around()))


def test_spaces_that_an_added_token_takes_along_are_not_its_text(tmp_path):
    from tokenizers import AddedToken
    from transformers import AutoTokenizer

    loaded = AutoTokenizer.from_pretrained(write(tmp_path / "a", "bytes"))
    loaded.add_tokens([AddedToken("<|user|>", rstrip=True, special=True), AddedToken("Ã©", special=False)])
    loaded.save_pretrained(tmp_path / "b")
    tokenizer = Tokenizer(str(tmp_path / "b"), "none")
    text = "<|user|>\n  Toronto Ã©"
    ((ids, characters),) = characters_of(tokenizer, [text], Around("chat"))
    pieces = tokenizer.pieces(ids)
    at = pieces.index("<|user|>")
    assert (characters.start_T[at], characters.stop_T[at]) == (0, 8)
    assert characters.over(8, 11) is None and characters.over(11, 18).first > at


@pytest.mark.parametrize("text", ["\ud800", "a\udfff"])
def test_half_of_a_pair_is_refused(open_kind, text):
    with pytest.raises(TextError, match="half of a surrogate pair"):
        list(characters_of(open_kind("bytes"), [text], Around()))


@pytest.mark.parametrize("counts", [(5, 2, 2), (2, 3, 4), (3, 3, 3)])
def test_parts_of_characters_are_read_together(open_kind, monkeypatch, counts):
    tokenizer, text = open_kind("bytes"), "日本語"
    ((ids, offsets),) = tokenizer.encode_rendered([text], Around())
    assert len(ids) == 10
    changed = [offsets[0], *((k, k + 1) for k, count in enumerate(counts) for _ in range(count))]
    monkeypatch.setattr(tokenizer, "encode_rendered", lambda *_: [(ids, changed)])
    if counts == (3, 3, 3):
        list(characters_of(tokenizer, [text], Around()))
    else:
        with pytest.raises(TextError, match="would stand for"):
            list(characters_of(tokenizer, [text], Around()))


def test_spaces_are_told_apart(open_kind, monkeypatch):
    tokenizer, text = open_kind("bytes"), "a \n\tb"
    ((ids, offsets),) = tokenizer.encode_rendered([text], Around())
    places = [k for k, (a, b) in enumerate(offsets) if text[a:b] == "\n"]
    assert places
    changed = list(offsets)
    changed[places[0]] = (offsets[places[0]][0] - 1, offsets[places[0]][1] - 1)
    monkeypatch.setattr(tokenizer, "encode_rendered", lambda *_: [(ids, changed)])
    with pytest.raises(TextError, match="do not reproduce"):
        list(characters_of(tokenizer, [text], Around()))


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
    assert characters.over(3, 3) is None and characters.over(4, 3) is None
    assert characters.over(4, 5) is None and characters.over(9, 20) is None and characters.over(0, 0) is None
    assert characters.over(3, 6).first == 1 and characters.over(3, 6).stop == 3 and not characters.over(3, 6).exact

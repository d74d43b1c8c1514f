"""Special tokens that are doubled or end all sentences, and dates, are said with the setting that removes them."""

from __future__ import annotations

import re
from datetime import datetime
from pathlib import Path

import pytest

from drillcore.errors import JobError
from drillcore.tokens.sequences import Sequences
from drillcore.tokens.surroundings import notes_on
from drillcore.tokens.tokenizer import Around, Tokenizer
from support import vocabularies

TEXTS = ["She moved to", "the old port of", "a"]
PLAIN, CHAT = Around(), Around("chat")
PROMPT = "{{ bos_token }}{{ messages[0]['content'] }}{% if add_generation_prompt %}</s>{% endif %}"


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def notes(
    folder: Path, kind: str, around: Around = PLAIN, special: str = "auto", texts: list[str] = TEXTS, **settings: str
) -> list[str]:
    tokenizer = Tokenizer(str(vocabularies.write(folder / kind, kind, **settings)), special)
    return list(notes_on(tokenizer, around, Sequences.of(tokenizer.encode(texts, around))))


def test_nothing_is_said_of_plain_sentences(tmp_path: Path) -> None:
    for kind in ("bytes", "metaspace", "wordpiece", "ctrl"):
        assert notes(tmp_path, kind) == []
    assert notes(tmp_path, "appends", special="none") == []
    assert notes(tmp_path, "bytes", CHAT, chat_template="{{ bos_token }}{{ messages[0]['content'] }}") == []


@pytest.mark.parametrize(
    ("kind", "around", "texts", "wanted"),
    [
        ("appends", PLAIN, TEXTS, r"^every sentence ends in .* </s>, which the tokenizer adds; .*none .*\(and <s>\)"),
        (
            "byt5",
            PLAIN,
            TEXTS,
            r"^every .* </s>, which the tokenizer adds; extract.special_tokens: none",
        ),
        ("bytes", Around("{text}</s>"), TEXTS, r"^every sentence ends in .* </s>, which `template` of the dataset"),
        ("bytes", CHAT, TEXTS, r"^every sentence ends in .* </s>, which the chat template writes; a `template`"),
        ("bytes", PLAIN, ["a</s>", "b</s>"], r"^every sentence ends in .* </s>, which stands in the texts themselves"),
        ("bytes", Around("<s>{text}"), TEXTS, r"^3 of 3 sentences begin with <s> twice .*: one is in `template`"),
        (
            "bytes",
            PLAIN,
            ["<s>a", "b", "<s> c"],
            r"^2 of 3 .* with <s> twice \(sentence 0 first\): one is in the text",
        ),
        (
            "metaspace",
            PLAIN,
            ["b", "<s>a"],
            r"^1 of 2 .* with <s> twice \(sentence 1 first\).*special_tokens: none",
        ),
        ("appends", PLAIN, ["a</s>", "b"], r"^1 of 2 sentences end with </s> twice"),
    ],
)
def test_one_note_names_token_and_setting(
    kind: str, around: Around, texts: list[str], wanted: str, tmp_path: Path
) -> None:
    found = notes(tmp_path, kind, around, texts=texts, chat_template=PROMPT)
    assert sum(re.search(wanted, note) is not None for note in found) == 1, found


def test_a_chat_template_that_is_rendered_with_two_of_them(tmp_path: Path) -> None:
    (note,) = notes(tmp_path, "bytes", CHAT, chat_template="<s>{{ bos_token }}{{ messages[0]['content'] }}")
    assert "3 of 3 sentences begin with <s> twice" in note and "the chat template writes both" in note


def test_todays_date_is_said_with_what_fixes_it(tmp_path: Path) -> None:
    today = datetime.now().strftime("%d %b %Y")
    dated = "{{ date_string if date_string is defined else strftime_now('%d %b %Y') }} {{ messages[0]['content'] }}"
    (note,) = notes(tmp_path, "bytes", CHAT, chat_template=dated)
    assert f"writes today's date ({today})" in note and "chat: {date_string: ...}" in note
    assert notes(tmp_path, "bytes", Around("chat", (("date_string", "then"),)), chat_template=dated) == []
    (note,) = notes(tmp_path, "bytes", CHAT, chat_template="{{ strftime_now('%Y') }} {{ messages[0]['content'] }}")
    assert "a `template` with text that holds {text} leaves it out" in note


def test_a_chat_template_that_fails_is_named(tmp_path: Path) -> None:
    with pytest.raises(JobError, match="chat template fails on one user message: no system prompt"):
        notes(tmp_path, "bytes", CHAT, chat_template="{{ raise_exception('no system prompt') }}")

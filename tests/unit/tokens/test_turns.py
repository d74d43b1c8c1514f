"""Turns of chats: proved for templates of several styles, refused by name where they cannot be."""

from __future__ import annotations

import random

import pytest

from drillcore.errors import JobError, TextError
from drillcore.tokens.tokenizer import Around, Tokenizer
from drillcore.tokens.turns import tokens_of_turns, turns_of
from support import chats
from support.chats import CHATML, WRITTEN, conversation
from support.vocabularies import write

MARKED = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{% if m.role == 'assistant' %}{% generation %}"
    "{{ m.content }}<|im_end|>{% endgeneration %}{% else %}{{ m.content }}<|im_end|>{% endif %}\n{% endfor %}"
)
STYLES = {**chats.STYLES, "marked": MARKED}


def open_style(folder, template: str) -> Tokenizer:
    settings = {"chat_template": template, "additional_special_tokens": list(WRITTEN)}
    return Tokenizer(str(write(folder, "bytes", **settings)), "auto")


@pytest.mark.parametrize("style", STYLES)
def test_each_message_stands_where_the_template_wrote_it(tmp_path, style, seed):
    tokenizer = open_style(tmp_path, STYLES[style])
    marker = "<|eot_id|>" if style == "llama3" else "<|im_end|>"
    for number in range(12):
        messages = conversation(random.Random(seed + number), think=style == "reasoning")
        arguments = {} if style == "marked" else {"add_generation_prompt": number % 2 == 0}
        rendered, turns = turns_of(tokenizer, messages, arguments)
        ids, _, tokens = tokens_of_turns(tokenizer, messages, arguments)
        assert [t.role for t in turns] == [m["role"] for m in messages] and len(tokens) == len(turns)
        assert tokenizer.encode_rendered([rendered], Around("chat"))[0][0] == ids
        for i, (message, turn, of) in enumerate(zip(messages, turns, tokens, strict=True)):
            want = message["content"]
            if style == "llama3":
                want = want.strip()
            if style == "reasoning" and message["role"] == "assistant" and i < len(messages) - 1:
                want = want.split("</think>")[-1].lstrip()
            assert rendered[turn.first : turn.stop] == want
            assert rendered[turn.stop :].startswith(marker)
            said = b"".join(_bytes(tokenizer, t) for t in ids[of.first : of.stop]).decode()
            assert said == want and of.begins and of.ends
            assert tokenizer.pieces([ids[of.marker]]) == [marker] and of.marker == of.stop
            assert of.prompt == of.first - 1


def _bytes(tokenizer: Tokenizer, token: int) -> bytes:
    from drillcore.tokens.tokenizer import BYTES

    return bytes(BYTES[c] for c in tokenizer.pieces([token])[0])


BROKEN = {
    "left out": ("{% for m in messages if m.role != 'system' %}{{ m.content }}{% endfor %}", "does not write it"),
    "twice": ("{% for m in messages %}{{ m.content }} {{ m.content }}{% endfor %}", "more than once"),
    "changed": ("{% for m in messages %}[{{ m.content | upper }}]{% endfor %}", "more than once, or changes it"),
    "escaped": ("{% for m in messages %}[{{ m.content | tojson }}]{% endfor %}", "changes it"),
    "counted": ("{% for m in messages %}[{{ m.content | length }}]{% endfor %}", "does not write it"),
    "cut": ("{% for m in messages %}[{{ m.content[:5] }}]{% endfor %}", "does not write it"),
    "replaced": (
        "{% for m in messages %}{% if 'secret' in m.content %}a secret{% else %}{{ m.content }}{% endif %}{% endfor %}",
        "does not write it",
    ),
    "ends": (
        "{% for m in messages %}{{ m.content }}{% if not m.content.endswith('t\"') %}END{% endif %};{% endfor %}",
        "depends on its text",
    ),
    "looks": (
        "{% for m in messages %}{% if m.content.startswith('A') %}HIDDEN {% endif %}{{ m.content }};{% endfor %}",
        "depends on its text",
    ),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_what_cannot_be_proved_is_refused_by_name(tmp_path, kind):
    template, why = BROKEN[kind]
    messages = [{"role": "system", "content": 'A "secret"'}, {"role": "user", "content": "Hello"}]
    tokenizer = open_style(tmp_path, template)
    _, turns = turns_of(tokenizer, messages, {})
    assert turns[0].problem.startswith("message 0 (system): ") and why in turns[0].problem
    _, _, tokens = tokens_of_turns(tokenizer, messages, {})
    assert tokens[0].problem == turns[0].problem and (tokens[0].first, tokens[0].stop) == (0, 0)


def test_marks_that_differ_are_refused(tmp_path):
    template = MARKED.replace("m.role == 'assistant'", "m.role == 'user'")
    messages = [{"role": "user", "content": "Hello"}, {"role": "assistant", "content": "Yes"}]
    _, _, tokens = tokens_of_turns(open_style(tmp_path, template), messages, {})
    assert "message 0 (user): the template's own marks" in tokens[0].problem


@pytest.mark.parametrize("messages", [["a"], [[("role", "user"), ("content", "x")]], [7], [None]])
def test_what_is_no_message_is_refused(tmp_path, messages):
    with pytest.raises(TextError, match="no mapping"):
        turns_of(open_style(tmp_path, CHATML), messages, {})


def test_an_empty_conversation_and_messages_without_text(tmp_path):
    tokenizer = open_style(tmp_path, CHATML)
    with pytest.raises(TextError, match="no message"):
        turns_of(tokenizer, [], {})
    calls = {"role": "assistant", "content": None, "tool_calls": []}
    parts = {"role": "user", "content": [{"type": "text", "text": "a"}]}
    user, empty = {"role": "user", "content": "a"}, {"role": "assistant", "content": ""}
    _, _, tokens = tokens_of_turns(tokenizer, [user, empty, parts, calls, user], {})
    problems = ["", "it has no token", "not a text", "not a text", ""]
    assert all((p in t.problem) if p else not t.problem for p, t in zip(problems, tokens, strict=True))


@pytest.mark.parametrize("last", [True, False])
def test_answers_with_reasoning_as_models_that_think_write_them(tmp_path, last):
    """The last answer keeps its reasoning, in a form of the template's own; earlier ones lose it."""
    template = (
        "{% for m in messages %}{% set c = m.content %}{% set r = '' %}"
        "{% if m.role == 'assistant' and '</think>' in c %}"
        "{% set r = c.split('</think>')[0].rstrip('\\n').split('<think>')[-1].lstrip('\\n') %}"
        "{% set c = c.split('</think>')[-1].lstrip('\\n') %}{% endif %}"
        "<|im_start|>{{ m.role }}\n"
        "{% if m.role == 'assistant' and loop.last %}<think>\n{{ r }}\n</think>\n\n{% endif %}"
        "{{ c }}<|im_end|>\n{% endfor %}"
    )
    messages = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "<think>\nwhy\n</think>\n\nans"}]
    messages += [] if last else [{"role": "user", "content": "more"}]
    rendered, turns = turns_of(open_style(tmp_path, template), messages, {})
    assert not any(t.problem for t in turns)
    assert rendered[turns[1].first : turns[1].stop] == "ans" and ("why" in rendered) == last


def test_the_header_of_the_next_turn_ends_no_turn(tmp_path):
    template = "{% for m in messages %}<|start_header_id|>{{ m.role }}<|end_header_id|>\n{{ m.content }}\n{% endfor %}"
    messages = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    _, _, tokens = tokens_of_turns(open_style(tmp_path, template), messages, {})
    assert [t.marker for t in tokens] == [None, None] and not any(t.problem for t in tokens)


def test_a_tokenizer_without_a_template_is_refused(tmp_path):
    tokenizer = Tokenizer(str(write(tmp_path, "bytes")), "auto")
    with pytest.raises(JobError, match="has no chat template"):
        turns_of(tokenizer, [{"role": "user", "content": "a"}], {})

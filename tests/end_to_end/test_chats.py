"""Conversations: turns of three template styles are where they must be, packed and padded, or refused by name."""

from __future__ import annotations

import json
import random

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from drillcore.backends.demo_model import ensure_demo_model
from drillcore.errors import JobError, TextError
from support.chats import STYLES, chat_model, conversation, rendered
from support.placed import Plain, errors, run_job

pytest_plugins = ["support.run_fixtures"]
TURNS = [
    "last",
    "turns",
    {"turns": {"at": "end_of_turn"}, "name": "ends"},
    {"turns": {"at": "generation_prompt", "role": "assistant"}, "name": "prompts"},
    {"turns": {"at": "mean", "role": "user"}, "name": "users"},
    {"last": 2},
    {"mean": {}},
    {"turns": {"at": "mean"}, "name": "means"},
    {"after": "w", "name": "w"},
]


@pytest.fixture
def made(tmp_path):
    """A model of some architecture and style."""
    return lambda architecture, style: chat_model(tmp_path / f"{architecture}-{style}", architecture, style)


def conversations(seed: int, style: str, count: int) -> list[list[dict[str, str]]]:
    draw = random.Random(seed)
    found = [conversation(draw, think=style == "reasoning") for _ in range(count)]
    # One without an answer, and two that share their beginning.
    return [*found, [{"role": "user", "content": "wx"}], found[0] + [{"role": "tool", "content": "wé"}]]


def write(path, said, **fields) -> None:
    rows = [{"messages": each, "label": "ab"[i % 2], **fields} for i, each in enumerate(said)]
    path.write_text("\n".join(json.dumps(row) for row in rows), encoding="utf-8")


EVERY = [
    (a, layout) for a in ("llama", "gemma3_text", "gpt_neox", "mistral", "qwen3") for layout in ("packed", "padded")
]


@pytest.mark.parametrize(
    ("architecture", "layout", "style"), [(*each, list(STYLES)[i % len(STYLES)]) for i, each in enumerate(EVERY)]
)
def test_turns_are_where_the_template_writes_them(style, architecture, layout, made, tmp_path, seed):
    compare(tmp_path, made(architecture, style), style, layout, conversations(seed, style, 12), seed % 2 == 0)


def test_turns_of_the_demo_model(tmp_path, seed):
    """Its own template, which is ChatML where a system message is given."""
    draw = random.Random(seed)
    said = [[{"role": "system", "content": "Be brief."}, *(m for m in conversation(draw) if m["role"] != "system")]]
    said += [[*said[0][:2], {"role": "assistant", "content": f"w{n} é"}] for n in range(5)]
    compare(
        tmp_path, ensure_demo_model(), "chatml", "packed", said, seed % 2 == 0, Plain(ensure_demo_model(), "float64")
    )


def compare(
    tmp_path,
    folder,
    style: str,
    layout: str,
    said: list[list[dict[str, str]]],
    prompt: bool,
    double: Plain | None = None,
) -> None:
    """double: the same model in float64, which tells how far plain float32 itself is off, at each layer."""
    write(tmp_path / "c.jsonl", said)
    dataset = {"path": "c.jsonl", "messages": "messages", "add_generation_prompt": prompt}
    settings = {"layout": layout, "shard_sentences": 4, "block_sentences": 8}
    tree, plain = run_job(tmp_path, str(folder), dataset, TURNS, **settings), Plain(folder)
    want: dict[str, list[np.ndarray]] = {"turns": [], "ends": [], "prompts": [], "users": [], "means": [], "last-2": []}
    roles, texts, noise = [], [], np.zeros(1)
    for messages in said:
        text, places = rendered(messages, style, prompt)
        texts.append(text)
        ids = plain.tokenizer(text, add_special_tokens=False)["input_ids"]
        states = plain.states(ids)
        if double is not None:
            noise = np.maximum(noise, errors(states, double.states(ids)).max(axis=0))
        for message, (first, stop) in zip(messages, places, strict=True):
            over = plain.over(ids, text, first, stop)
            roles.append(message["role"])
            want["turns"].append(states[over[-1]])
            want["ends"].append(states[over[-1] + 1])
            if message["role"] == "assistant":
                want["prompts"].append(states[over[0] - 1])
            want["means"].append(states[over].astype(np.float64).mean(0))
            if message["role"] == "user":
                want["users"].append(states[over].astype(np.float64).mean(0))
        want["last-2"] += [*states[-2:]]
    last = tree["d"].to_dataset()
    assert last.rendered.values.tolist() == texts
    for name, states in want.items():
        got = tree[f"d~{name}"].to_dataset().hidden_states.values
        got = got.reshape(-1, *got.shape[-2:])
        assert (errors(got, np.stack(states)) <= np.maximum(1e-5, 4 * noise)).all(), name
    turns = tree["d~turns"].to_dataset()
    assert turns.role.values.tolist() == roles and bool(turns.exact.all())
    sentence = turns.sentence.values.tolist()
    for row, (n, stop) in enumerate(zip(sentence, turns.char_end.values.tolist(), strict=True)):
        assert (
            said[n][int(turns.message[row])]["content"].strip().endswith(texts[n][turns.char_start[row].item() : stop])
        )
    assert turns.row_size.values.tolist() == [len(messages) for messages in said]


@pytest.mark.parametrize("style", STYLES)
def test_a_text_that_stands_in_the_marker_after_it(style, made, tmp_path):
    """A single letter, as answers of multiple choice are."""
    said = [
        [{"role": "user", "content": "a or d?"}, {"role": "assistant", "content": t}] for t in ("d", "o", "end", "im")
    ]
    write(tmp_path / "c.jsonl", said)
    positions = ["last", {"turns": {"at": "end_of_turn"}, "name": "ends"}]
    tree = run_job(tmp_path, str(made("llama", style)), {"path": "c.jsonl", "messages": "messages"}, positions)
    ends = tree["d~ends"].to_dataset()
    texts = ends.rendered.values[ends.sentence.values].tolist()
    marker = "<|eot_id|>" if style == "llama3" else "<|im_end|>"
    pairs = zip(texts, ends.char_start.values, ends.char_end.values, strict=True)
    assert {text[a:b] for text, a, b in pairs} == {marker}


def test_means_of_turns_are_whole_when_they_are_computed_again(made, new_work):
    work = new_work(backend="transformers", count=4)
    work.job["models"] = [{"id": str(made("llama", "chatml")), "as": "m"}]
    work.job["datasets"] = [{"name": "d", "path": "d.jsonl", "messages": "messages", "positions": TURNS}]
    work.texts("d", [{"messages": said} for said in conversations(3, "chatml", 12)])
    work.save()
    work.finish()
    command = work.forge.run("verify", "runs/job.zarr", "--recompute", "6", cwd=work.folder)
    assert command.status == 0, command.out


def test_files_of_every_kind_and_a_system_message(made, tmp_path):
    folder = made("llama", "chatml")
    said = [[{"role": "user", "content": "wé"}], [{"role": "system", "content": "x"}, {"role": "user", "content": "y"}]]
    write(tmp_path / "c.jsonl", said)
    pq.write_table(pa.table({"messages": said, "label": ["a", "b"]}), tmp_path / "c.parquet")
    table = "messages,label\n" + "".join(
        '"' + json.dumps(each).replace('"', '""') + f'",{i}\n' for i, each in enumerate(said)
    )
    (tmp_path / "c.csv").write_text(table, encoding="utf-8")
    found = []
    for name in ("c.jsonl", "c.parquet", "c.csv"):
        place = tmp_path / name.replace(".", "-")
        place.mkdir()
        (tmp_path / name).rename(place / name)
        tree = run_job(place, str(folder), {"path": name, "messages": "messages", "system": "Be brief."}, ["last"])
        found.append(tree["d"].to_dataset().load())
    want = ["Be brief.", "x"]
    for each in found:
        assert each.rendered.values[0].startswith(f"<|im_start|>system\n{want[0]}<|im_end|>\n<|im_start|>user\nwé")
        assert each.rendered.values[1].startswith(f"<|im_start|>system\n{want[1]}<|im_end|>\n")
        np.testing.assert_array_equal(each.hidden_states, found[0].hidden_states)


def test_tools_of_the_rows_reach_the_template(made, tmp_path):
    folder = made("llama", "chatml")
    path = folder / "tokenizer_config.json"
    settings = json.loads(path.read_text(encoding="utf-8"))
    settings["chat_template"] = "{% if tools %}{{ tools | length }} tools{% endif %}" + settings["chat_template"]
    path.write_text(json.dumps(settings), encoding="utf-8")
    tools = [{"type": "function", "function": {"name": "f"}}]
    write(tmp_path / "c.jsonl", [[{"role": "user", "content": "wé"}]], tools=tools)
    tree = run_job(tmp_path, str(folder), {"path": "c.jsonl", "messages": "messages"}, ["last", "turns"])
    assert tree["d"].to_dataset().rendered.values[0].startswith("1 tools<|im_start|>")


USER = [{"role": "user", "content": "wé"}]
WRONG = [
    ([], "c.jsonl:2: field `messages` holds no message"),
    (None, "c.jsonl:2: field `messages` is no list of messages"),
    ("hello", "c.jsonl:2: field `messages` holds a text that is not JSON"),
    ([{"role": "user"}], "c.jsonl:2: field `messages` message 0 (user) has no content"),
    ([{"content": "x"}], "c.jsonl:2: field `messages` message 0 has no role"),
    ([{"role": "user", "content": 7}], "c.jsonl:2: field `messages` the content of message 0 (user) is no text"),
    (["hello"], "c.jsonl:2: field `messages` message 0 is no mapping"),
    ([*USER, {"role": "assistant", "content": ""}], "c.jsonl:2: sentence 1 message 1 (assistant): "),
]


@pytest.mark.parametrize(("value", "message"), WRONG)
def test_what_is_no_conversation_is_refused_with_its_line(value, message, made, tmp_path):
    write(tmp_path / "c.jsonl", [USER, value])
    with pytest.raises(TextError) as caught:
        run_job(tmp_path, str(made("llama", "chatml")), {"path": "c.jsonl", "messages": "messages"}, ["last", "turns"])
    assert message in str(caught.value), caught.value
    assert not (tmp_path / "runs").exists()


def test_what_cannot_be_proved_is_refused_and_last_still_works(made, tmp_path):
    folder = made("llama", "chatml")
    path = folder / "tokenizer_config.json"
    settings = json.loads(path.read_text(encoding="utf-8"))
    settings["chat_template"] = "{% for m in messages %}[{{ m.content | upper }}]{% endfor %}"
    path.write_text(json.dumps(settings), encoding="utf-8")
    write(tmp_path / "c.jsonl", [USER])
    dataset = {"path": "c.jsonl", "messages": "messages"}
    with pytest.raises(TextError, match=r"c.jsonl:1: sentence 0 message 0 \(user\): the chat template"):
        run_job(tmp_path, str(folder), dataset, ["last", "turns"])
    assert run_job(tmp_path, str(folder), dataset, ["last"])["d"].to_dataset().rendered.values.tolist() == ["[WÉ]"]


@pytest.mark.parametrize(
    ("dataset", "position", "message"),
    [
        ({"messages": "messages", "template": "chat"}, "last", "has that of the tokenizer"),
        ({"system": "Be brief."}, "last", "belong to `messages`"),
        ({"messages": "messages"}, {"span": ["a", "b"], "name": "x"}, "names characters of a sentence"),
        ({"text": "label"}, "turns", "the dataset names no field of `messages`"),
    ],
)
def test_what_does_not_go_with_conversations(dataset, position, message, made, tmp_path):
    write(tmp_path / "c.jsonl", [USER])
    with pytest.raises((JobError, ValueError), match=message):
        run_job(tmp_path, str(made("llama", "chatml")), {"path": "c.jsonl", **dataset}, ["last", position])


def test_too_long_conversations_are_not_cut(made, tmp_path):
    write(tmp_path / "c.jsonl", [USER])
    with pytest.raises(ValueError, match="may cut off what the template writes after a sentence"):
        dataset = {"path": "c.jsonl", "messages": "messages"}
        run_job(tmp_path, str(made("llama", "chatml")), dataset, ["last"], too_long="truncate")

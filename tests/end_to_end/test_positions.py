"""States at places other than the last token: those of `transformers` for the text alone, whatever the layout."""

from __future__ import annotations

import json

import numpy as np
import pytest

from drillcore.backends.demo_model import ensure_demo_model
from support.placed import Plain, errors, rows_of, run_job

ARCHITECTURES = ("llama", "gemma3_text", "gpt_neox", "mistral", "qwen3")
HEADS = {"llama": {"head_dim": 16}, "qwen3": {"head_dim": 16}, "mistral": {"head_dim": 16}}
POSITIONS = [
    "last",
    "mean",
    {"mean": {"skip_first": 2, "special_tokens": True}, "name": "rest"},
    {"span": ["from", "to"], "name": "who"},
    {"span": ["from", "to"], "name": "whole", "pool": "mean"},
    {"text": "who", "name": "first"},
    {"text": "who", "occurrence": "last", "name": "latest", "pool": "mean", "layers": [0, 2]},
    {"after": "went to", "name": "went"},
    {"last": 4},
    {"all": {}, "layers": [1, 3]},
    {"span": ["from", "to"], "name": "each", "pool": "all"},
]


def wanted(plain: Plain, row: dict, written: str, shift: int, ids: list[int]) -> dict[str, np.ndarray]:
    """The states of every group, by name, worked out from the sentence alone."""
    states = plain.states(ids)
    exact = states.astype(np.float64)
    special = {i for i, token in enumerate(ids) if token in plain.tokenizer.all_special_ids}

    def over(start: int, stop: int) -> list[int]:
        return plain.over(ids, written, start, stop)

    text, who = row["text"], row["who"]
    span = over(shift + row["from"], shift + row["to"])
    first = over(shift + text.index(who), shift + text.index(who) + len(who))
    latest = over(shift + text.rindex(who), shift + text.rindex(who) + len(who))
    went = written.rindex("went to")
    return {
        "d": states[-1],
        "d~mean": exact[[i for i in range(len(ids)) if i not in special]].mean(0),
        "d~rest": exact[2:].mean(0),
        "d~who": states[span[-1]],
        "d~whole": exact[span].mean(0),
        "d~first": states[first[-1]],
        "d~latest": exact[latest].mean(0)[[0, 2]],
        "d~went": states[over(went, went + len("went to"))[-1]],
        "d~last-4": states[-4:],
        "d~all": states[:, [1, 3]],
        "d~each": states[span],
    }


def compare(tree, plain: Plain, rows: list[dict], template: str, double: Plain | None = None) -> None:
    """double: the same model in float64, which tells how far float32 itself is off: rare tokens amplify rounding."""
    before, after = template.split("{text}")
    want: dict[str, list[np.ndarray]] = {}
    exact: dict[str, list[np.ndarray]] = {}
    for row in rows:
        written = before + row["text"] + after
        ids = plain.tokenizer(written)["input_ids"]
        for name, states in wanted(plain, row, written, len(before), ids).items():
            want.setdefault(name, []).append(states)
        for name, states in wanted(double, row, written, len(before), ids).items() if double else ():
            exact.setdefault(name, []).append(states)
    assert sorted(tree.children) == sorted(want)
    for name, states in want.items():
        got, join = tree[name].to_dataset(), np.stack
        if name in ("d~last-4", "d~all", "d~each"):
            join = np.concatenate
            assert got.row_size.values.tolist() == [len(each) for each in states]
        if name in ("d~all", "d~each"):
            assert got.sentence.values.tolist() == np.repeat(np.arange(len(rows)), got.row_size.values).tolist()
        # As in the self-check: four times what plain float32 itself is off, at each layer.
        noise = errors(join(states), join(exact[name])).max(axis=0) if double else 0.0
        found = got.hidden_states.values
        found = found.reshape(-1, *found.shape[-2:]) if name == "d~last-4" else found
        assert (errors(found, join(states)) <= np.maximum(1e-5, 4 * noise)).all(), name
    every = tree["d~all"].to_dataset()
    ids = [i for row in rows for i in plain.tokenizer(before + row["text"] + after)["input_ids"]]
    assert every.token_id.values.tolist() == ids
    who = tree["d~who"].to_dataset()
    for i, row in enumerate(rows):
        start, stop = int(who.char_start[i]), int(who.char_end[i])
        assert start < row["to"] and stop > row["from"], "the token does not overlap the span"
        assert bool(who.exact[i]) == (not row["text"][row["to"] : stop].strip())


@pytest.mark.parametrize("layout", ["packed", "padded"])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_they_are_those_of_the_sentence_alone(architecture, layout, models, tmp_path, seed):
    folder, rows = models(architecture, **HEADS.get(architecture, {})), rows_of(seed, 24)
    template = ["{text}", "Read: {text} Is it so? Answer:"][seed % 2]
    (tmp_path / "d.jsonl").write_text("\n".join(json.dumps(row) for row in rows), encoding="utf-8")
    dataset = {"path": "d.jsonl", "template": template}
    tree = run_job(tmp_path, str(folder), dataset, POSITIONS, layout=layout, shard_sentences=8, block_sentences=16)
    compare(tree, Plain(folder), rows, template)


def test_they_are_on_the_demo_model(tmp_path, seed):
    rows = rows_of(seed, 16)
    (tmp_path / "d.jsonl").write_text("\n".join(json.dumps(row) for row in rows), encoding="utf-8")
    tree = run_job(tmp_path, "demo/smollm2-135m-instruct", {"path": "d.jsonl"}, POSITIONS)
    model = ensure_demo_model()
    compare(tree, Plain(model), rows, "{text}", Plain(model, "float64"))

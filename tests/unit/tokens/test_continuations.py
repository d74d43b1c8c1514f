"""Expected tokens and candidates are encoded together with their sentence, whatever happens at the border."""

from __future__ import annotations

import json
import random
from pathlib import Path

import numpy as np
import pytest

from drillcore.job.inputs import Dataset
from drillcore.system.progress import with_lines
from drillcore.texts.problems import Problems
from drillcore.texts.rows import RowTable, ingest
from drillcore.tokens.continuations import Continuations, Fault, continue_rows
from drillcore.tokens.tokenizer import Around, Tokenizer, tokenize
from support import vocabularies
from support.damage import damages

PLAIN = Around()


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "drillcore"


def rows_of(folder: Path, rows: list[dict[str, str]], **settings: str) -> RowTable:
    path = folder / "d.jsonl"
    path.write_text("\n".join(json.dumps(row) for row in rows), encoding="utf-8")
    problems = Problems()
    table = ingest(path, Dataset(name="d", path="unused", **settings), folder / "cache" / "rows", problems)
    problems.raise_if_any()
    assert table is not None
    return table


def expected(
    folder: Path, kind: str, pairs: list[tuple[str, str]], around: Around = PLAIN, special: str = "auto"
) -> tuple[Continuations, Tokenizer]:
    """What follows each sentence of (sentence, expected text)."""
    rows = rows_of(folder, [{"text": a, "next": b} for a, b in pairs], expected_next="next")
    tokenizer = Tokenizer(str(vocabularies.write(folder / kind, kind)), special)
    return continue_rows(rows, tokenizer, around, tokenize(rows, tokenizer, around), None), tokenizer


def test_a_space_that_the_tokenizer_prepends_to_a_text_is_not_counted_twice(tmp_path: Path) -> None:
    found, tokenizer = expected(tmp_path, "prepended", [("She moved to", " Toronto"), ("the old port of", " Halifax")])
    assert [tokenizer.pieces(found.of(n)[0]) for n in range(2)] == [["▁Toronto"], ["▁Halifax"]]
    assert tokenizer.pieces(tokenizer.encode([" Toronto"])[0]) == ["<s>", "▁", "▁Toronto"]


@pytest.mark.parametrize("kind", ["bytes", "prefixed", "metaspace", "prepended", "wordpiece", "unigram", "ctrl"])
def test_tokens_are_those_of_sentence_and_continuation_encoded_together(kind: str, tmp_path: Path, seed: int) -> None:
    from transformers import AutoTokenizer

    draw = random.Random(seed)
    words = [word for text in vocabularies.CORPUS for word in text.split()]
    pairs = []
    for _ in range(150):
        text = " ".join(draw.choices(words, k=draw.randint(1, 6)))
        text = text[: draw.randint(1, len(text))] + draw.choice(["", "", " "])
        after = draw.choice(["", " "]) + draw.choice(words)[: draw.randint(1, 9)]
        pairs.append((text if text.strip() else "a", after))
    found, _ = expected(tmp_path, kind, pairs)
    plain = AutoTokenizer.from_pretrained(tmp_path / kind)
    checked = 0
    for n, (text, after) in enumerate(pairs):
        alone, together = plain(text)["input_ids"], plain(text + after)["input_ids"]
        fits = together[: len(alone)] == alone
        if plain.unk_token_id in together and plain.unk_token_id is not None:
            assert found.of(n)[0] in (None, together[len(alone) :])
        elif not fits:
            assert found.faults_NC[n, 0] == Fault.CROSSES, (text, after)
        elif len(together) == len(alone):
            assert found.faults_NC[n, 0] == Fault.NOTHING, (text, after)
        else:
            assert found.of(n)[0] == together[len(alone) :], (text, after)
            checked += 1
    assert checked > 20


CASES = [
    ("bytes", "She moved to", "ronto", Fault.CROSSES),
    ("bytes", "She moved to ", "Toronto", Fault.CROSSES),
    ("bytes", "She moved to ", " Toronto", 0),
    ("bytes", "She moved to", " ", 0),
    ("bytes", "She moved to", " 日", 0),
    ("metaspace", "She moved to", " 日", Fault.UNKNOWN),
    ("metaspace", "She moved to", " To日ronto", Fault.UNKNOWN),
    ("unigram", "She moved to 日", "本", Fault.CROSSES),
    ("wordpiece", "She moved to 日本", " Toronto", 0),
    ("wordpiece", "She moved to ж", "é Toronto", Fault.CROSSES),
    ("wordpiece", "She moved to", " ", Fault.NOTHING),
    ("wordpiece", "She moved to", " <unk>", 0),
    ("appends", "She moved to", " Toronto", Fault.APPENDED),
    ("byt5", "She moved to", " Toronto", Fault.APPENDED),
    ("ctrl", "She moved to", "ronto", Fault.CROSSES),
    ("ctrl", "She moved to", " 日", Fault.UNKNOWN),
]


@pytest.mark.parametrize(("kind", "text", "after", "fault"), CASES)
def test_what_cannot_follow_has_a_reason(kind: str, text: str, after: str, fault: int, tmp_path: Path) -> None:
    found, tokenizer = expected(tmp_path, kind, [(text, after)])
    assert found.faults_NC.tolist() == [[fault]], tokenizer.pieces(tokenizer.encode([text + after])[0])
    assert (found.first_tokens() >= 0).tolist() == [fault == 0]
    assert found.left_out() == ({Fault(fault).name.lower(): 1} if fault else {})


def test_without_special_tokens_something_follows_where_the_tokenizer_would_end_the_sentence(tmp_path: Path) -> None:
    found, tokenizer = expected(tmp_path, "appends", [("She moved to", " Toronto")], special="none")
    assert tokenizer.pieces(found.of(0)[0]) == ["ĠToronto"]


def test_a_vocabulary_that_drops_text_without_an_unknown_token_is_seen(tmp_path: Path) -> None:
    from tokenizers import Tokenizer as Raw

    folder = vocabularies.write(tmp_path / "metaspace", "metaspace")
    raw = json.loads((folder / "tokenizer.json").read_text())
    raw["model"]["unk_token"] = None
    Raw.from_str(json.dumps(raw)).save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "PreTrainedTokenizerFast"}))
    rows = rows_of(tmp_path, [{"text": "She", "next": " 日To"}, {"text": "She", "next": " To"}], expected_next="next")
    tokenizer = Tokenizer(str(folder), "auto")
    found = continue_rows(rows, tokenizer, Around(), tokenize(rows, tokenizer), None)
    assert found.faults_NC.ravel().tolist() == [Fault.UNKNOWN, 0]


def test_a_template_stands_between_sentence_and_continuation(tmp_path: Path) -> None:
    around = Around("The largest city of {text} is")
    found, tokenizer = expected(tmp_path, "bytes", [("Ontario", " Toronto"), ("Ontario", "land")], around)
    assert tokenizer.pieces(found.of(0)[0]) == ["ĠToronto"]
    (whole,) = tokenizer.encode(["The largest city of Ontario island"])
    assert tokenizer.pieces(found.of(1)[0]) == ["l", "an", "d"] and whole[-3:] == found.of(1)[0]


def test_candidates_lie_side_by_side_and_may_share_a_first_token(tmp_path: Path) -> None:
    rows = rows_of(tmp_path, [{"text": t} for t in ("She moved to", "the old port of", "near ")])
    tokenizer = Tokenizer(str(vocabularies.write(tmp_path / "bytes", "bytes")), "auto")
    texts = [" Toronto", " Toronto's", "Ottawa"]
    found = continue_rows(rows, tokenizer, Around(), tokenize(rows, tokenizer), texts)
    assert found.per_sentence == 3 and len(found.ids) == 9
    first, second, third = found.of(1)
    assert first == second[: len(first)] and len(second) > len(first) and third is not None
    assert found.slice(1, 2).of(0) == found.of(1)
    assert found.of(2)[2] is None  # "near " and "Ottawa" merge
    lost = found.without(np.array([False, True, False]))
    assert lost.of(1) == [None] * 3 and lost.of(0) == found.of(0)
    assert lost.left_out() == {"crosses": 1, "truncated": 3}


def test_a_kept_answer_is_checked(tmp_path: Path, cache: Path, seed: int) -> None:
    pairs = [(f"She moved to {i}", " Toronto") for i in range(40)]
    other, _ = expected(tmp_path, "bytes", [(a, " Halifax") for a, _ in pairs])
    (of_other,) = (cache / "continuations").iterdir()
    found, _ = expected(tmp_path, "bytes", pairs)
    want = [found.of(n) for n in range(40)]
    assert want != [other.of(n) for n in range(40)]
    (path,) = {*(cache / "continuations").iterdir()} - {of_other}
    whole = path.read_bytes()
    for name, damage in damages(whole, of_other.read_bytes(), random.Random(seed)):
        damage(path)
        (again, _), lines = with_lines(lambda given: expected(tmp_path, "bytes", given), pairs)
        assert [again.of(n) for n in range(40)] == want and path.read_bytes() == whole, name
        assert len(lines) == 1 and f"{path} (continuations)" in lines[0], name

"""The digest of a tokenizer holds whatever decides an id, and cached ids are compared with the tokenizer."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from drillcore.errors import JobError, ModelError
from drillcore.job.inputs import Dataset
from drillcore.system.cached import Entry
from drillcore.system.files import digest
from drillcore.system.progress import with_lines
from drillcore.texts.problems import Problems
from drillcore.texts.rows import RowTable, ingest
from drillcore.tokens import cache as token_cache
from drillcore.tokens import identity
from drillcore.tokens.tokenizer import Around, Tokenizer, tokenize
from support import vocabularies
from support.damage import damages

CHAT = Around("chat")
TEXTS = ["She moved to </s> Toronto", "the old port", "A river runs near Halifax", "naïve <unk> Zürich"]


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "drillcore"


@pytest.fixture
def rows(tmp_path: Path) -> RowTable:
    path = tmp_path / "d.jsonl"
    path.write_text("\n".join(json.dumps({"text": text}) for text in TEXTS), encoding="utf-8")
    problems = Problems()
    table = ingest(path, Dataset(name="d", path="unused"), tmp_path / "rows", problems)
    assert table is not None
    return table


def configured(folder: Path, **changes: Any) -> Path:
    """The folder with other entries of tokenizer_config.json."""
    path = folder / "tokenizer_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))
    return folder


def ids_of(rows: RowTable, tokenizer: Tokenizer, around: Around | None = None) -> list[list[int]]:
    return [ids.tolist() for ids in tokenize(rows, tokenizer, around or Around())]


def test_two_tokenizers_that_split_special_tokens_or_do_not_share_nothing(
    tmp_path: Path, rows: RowTable, cache: Path
) -> None:
    found, keys = {}, set()
    for split in (False, True):
        folder = vocabularies.write(tmp_path / str(split), "bytes", split_special_tokens=split)
        tokenizer = Tokenizer(str(folder), "auto")
        found[split] = (tokenizer.digest, ids_of(rows, tokenizer))
        keys.add(tokenizer.key(Around()))
        assert found[split][1] == tokenizer.encode(TEXTS)
    assert len(keys) == 2 and len(list((cache / "tokens").iterdir())) == 2
    assert found[False][0] != found[True][0] and found[False][1][0] != found[True][1][0]


def other_merges(folder: Path) -> None:
    vocabularies.write_ctrl(folder, [("h", "e</w>"), ("o", "n")])


CHANGES: list[tuple[str, Callable[[Path], Any]]] = [
    ("bytes", lambda f: configured(f, split_special_tokens=True)),
    ("bytes", lambda f: configured(f, add_bos_token=True)),
    ("bytes", lambda f: configured(f, add_eos_token=True)),
    ("bytes", lambda f: configured(f, add_prefix_space=True)),
    ("bytes", lambda f: configured(f, unk_token="</s>")),
    ("bytes", lambda f: configured(f, legacy=False)),
    ("bytes", lambda f: (f / "spiece.model").write_bytes(b"x")),
    ("bytes", lambda f: (f / "code.py").write_text("x = 1")),
    ("ctrl", other_merges),
    ("byt5", lambda f: configured(f, extra_ids=3)),
]


@pytest.mark.parametrize(("kind", "change"), CHANGES, ids=range(len(CHANGES)))
def test_every_file_and_setting_counts(kind: str, change: Callable[[Path], Any], tmp_path: Path) -> None:
    folder = vocabularies.write(tmp_path / "a", kind)
    before = Tokenizer(str(folder), "auto")
    shutil.copytree(folder, tmp_path / "b")
    assert Tokenizer(str(tmp_path / "b"), "auto").digest == before.digest, "copies are the same tokenizer"
    change(tmp_path / "b")
    assert Tokenizer(str(tmp_path / "b"), "auto").digest != before.digest


def test_merges_of_a_slow_tokenizer_decide_the_cached_ids(tmp_path: Path, rows: RowTable) -> None:
    first = Tokenizer(str(vocabularies.write(tmp_path / "a", "ctrl")), "auto")
    other_merges(vocabularies.write(tmp_path / "b", "ctrl"))
    second = Tokenizer(str(tmp_path / "b"), "auto")
    assert ids_of(rows, first) == first.encode(TEXTS)
    assert ids_of(rows, second) == second.encode(TEXTS) != first.encode(TEXTS)


def test_weights_and_configuration_of_the_model_do_not_count(tmp_path: Path) -> None:
    folder = vocabularies.write(tmp_path / "a", "bytes")
    before = Tokenizer(str(folder), "auto").digest
    for name in ("model.safetensors", "generation_config.json", "model.safetensors.index.json", "README.md"):
        (folder / name).write_text("{}")
    assert Tokenizer(str(folder), "auto").digest == before


def test_other_versions_of_the_libraries_are_another_digest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = str(vocabularies.write(tmp_path / "a", "bytes"))
    before = Tokenizer(folder, "auto").digest
    monkeypatch.setattr(identity, "installed_versions", lambda names: {"tokenizers": "99"})
    assert Tokenizer(folder, "auto").digest != before


def test_stores_hold_the_digest_that_they_always_held(tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    folder = str(vocabularies.write(tmp_path / "a", "bytes"))
    body = AutoTokenizer.from_pretrained(folder).backend_tokenizer.to_str()
    policy = Tokenizer(folder, "auto").policy("a {text}")
    assert policy.tokenizer == digest([body, ["None", "TokenizersBackend"]])
    assert (policy.special_tokens, policy.template) == ("auto", "a {text}")


def on(day: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let chat templates take this for today."""
    from transformers.utils import chat_template_utils

    class Fixed(datetime):
        @classmethod
        def now(cls, tz: Any = None) -> datetime:
            return datetime.fromisoformat(day)

    monkeypatch.setattr(chat_template_utils, "datetime", Fixed)


DATED = (
    "{{ '<s>' }}{% if date_string is defined %}{{ date_string }}{% else %}{{ strftime_now('%d %b %Y') }}{% endif %}"
    "{% if thinking is defined and thinking %} think{% endif %} {{ messages[0]['content'] }}</s>"
)


def test_a_chat_template_counts_as_what_it_writes_today(
    tmp_path: Path, rows: RowTable, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokenizer = Tokenizer(str(vocabularies.write(tmp_path / "a", "bytes", chat_template=DATED)), "auto")
    found, keys = {}, set()
    for day in ("2026-01-05", "2026-01-06"):
        on(day, monkeypatch)
        found[day] = ids_of(rows, tokenizer, CHAT)
        assert found[day] == tokenizer.encode(TEXTS, CHAT)
        keys.add(tokenizer.key(CHAT))
        assert tokenizer.render("a", CHAT) == f"<s>0{day[-1]} Jan 2026 a</s>"
    assert len(keys) == 2 and found["2026-01-05"] != found["2026-01-06"]
    pinned = Around("chat", (("date_string", "today"),))
    assert tokenizer.render("a", pinned) == "<s>today a</s>"
    assert len({tokenizer.key(a) for a in (CHAT, pinned, Around("chat", (("thinking", True),)))}) == 3
    # Other templates do not change with the day.
    plain = Tokenizer(str(tmp_path / "a"), "auto")
    on("2026-01-07", monkeypatch)
    assert plain.key(Around()) == tokenizer.key(Around())


def test_an_argument_that_the_chat_template_does_not_read_is_refused(tmp_path: Path) -> None:
    tokenizer = Tokenizer(str(vocabularies.write(tmp_path / "a", "bytes", chat_template=DATED)), "auto")
    for name in ("enable_thinking", "thinkin", "messages"):
        with pytest.raises(JobError, match=f"chat: {name}: the chat template of this tokenizer reads no such"):
            tokenizer.encode(["a"], Around("chat", ((name, False),)))


def test_cached_ids_are_compared_with_the_tokenizer(tmp_path: Path, rows: RowTable, cache: Path) -> None:
    tokenizer = Tokenizer(str(vocabularies.write(tmp_path / "a", "bytes")), "auto")
    want = ids_of(rows, tokenizer)
    (path,) = (cache / "tokens").iterdir()
    # As whole as ever, but made by another tokenizer.
    entry = Entry(path.parent, path.stem, "token ids")
    with entry.writing() as draft:
        token_cache._write(draft, [[i + 1 for i in ids] for ids in want])
    found, lines = with_lines(lambda r: ids_of(r, tokenizer), rows)
    assert found == want and lines == [
        f"cache: {path} (token ids) differs from what the tokenizer gives now; it is made again"
    ]
    assert with_lines(lambda r: ids_of(r, tokenizer), rows) == (want, [])


def test_damaged_ids_are_written_again(tmp_path: Path, rows: RowTable, cache: Path, seed: int) -> None:
    tokenizer = Tokenizer(str(vocabularies.write(tmp_path / "a", "bytes")), "auto")
    want, with_template = ids_of(rows, tokenizer), ids_of(rows, tokenizer, Around("so: {text}"))
    assert want != with_template
    path = cache / "tokens" / f"{digest([rows.digest, tokenizer.key(Around())])}.entry"
    (other,) = set((cache / "tokens").iterdir()) - {path}
    whole = path.read_bytes()
    for name, damage in damages(whole, other.read_bytes(), random.Random(seed)):
        damage(path)
        found, lines = with_lines(lambda r: ids_of(r, tokenizer), rows)
        assert found == want and path.read_bytes() == whole, name
        assert len(lines) == 1 and f"{path} (token ids)" in lines[0], name


@pytest.mark.parametrize("rows_of_ids", [[], [[]], [[1]], [[1, 2, 3], [], [4, 2**31 - 1]]])
def test_ids_come_back_as_they_were_written(rows_of_ids: list[list[int]], tmp_path: Path) -> None:
    entry = Entry(tmp_path, "0" * 64, "token ids")
    with entry.writing() as draft:
        token_cache._write(draft, rows_of_ids)
    found = entry.read_back(lambda opened: token_cache._sequences(opened, len(rows_of_ids)))
    assert [ids.tolist() for ids in found] == rows_of_ids
    assert entry.read(lambda opened: token_cache._sequences(opened, len(rows_of_ids) + 1)) is None


def test_a_tokenizer_that_draws_at_random_is_refused(tmp_path: Path, rows: RowTable, cache: Path) -> None:
    folder = vocabularies.write(tmp_path / "a", "bytes")
    raw = json.loads((folder / "tokenizer.json").read_text())
    raw["model"]["dropout"] = 0.5
    (folder / "tokenizer.json").write_text(json.dumps(raw))
    with pytest.raises(ModelError, match="other tokens when the same sentence is encoded again"):
        ids_of(rows, Tokenizer(str(folder), "auto"))
    assert not list((cache / "tokens").iterdir())

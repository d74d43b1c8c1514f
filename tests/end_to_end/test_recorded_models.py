"""`drillcore verify --models`: the files of a store's models, read again, against what the store records of them."""

from __future__ import annotations

import json
import os
import shutil

import pytest

from drillcore.cli.verify import verify_lines
from drillcore.errors import DamageError, StoreError
from drillcore.runtime import recorded_models
from drillcore.system import cached
from drillcore.system.cached import Entry
from drillcore.system.files import digest
from support.audited import Audited


@pytest.fixture
def work(tmp_path, models, seed, monkeypatch):
    """A finished job of two datasets, one with a template, whose model's digests are remembered."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(cached, "SETTLED_SECONDS", -3600.0)
    made = Audited(tmp_path, shutil.copytree(models(), tmp_path / "model"), seed)
    made.texts("d", 40)
    made.texts("e", 20)
    made.datasets["e"] = {"path": "e.jsonl", "template": "Say: {text} !"}
    made.run()
    return made


def verified(work: Audited, **asked) -> list[str]:
    return list(verify_lines(str(work.store), models=True, **asked))


def findings(work: Audited, **asked) -> tuple[list[str], DamageError]:
    """The lines of a verification that finds something about models, and the error at its end."""
    lines: list[str] = []
    with pytest.raises(DamageError) as caught:
        lines.extend(verify_lines(str(work.store), models=True, **asked))
    return [line for line in lines if ": model: " in line], caught.value


def test_models_as_they_were(work):
    lines = verified(work)
    assert "m: configuration, weights and tokenizer are those that the store records" in lines
    assert lines[-1] == f"store {work.store}: whole"
    assert not any("configuration, weights" in line for line in verify_lines(str(work.store)))


def change(path, place):
    """Flip a bit of a file; size, both times that a program can set, and the digest that is remembered stay."""
    raw, old = bytearray(path.read_bytes()), path.stat()
    sha256 = cached.remembered_digest(path)
    raw[place] ^= 1
    path.write_bytes(raw)
    os.utime(path, ns=(old.st_atime_ns, old.st_mtime_ns))
    # As where a disk changes bytes: the system knows nothing of it.
    Entry(cached.cache_dir() / "digests", digest(cached._state(path)), "").write(sha256)


def test_weights_that_changed_unseen_by_the_system(work):
    path = work.model / "model.safetensors"
    change(path, -1)
    assert any("up to date" in line for line in work.run()), "a run believes the remembered digest"
    for _ in range(2):
        (line,), error = findings(work)
        assert line == (
            "m: model: its weights are not those that the store records: model.safetensors has other bytes; put back "
            "what the states were computed with, or compute them with this: `drillcore run JOB --overwrite`"
        )
        assert error.exit_status == 1 and "1 findings" in str(error) and error.hint.startswith("First do what is said")
    with pytest.raises(StoreError, match="the weights of the model changed"):
        work.run()
    change(path, -1)
    assert verified(work)[-1].endswith("whole")
    assert any("up to date" in line for line in work.run())


def configured(path, **changes):
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}), encoding="utf-8")


def test_every_file_that_decides_states_counts(work):
    tokenizer = json.loads((work.model / "tokenizer.json").read_text())
    vocabulary = tokenizer["model"]["vocab"]
    first, second = list(vocabulary)[-2:]
    vocabulary[first], vocabulary[second] = vocabulary[second], vocabulary[first]
    ways = [
        ("config.json", lambda path: configured(path, rms_norm_eps=0.5), "its configuration is not the one"),
        ("tokenizer.json", lambda path: path.write_text(json.dumps(tokenizer)), "its tokenizer "),
        ("tokenizer.json", lambda path: path.write_text("{"), "its tokenizer cannot be used"),
        ("model.safetensors", lambda path: path.rename(path.with_name("x")), "cannot be read, or is no longer there"),
        ("config.json", lambda path: path.unlink(), "cannot be read, or is no longer there"),
    ]
    for name, do, said in ways:
        path = work.model / name
        raw = path.read_bytes()
        do(path)
        lines, _ = findings(work)
        assert len(lines) == 1 and said in lines[0] and "; put " in lines[0], (name, lines)
        path.write_bytes(raw)
        assert verified(work)[-1].endswith("whole"), name
    shutil.copy(work.model / "model.safetensors", work.model / "more.safetensors")
    assert "more.safetensors is new" in findings(work)[0][0]


def test_a_tokenizer_that_splits_in_another_way_shows_in_the_tokens(work):
    path = work.model / "tokenizer.json"
    described = json.loads(path.read_text())
    described["normalizer"] = {"type": "Replace", "pattern": {"String": " "}, "content": "  "}
    path.write_text(json.dumps(described), encoding="utf-8")
    lines, _ = findings(work)
    assert [line.split(" for ")[0] for line in lines] == ["m: model: its tokenizer gives other tokens"] * 2


def test_a_model_that_is_gone_is_a_finding_of_its_own(work):
    shutil.rmtree(work.model)
    (line,), error = findings(work)
    assert line.startswith("m: model: cannot be read, or is no longer there: ") and str(work.model) in line
    assert line.endswith("the states themselves are read without it") and error.exit_status == 1
    note = json.loads((work.folder / "job" / "damage.json").read_text(encoding="utf-8"))
    assert note == [], "nothing that a run would compute again"


def test_damage_of_the_store_is_found_beside(work):
    shutil.rmtree(work.model)
    shard = work.store / "m" / "d" / "hidden_states" / "c" / "0" / "0" / "0"
    raw = bytearray(shard.read_bytes())
    raw[500] ^= 1
    shard.write_bytes(raw)
    lines: list[str] = []
    with pytest.raises(DamageError):
        lines.extend(verify_lines(str(work.store), models=True))
    assert any("hidden_states" in line for line in lines) and any(": model: " in line for line in lines)


def test_a_model_that_the_last_job_does_not_name_is_said(work):
    work.name = "n"
    work.texts("d", 8)
    work.run()
    assert "m: its model is not compared: the last job does not name it" in verified(work)


def test_a_store_that_records_nothing_of_its_model_is_not_called_whole(work, monkeypatch):
    change(work.model / "model.safetensors", -1)
    monkeypatch.setattr(recorded_models, "recorded", lambda attributes: [])
    lines, _ = findings(work)
    assert len(lines) == 1 and "its weights are not those that the store records" in lines[0], "by its canaries"
    monkeypatch.setattr(recorded_models, "read_canaries", lambda model: None)
    lines, _ = findings(work)
    assert lines == ["m: model: the store records nothing of its files; run the job, which records them"]
    monkeypatch.setattr(recorded_models, "recorded", lambda attributes: [attributes["none"]])
    lines, _ = findings(work)
    assert lines == ["m: model: the store's record of its files (recipes) is damaged; run the job"]


def test_without_a_manifest_the_models_are_not_known(work):
    (work.folder / "job" / "manifest.json").unlink()
    with pytest.raises(StoreError, match=r"no manifest\.json") as caught:
        verified(work)
    assert caught.value.exit_status == 2

"""The choice of `backend: auto` is kept in the cache, checked when it is read, and made again where it is wrong."""

from __future__ import annotations

import random
from dataclasses import asdict
from pathlib import Path

import pytest

from drillcore.backends import auto
from drillcore.backends.auto import Choice, choose_backend
from drillcore.backends.source import locate
from drillcore.job.extract import Extract
from drillcore.job.model import Model
from drillcore.system.progress import with_lines
from drillcore.tokens.sequences import Sequences
from support.damage import damages
from support.plain import random_sentences


@pytest.fixture
def choose(models, tmp_path, monkeypatch, seed):
    """Chooses for so many sentences; the two engines, of which a machine may lack one, are not timed."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(auto.vllm, "check", lambda *_: None)
    source = locate(Model(id=str(models())), Path("/"))
    sentences = Sequences.of(random_sentences(seed, 384, count=10))
    timed = []

    def measure(source, extract, layers, sample):
        timed.append(len(sample))
        return Choice("transformers", f"timed {len(sample)}", {"vllm": {"sentences_per_second": 1.0}}), True

    monkeypatch.setattr(auto, "_measure_both", measure)
    return lambda count: choose_backend(source, Extract(backend="auto"), (0, 3), sentences.slice(0, count)), timed


def test_a_damaged_choice_is_made_again_and_that_is_said(choose, tmp_path, seed):
    chosen, timed = choose
    folder = tmp_path / "cache" / "drillcore" / "choices"
    other = chosen(9)
    (of_other,) = folder.iterdir()
    want = chosen(10)
    (path,) = {*folder.iterdir()} - {of_other}
    assert chosen(10) == want != other and timed == [9, 10]
    for name, damage in damages(path.read_bytes(), of_other.read_bytes(), random.Random(seed)):
        damage(path)
        timed.clear()
        found, lines = with_lines(chosen, 10)
        assert found == want and timed == [10], name
        assert len(lines) == 1 and f"{path} (the choice of a backend)" in lines[0], name


@pytest.mark.parametrize("change", [{"backend": "fake"}, {"backend": 7}, {"measured": 7}, {"more": 1}])
def test_a_choice_of_another_shape_is_not_obeyed(change, choose, tmp_path):
    chosen, _ = choose
    want = chosen(10)
    (path,) = (tmp_path / "cache" / "drillcore" / "choices").iterdir()
    auto.Entry(path.parent, path.stem, "").write({**asdict(want), **change})
    found, lines = with_lines(chosen, 10)
    assert found == want and len(lines) == 1 and "holds something else" in lines[0]

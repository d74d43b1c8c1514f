"""`drillcore verify --recompute`: texts of a store against their states, computed again alone."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
from test_canaries import another_theta

from drillcore.cli.verify import verify_lines
from drillcore.errors import DamageError, StoreError
from drillcore.store.group import GroupWriter
from support.audited import Audited
from support.records import as_written


@pytest.fixture
def work(tmp_path, models, seed):
    """A finished job of two datasets, one with a template."""
    made = Audited(tmp_path, shutil.copytree(models(), tmp_path / "model"), seed)
    made.texts("d", 60)
    made.texts("e", 20)
    made.datasets["e"] = {"path": "e.jsonl", "template": "Say: {text} !"}
    made.run()
    return made


def verified(work: Audited, count: int = 60) -> list[str]:
    """The lines of a verification that finds something."""
    lines: list[str] = []
    with pytest.raises(DamageError):
        lines.extend(verify_lines(str(work.store), recompute=count))
    return lines


@pytest.mark.parametrize("count", [0, 5])
def test_a_whole_store(work, count):
    lines = list(verify_lines(str(work.store), recompute=count))
    assert lines[-1].endswith("whole") and any("4 canary sentences have the states" in line for line in lines)
    assert sum("sentences computed again alone" in line for line in lines) == 2


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_a_whole_store_in_a_lower_precision(work, dtype):
    shutil.rmtree(work.store)
    work.run(dtype=dtype)
    assert list(verify_lines(str(work.store), recompute=5))[-1].endswith("whole")


def test_texts_that_were_permuted_against_their_states(work):
    texts = np.asarray(work.group()["text"][:]).tolist()
    for name in ("text", "row_id"):
        work.permute(name, [*range(60)])
    assert list(verify_lines(str(work.store)))[-1].endswith("whole"), "checksums know nothing of it"
    lines = verified(work)
    assert any("sentences 0 to 0" in line and "are not those of its text" in line for line in lines)
    note = json.loads((work.folder / "job" / "damage.json").read_text(encoding="utf-8"))
    assert {entry["group"] for entry in note} == {"m/d"}
    work.run()
    assert np.asarray(work.group()["text"][:]).tolist() == texts
    assert list(verify_lines(str(work.store), recompute=60))[-1].endswith("whole")


def test_two_states_that_were_exchanged(work):
    before = np.asarray(work.group()["hidden_states"][:])
    work.permute("hidden_states", [20, 33])
    lines = verified(work)
    assert sum("are not those of its text" in line for line in lines) == 2
    assert any("sentences 20 to 20" in line and "those of sentence 33" in line for line in lines)
    work.run()
    assert np.array_equal(np.asarray(work.group()["hidden_states"][:]), before)


def test_results_of_wrong_states_are_made_again_with_the_states(work):
    stages = ("extract", "measure")
    work.run(stages=stages)
    right = np.asarray(work.group()["layer_cka"][:])
    states = work.group(mode="r+")["hidden_states"]
    values = np.asarray(states[:])
    values[20:33, 2] = values[20:33, 2][::-1]
    states[:] = values
    GroupWriter(work.group(mode="r+")).drop_results(["layer_cka"])
    as_written(work.store)
    work.run(stages=stages)
    assert not np.array_equal(np.asarray(work.group()["layer_cka"][:]), right)
    verified(work)
    work.run(stages=stages)
    assert np.array_equal(np.asarray(work.group()["layer_cka"][:]), right)
    assert any("measures are up to date" in line for line in work.run(stages=stages))


@pytest.mark.parametrize("stage", ["measure", "project", "render"])
def test_what_a_verification_found_wrong_is_not_measured(work, stage):
    """A stage alone cannot make states, texts and labels again."""
    for name in ("text", "row_id"):
        work.permute(name, [*range(9)])
    verified(work)
    for _ in range(2):
        with pytest.raises(DamageError, match=r"m/d: `drillcore verify` found damage in hidden_states: .*not those of"):
            work.run(stages=(stage,))
    work.run(stages=tuple(dict.fromkeys(("extract", "project", stage))))
    work.run(stages=(stage,))


def test_a_model_that_has_changed_condemns_no_row(work):
    another_theta(work)
    lines = verified(work)
    assert any("rope_theta 10000.0 → 10500.0" in line for line in lines)
    assert not any("are not those of its text" in line for line in lines)
    assert json.loads((work.folder / "job" / "damage.json").read_text(encoding="utf-8")) == []


def test_where_the_models_are_is_said_by_the_manifest(work, tmp_path):
    (work.folder / "job" / "manifest.json").unlink()
    with pytest.raises(StoreError, match=r"no manifest\.json") as caught:
        list(verify_lines(str(work.store), recompute=1))
    assert "--out" in caught.value.hint and caught.value.exit_status == 2


def test_a_model_that_is_gone(work):
    shutil.rmtree(work.model)
    assert any("could not be computed again" in line for line in verified(work))

"""The audit of a run: row i of a store is sentence i, or the run fails, names the row and withdraws its shard."""

from __future__ import annotations

import json
import shutil
import warnings

import numpy as np
import pytest
import xarray as xr

import drillcore
from drillcore.backends.transformers.backend import TransformersBackend
from drillcore.cli.show import store_lines
from drillcore.cli.verify import verify_lines
from drillcore.runtime.failures import PartFailed
from drillcore.runtime.stages.extract.audit import ModelAudit
from drillcore.runtime.work import pipeline
from drillcore.store.freshness import stale
from support.audited import Audited

DTYPES = ("float32", "bfloat16")


@pytest.fixture
def work(tmp_path, models, seed):
    """A job of 60 sentences in four shards and two blocks, on a model of its own."""
    made = Audited(tmp_path, shutil.copytree(models(), tmp_path / "model"), seed)
    made.texts("d", 60)
    return made


def test_an_honest_run_passes_and_says_so(work):
    lines = work.run()
    assert any("audit passed" in line and "computed again alone" in line for line in lines)
    figures = work.figures
    assert figures["passed"] and figures["canaries"] == 4 and figures["worst_relative_error"] <= 1e-5
    assert figures["bound"] == 1e-4 and {0, 59} <= set(figures["rows"]["d"])
    lengths = np.asarray(work.group()["n_tokens"][:])
    assert lengths[figures["rows"]["d"]].max() == lengths.max(), "the longest sentence is audited"
    header, row = list(store_lines(str(work.store)))[1:3]
    assert "audit" in header and f"{figures['sentences']} to " in row
    assert any("up to date" in line for line in work.run()), "nothing is loaded the second time"


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("store_dtype", ["float32", "float16"])
def test_rounding_is_no_fault(work, dtype, store_dtype):
    work.run(dtype=dtype, store_dtype=store_dtype)
    assert work.figures["passed"] and work.figures["dtype"] == "float32"


@pytest.mark.parametrize("dtype", DTYPES)
def test_rows_stored_in_another_order_fail_the_run(work, dtype, monkeypatch):
    """Row i of a shard is stored as row i + 1."""
    put = pipeline._put
    monkeypatch.setattr(pipeline, "_put", lambda states, rows, *rest: put(states, (rows + 1) % len(states), *rest))
    with pytest.raises(PartFailed) as caught:
        work.run(dtype=dtype)
    message = str(caught.value)
    assert caught.value.exit_status == 1 and "the states of sentence 0 are not those of its text" in message
    assert "m/d" in message and "withdrawn" in message
    assert work.committed() == [] and not work.figures["passed"]
    monkeypatch.undo()
    work.run(dtype=dtype)
    assert work.figures["passed"] and len(work.committed()) == 4


@pytest.mark.parametrize("dtype", DTYPES)
def test_two_rows_of_a_pack_that_are_swapped_fail_the_run(work, dtype, monkeypatch):
    """At the gather, in blocks only: the self-check at load sees nothing."""
    run = TransformersBackend.run

    def swapping(self, given):
        for part in run(self, given):
            if given.num_sentences == 32:
                part.sentence_S[:2] = part.sentence_S[1::-1].copy()
            yield part

    monkeypatch.setattr(TransformersBackend, "run", swapping)
    with pytest.raises(PartFailed, match="they are those of sentence"):
        work.run(dtype=dtype, audit=60)


def test_rows_that_an_earlier_run_committed_are_audited_too(work):
    work.run(stages=("extract", "measure"))
    work.permute("hidden_states", [17, 18])
    work.withdraw(0)
    with pytest.raises(PartFailed, match=r"sentence 17 .* those of sentence 18"):
        work.run(audit=60)
    assert work.committed() == [0, 2, 3], "shard 1 is withdrawn, and the block that was computed stays"
    assert "other states" in stale(work.group(), "layer_cka"), "it may have been made from the wrong ones"
    work.run()
    assert work.figures["passed"] and work.committed() == [0, 1, 2, 3]


def test_the_audit_after_a_failed_one_looks_at_other_rows_too(work):
    work.run(stages=("extract",), audit=8)
    first = set(work.figures["rows"]["d"])
    work.permute("hidden_states", [min(first), min(first) + 1])
    work.withdraw(3)
    with pytest.raises(PartFailed):
        work.run(stages=("extract",), audit=8)
    work.run(stages=("extract",), audit=8)
    assert work.figures["passed"] and set(work.figures["rows"]["d"]) - first


def test_texts_that_are_not_those_of_the_file_are_written_again(work):
    texts = work.texts("d", 60)
    work.run()
    for name in ("text", "row_id", "n_tokens", "last_token_id"):
        work.permute(name, [*range(60)])
    work.withdraw(3)
    with pytest.raises(PartFailed, match="text of sentence 0 is not that of the dataset's file"):
        work.run()
    assert work.committed() == [0, 1, 2, 3], "the states were right"
    work.run()
    assert np.asarray(work.group()["text"][:]).tolist() == texts


def test_a_run_that_ended_before_its_audit_is_audited_by_the_next(work, monkeypatch):
    monkeypatch.setattr(ModelAudit, "compare", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        work.run()
    assert "not ended" in "".join(store_lines(str(work.store))) and len(work.committed()) == 4
    monkeypatch.undo()
    lines = work.run()
    assert any("ended before its states were audited" in line for line in lines) and work.figures["passed"]
    assert any("up to date" in line for line in work.run())


@pytest.mark.parametrize("what", ["hidden_states", "layer_absmax", "layer_absmax/c/0", "shard_record"])
def test_what_is_computed_again_after_damage_is_audited(work, what):
    """Also where nothing is missing by the fingerprints of its shards."""
    work.texts("e", 20)
    work.run()
    for damaged in ("m/d", "m/e"):
        place = work.store / damaged / what
        place.unlink() if place.is_file() else shutil.rmtree(place)
        said = work.run()
        computed = sum(int(line.split()[1]) for line in said if line.startswith("extract: "))
        assert bool(computed) == any("audit passed" in line for line in said), said
        assert not any("before its states were audited" in line for line in work.run())
        assert list(verify_lines(str(work.store)))[-1].endswith("whole")


def test_arrays_that_were_exchanged_leave_nothing_behind(work):
    """One has a file for each shard, in a folder of its own, the other one for all."""
    work.run()
    one, other, aside = (work.store / "m" / "d" / name for name in ("shard_fingerprint", "shard_planned", "aside"))
    for old, new in ((one, aside), (other, one), (aside, other)):
        old.rename(new)
    work.run()
    assert list(verify_lines(str(work.store)))[-1].endswith("whole")


def test_equal_sentences_need_one_audit(work):
    work.texts("same", 60, same="the same sentence every time")
    work.run()
    assert work.figures["passed"] and len(work.figures["rows"]["same"]) <= 10


def test_no_audit_where_the_job_says_so(work):
    lines = work.run(audit=0)
    assert not any("audit" in line for line in lines)
    assert "_canary_states" not in work.group("m") and "audit" not in work.group().attrs
    assert "none" in list(store_lines(str(work.store)))[2]
    again = work.run()
    assert any("up to date" in line for line in again), "the field is in no fingerprint"


def test_xarray_opens_the_store_without_a_warning(work):
    work.run()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        tree = xr.open_datatree(str(work.store), engine="zarr")
        assert tree["m/d"].hidden_states.shape == (60, 5, 32) and "canary" not in tree["m/d"].to_dataset().dims
        assert tree["m"]["_canary_states"].shape == (4, 5, 32)
        assert "canary" not in xr.open_zarr(str(work.store), group="m/d").load().dims
        ours = drillcore.open(work.store)
    assert "canary" not in ours["m/d"].dims and not ours["m"].data_vars
    assert ours["m/d"].hidden_states.dims == ("sentence", "layer", "hidden")


def test_a_few_sentences_are_audited(models, monkeypatch):
    put = pipeline._put
    monkeypatch.setattr(pipeline, "_put", lambda states, rows, *rest: put(states, rows[::-1], *rest))
    with pytest.raises(PartFailed, match="sentence 0"):
        drillcore.extract(str(models()), ["one sentence", "and another", "a third"])


def test_results_of_one_dataset_stay_where_another_is_wrong(work, monkeypatch):
    work.texts("e", 20)
    put = pipeline._put

    def wrong(states, rows, values, places):
        # The last shard of e: 20 sentences are a shard of 16 and one of four.
        put(states, (rows + 1) % len(states) if len(states) == 4 else rows, values, places)

    monkeypatch.setattr(pipeline, "_put", wrong)
    with pytest.raises(PartFailed, match="m/e") as caught:
        work.run(audit=20)
    assert "m/d" not in str(caught.value)
    assert work.committed("m/d") == [0, 1, 2, 3] and work.committed("m/e") == [0]


def test_the_manifest_is_plain_json(work):
    work.run()
    json.dumps(work.figures, allow_nan=False)

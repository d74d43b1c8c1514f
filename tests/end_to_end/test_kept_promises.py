"""Exit 0 and `whole` are promises: what is gone, older or noted as damaged is never passed over by another command."""

from __future__ import annotations

import json
import shutil

import pytest

import drillcore
from drillcore.cli.verify import verify_lines
from drillcore.errors import DamageError, StoreError
from drillcore.store.places.location import Location
from support.audited import Audited
from torture.drill import drill

STAGES = ("extract", "measure", "project")


@pytest.fixture
def work(tmp_path, models, seed):
    """A finished job of two datasets, its two later stages among what ran."""
    made = Audited(tmp_path, shutil.copytree(models(), tmp_path / "model"), seed)
    made.more = {"project": {"method": "pca"}}
    made.texts("d", 40)
    made.texts("e", 20)
    made.run(stages=STAGES)
    return made


def is_whole(work: Audited) -> bool:
    try:
        return list(verify_lines(str(work.store)))[-1].endswith(": whole")
    except DamageError:
        return False


def flip(work: Audited, path: str = "m/e/hidden_states/c/0/0/0", at: int = 40) -> None:
    data = bytearray((work.store / path).read_bytes())
    data[at] ^= 1
    (work.store / path).write_bytes(data)


def test_a_command_that_is_interrupted_says_so(work, monkeypatch):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(Location, "open", interrupted)
    export = ["--layer", "embed", "--to", "npy", "--out", str(work.folder / "x.npy"), "--group", "m/d"]
    commands = {"verify": [], "show": [], "export": export, "compare": ["m/d", "m/e"], "rm": ["m/e"]}
    for command, more in commands.items():
        outcome = drill(command, str(work.store), *more)
        assert outcome.status == 130 and "interrupted" in outcome.said, f"{command}: {outcome}"


GROUPS = ["m/..", "../job", "../x", "m/", "m/d\0", "m/_canary_states", "x/y", "/d", "m//", "m/zarr.json"]


@pytest.mark.parametrize("group", GROUPS)
def test_a_note_that_was_edited_leads_nowhere(work, group):
    note = work.folder / "job" / "damage.json"
    mends = {"columns": None, "shard": 0, "rows": 0, "result": None}
    entries = [{"group": group, "array": "x", "mend": m, "shard": s, "what": "w"} for m, s in mends.items()]
    note.write_text(json.dumps(entries))
    before = {p: p.read_bytes() for p in work.folder.rglob("*") if p.is_file()}
    work.run(stages=STAGES)
    after = {p: p.read_bytes() for p in work.folder.rglob("*") if p.is_file()}
    assert {p for p in before.keys() | after.keys() if before.get(p) != after.get(p)} <= {
        note,
        work.folder / "job" / "manifest.json",
        work.folder / "job" / "log.txt",
        work.folder / "job" / "lock",
    }
    assert is_whole(work)


def test_a_note_of_a_shard_that_there_is_not_withdraws_nothing(work):
    note = [{"group": "m/d", "array": "hidden_states", "mend": "rows", "shard": 10**6, "what": "w"}]
    (work.folder / "job" / "damage.json").write_text(json.dumps(note))
    assert any("measures are up to date" in line for line in work.run(stages=STAGES))


def test_removal_does_not_record_what_another_group_has_become(work, tmp_path):
    older = shutil.copytree(work.store / "m" / "d", tmp_path / "older")
    work.more["measure"] = {"seed": 1}
    work.run(stages=STAGES)
    shutil.rmtree(work.store / "m" / "d")
    for put_back in (True, False):
        if put_back:
            shutil.copytree(older, work.store / "m" / "d")
        with pytest.raises(DamageError, match=r"m/d is missing, or not the one .*; nothing was changed"):
            drillcore.remove(str(work.store), "m/e")
        assert (work.store / "m" / "e").is_dir() and not is_whole(work)
        shutil.rmtree(work.store / "m" / "d", ignore_errors=True)
    work.run(stages=STAGES)
    assert drillcore.remove(str(work.store), "m/e") and is_whole(work)


@pytest.mark.parametrize("stage", ["measure", "project"])
@pytest.mark.parametrize("left", [True, False])
def test_a_stage_alone_refuses_a_store_whose_group_is_gone(work, stage, left):
    if left:
        del work.datasets["e"]
        work.run(stages=STAGES)
    shutil.rmtree(work.store / "m" / "e")
    for _ in range(2):
        with pytest.raises(DamageError, match="m/e: is gone"):
            work.run(stages=(stage,))
        assert not is_whole(work)
    assert any("m/e: is gone from the store" in line for line in work.run(stages=STAGES)) and is_whole(work)


def test_whole_is_not_said_of_an_unfinished_store_without_a_word(work, monkeypatch):
    from drillcore.runtime import runner

    said = "the last run did not finish"
    assert not any(said in line for line in verify_lines(str(work.store)))
    with monkeypatch.context() as patch, pytest.raises(ZeroDivisionError):
        patch.setattr(runner, "load_stage", lambda name: 1 / 0)
        work.run(stages=STAGES)
    lines = list(verify_lines(str(work.store)))
    assert any(said in line for line in lines) and lines[-1].endswith(": whole")


def test_a_group_that_is_gone_after_a_run_that_did_not_finish(work, monkeypatch):
    from drillcore.runtime import runner

    def dies(name):
        raise KeyboardInterrupt

    del work.datasets["e"]
    work.run(stages=STAGES)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(runner, "load_stage", dies)
        work.run(stages=STAGES)
    for path in ("d", "e"):
        shutil.rmtree(work.store / "m" / path)
    lines = []
    with pytest.raises(DamageError):
        lines.extend(verify_lines(str(work.store)))
    assert [line.partition(",")[0] for line in lines if "is gone" in line] == [
        f"{path}: zarr.json: is gone" for path in ("m/d", "m/e")
    ]
    with pytest.raises(DamageError, match="is gone"):
        work.run(stages=("measure",))
    said = work.run(stages=STAGES)
    for path in ("m/d", "m/e"):
        assert any(line.startswith(f"{path}: is gone from the store") for line in said), said
    assert is_whole(work)


@pytest.mark.parametrize("stage", ["measure", "project", "render"])
def test_a_stage_alone_does_not_write_a_damaged_root_again(work, stage):
    flip(work, "zarr.json", 400)
    shutil.rmtree(work.store / "m" / "d")
    before = (work.store / "zarr.json").read_bytes()
    with pytest.raises(DamageError, match=r"zarr\.json is damaged"):
        work.run(stages=(stage,))
    assert (work.store / "zarr.json").read_bytes() == before


def test_what_a_verification_found_is_mended_wherever_its_note_is(work):
    flip(work)
    with pytest.raises(DamageError):
        list(verify_lines(str(work.store), work.folder / "elsewhere"))
    assert (work.folder / "elsewhere" / "damage.json").exists()
    work.run(stages=STAGES)
    assert is_whole(work)


def test_a_note_of_another_store_is_not_removed(work, tmp_path):
    other = shutil.copytree(work.store, tmp_path / "other.zarr")
    flip(work)
    with pytest.raises(DamageError):
        list(verify_lines(str(work.store), tmp_path / "out"))
    before = (tmp_path / "out" / "damage.json").read_bytes()
    with pytest.raises(StoreError, match="is about another store"):
        list(verify_lines(str(other), tmp_path / "out"))
    assert (tmp_path / "out" / "damage.json").read_bytes() == before


def test_a_store_that_was_moved_takes_its_note_along(work, tmp_path):
    flip(work)
    assert not is_whole(work)
    moved = tmp_path / "moved"
    moved.mkdir()
    for name in ("job", "job.zarr", "model", "d.jsonl", "e.jsonl"):
        shutil.move(work.folder / name, moved / name)
    work.folder, work.model = moved, moved / "model"
    work.run(stages=STAGES)
    assert is_whole(work)


@pytest.mark.parametrize("out", ["job.zarr", "job.zarr/m", "job.zarr/m/d/x", "job.zarr/m/d/label/x"])
def test_results_are_never_written_into_a_store(work, out):
    (work.folder / "job.yaml").write_text(
        json.dumps({"models": [{"id": "./model", "as": "m"}], "datasets": work.datasets, "store": "job.zarr"})
    )
    before = sorted(work.store.rglob("*"))
    outcome = drill("run", str(work.folder / "job.yaml"), "--out", str(work.folder / out))
    assert outcome.status == 2 and "lies in the store" in outcome.said, outcome.said
    assert sorted(work.store.rglob("*")) == before


def test_results_that_are_no_longer_asked_for_are_not_damage(work):
    work.more = {"project": {"method": "umap", "n_epochs": 20}}
    work.run(stages=STAGES)
    assert is_whole(work)
    work.more = {"project": {"method": "pca"}}
    work.run(stages=STAGES)
    assert is_whole(work)
    work.more = {"project": {"method": "pca"}, "measure": {"seed": 3}}
    work.run(stages=("extract",))
    assert not is_whole(work), "a run would measure again"
    work.run(stages=STAGES)
    del work.datasets["e"]
    work.texts("d", 50)
    work.run(stages=STAGES)
    assert is_whole(work)

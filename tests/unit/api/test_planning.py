"""`drillcore plan` and what Python gets: times of stages, what is done already, JSON, and that nothing is written."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

import drillcore
from drillcore.api import estimates as timing
from drillcore.api import planning
from drillcore.api.calibration import Load
from drillcore.api.job import Job
from drillcore.api.planning import plan
from drillcore.errors import JobError
from drillcore.runtime import timekeeper
from drillcore.runtime.rates import FROM_RUN, TIMED_BEFORE, TIMED_NOW, Rates

STAGES = ["extract", "measure", "predict", "project", "render"]


class Heard:
    """Keeps the lines that are said."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, message: str) -> None:
        self.lines.append(message)

    warn = say

    def start(self, *anything) -> None: ...
    def advance(self, *anything) -> None: ...
    def finish(self, *anything) -> None: ...


@pytest.fixture(autouse=True)
def quiet_machine(tmp_path, monkeypatch):
    """A cache of the test's own, and a machine that is never busy."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(Load, "now", classmethod(lambda cls: cls()))
    monkeypatch.setattr(Load, "words", "")
    monkeypatch.setattr(timekeeper, "load_average", lambda: 0.0)
    monkeypatch.setattr(timing, "gains_by_bfloat16", lambda: False)


@pytest.fixture
def job(tmp_path, models) -> Path:
    rows = [{"text": f"the river {i} is", "label": "ab"[i % 2]} for i in range(40)]
    (tmp_path / "texts.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    settings = {
        "store": "one.zarr",
        "models": [{"id": str(models("llama")), "as": "m"}],
        "datasets": [{"name": "d", "path": "texts.jsonl"}],
        "extract": {"shard_sentences": 16, "block_sentences": 16},
        "measure": {"permutations": 9},
        "project": {"method": "pca"},
    }
    (tmp_path / "job.yaml").write_text(yaml.safe_dump(settings), encoding="utf-8")
    return tmp_path / "job.yaml"


def times(planned: planning.Plan) -> dict[str, float | None]:
    return {s.stage: s.seconds for s in planned.stages}


def contents(folder: Path) -> dict[str, tuple[int, bytes]]:
    """Bytes and times of change of all files of a folder."""
    files = (p for p in folder.rglob("*") if p.is_file())
    return {str(p): (p.stat().st_mtime_ns, p.read_bytes()) for p in files}


def test_each_stage_is_timed_and_the_next_plan_knows_it(job, tmp_path):
    heard = Heard()
    planned = plan(job, progress=heard)
    assert list(times(planned)) == STAGES and planned.seconds == sum(times(planned).values())
    sources = {s.stage: s.source for s in planned.stages}
    assert sources == {**dict.fromkeys(STAGES, TIMED_NOW), "predict": ""}
    assert all(seconds > 0 for stage, seconds in times(planned).items() if stage != "predict")
    assert planned.peak_disk_bytes > sum(e.disk_bytes for e in planned.groups) > 0
    assert any("timing a small part" in line for line in heard.lines)
    again = {s.stage: s.source for s in plan(job).stages}
    # A model is loaded again, the rest is known.
    assert again == {
        "extract": TIMED_NOW,
        "predict": "",
        **dict.fromkeys(["measure", "project", "render"], TIMED_BEFORE),
    }
    assert sorted(p.name for p in tmp_path.iterdir()) == ["cache", "job.yaml", "texts.jsonl"]


def test_what_a_run_took_is_preferred_and_loads_no_model(job, monkeypatch):
    drillcore.run(job)
    plan(job)  # times nothing that is done
    monkeypatch.setattr(planning, "time_model", lambda *anything: pytest.fail("a model was loaded"))
    monkeypatch.setattr(planning, "timed_kind", lambda *anything: pytest.fail("something was timed"))
    planned = plan(job, store="another.zarr")
    assert planned.store.endswith("another.zarr")
    assert {s.source for s in planned.stages if s.stage != "predict"} == {FROM_RUN}
    assert planned.groups[0].seconds > 0


def test_what_the_store_holds_costs_nothing_and_is_not_touched(job, tmp_path):
    drillcore.run(job)
    before = contents(tmp_path / "one.zarr") | contents(tmp_path / "one")
    planned = plan(job)
    assert planned.seconds == 0 and all(s.is_done for s in planned.stages)
    assert planned.groups[0].is_done and planned.groups[0].shards == 3
    assert "nothing to do" in repr(planned)
    assert contents(tmp_path / "one.zarr") | contents(tmp_path / "one") == before


def test_settings_that_changed_are_work_again(job):
    drillcore.run(job)
    for change, working in (
        ("measure.permutations=19", {"measure", "render"}),
        ("project.n_neighbors=7", {"project", "render"}),
        ("render.panel_px=170", {"render"}),
    ):
        planned = plan(job, set=[change], calibrate=False)
        assert {s.stage for s in planned.stages if not s.is_done} == working, change


def test_a_store_that_is_filled_in_part(job, tmp_path):
    drillcore.run(job, set=["datasets.0.limit=16"])
    planned = plan(job, calibrate=False)
    (group,) = planned.groups
    assert (group.kept, group.shards, group.is_done) == (1, 3, False)
    assert "1 of 3 shards done" in repr(planned)
    assert {s.stage for s in planned.stages if s.is_done} == {"predict"}


def test_without_calibration_nothing_is_loaded_or_timed(job, monkeypatch):
    monkeypatch.setattr(planning, "time_model", lambda *anything: pytest.fail("a model was loaded"))
    planned = plan(job, calibrate=False)
    assert planned.seconds is None and times(planned) == {**dict.fromkeys(STAGES, None), "predict": 0}
    assert planned.groups[0].seconds is None and "not timed" in repr(planned)
    assert Rates.read()._seen == ()


def test_what_is_timed_on_a_busy_machine_is_said_and_not_kept(job, monkeypatch):
    monkeypatch.setattr(Load, "words", "this machine was busy")
    planned = plan(job)
    assert "this machine was busy" in planned.notes and "this machine was busy" in repr(planned)
    assert Rates.read()._seen == ()


def test_how_busy_a_machine_is(monkeypatch):
    monkeypatch.undo()
    for load, busy in ((Load(), False), (Load(cores=1e6), True), (Load(waited=[0.1, 0.9]), True)):
        assert bool(load.words) is busy, load
    load = Load()
    with load.watching():
        pass
    assert load.waited == []  # too short to tell


def test_a_job_that_is_no_file(job, tmp_path):
    built = Job.load(job)
    planned = plan(built, calibrate=False)
    assert planned.to_dict() == plan(job, calibrate=False).to_dict()
    assert plan(built, store=str(tmp_path / "x.zarr"), calibrate=False).store == str(tmp_path / "x.zarr")
    assert plan(built, limit=3, calibrate=False).groups[0].num_rows == 3
    with pytest.raises(JobError):
        plan(built, set=["extract.dtype=floot32"])
    with pytest.raises(JobError):
        plan(tmp_path / "nowhere.yaml")


def test_texts_are_escaped_in_a_notebook(job):
    (job.parent / "texts.jsonl").write_text('{"text": "<script>x</script>"}\n', encoding="utf-8")
    page = plan(job, calibrate=False)._repr_html_()
    assert "<script>" not in page and "&lt;script&gt;" in page and "<th>" in page


def test_json_is_all_that_stands_on_standard_output(job):
    command = [sys.executable, "-m", "drillcore", "plan", "job.yaml", "--no-calibrate", "--json", "--store", "s.zarr"]
    done = subprocess.run(command, cwd=job.parent, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert document["store"] == str(job.parent / "s.zarr") and list(document["stages"]) == STAGES
    assert document["groups"][0]["num_rows"] == 40 and document["seconds"] is None
    assert "the first sentence as it is encoded" in done.stderr


def streaming(job: Path, **extract) -> Path:
    settings = yaml.safe_load(job.read_text(encoding="utf-8"))
    settings["extract"] |= extract
    job.write_text(yaml.safe_dump(settings), encoding="utf-8")
    return job


def test_a_plan_says_what_streaming_takes(job, models):
    plain = plan(job, calibrate=False)
    assert not any("streamed" in note for note in plain.notes)
    (note,) = [n for n in plan(streaming(job, weights="streamed"), calibrate=False).notes if "streamed" in n]
    assert note.startswith("m: weights are streamed, 1 sweep of at most ") and note.endswith(" of scratch disk")
    assert " of the device, " in note
    # 40 rows of 5 layers of 32 values in float32.
    assert "25.6 kB of scratch disk" in note
    planned = plan(job)
    stage = next(s for s in planned.stages if s.stage == "extract")
    assert stage.seconds is not None and stage.source == TIMED_NOW


def test_a_plan_of_auto_says_it_only_where_the_model_does_not_fit(job, monkeypatch):
    from drillcore.backends.transformers.streamed import choice

    streaming(job, weights="auto")
    for free, said in ((2**40, False), (1000, True)):
        monkeypatch.setattr(choice, "allowed_memory_bytes", lambda free=free: free)
        assert any("weights are streamed" in n for n in plan(job, calibrate=False).notes) == said


@pytest.mark.parametrize(
    ("address", "said"),
    [
        (None, r"by each of 3 actors, 1 sweep of at most [\d,]+ nodes; .* of scratch disk for each$"),
        (
            "auto",
            r"by each actor, 1 sweep of at most [\d,]+ nodes shared out evenly; .*, where 3 actors share a machine",
        ),
    ],
)
def test_on_ray_figures_are_those_of_each_actor(job, address, said, monkeypatch):
    from drillcore.api import streaming as notes
    from drillcore.backends.transformers.streamed import choice, room
    from drillcore.system import machine

    monkeypatch.setattr(notes, "num_cores", lambda: 3)
    monkeypatch.setattr(machine, "free_memory_bytes", lambda: 3 * 2**30)
    streaming(job, weights="streamed", threads=1)
    nodes = {}
    for executor in ("local", "ray"):
        run = [f"run.executor={executor}"] + ([f"run.address={address}"] if address and executor == "ray" else [])
        (note,) = [n for n in plan(job, calibrate=False, set=run).notes if "streamed" in n]
        nodes[executor] = int(re.search(r"at most ([\d,]+) nodes", note)[1].replace(",", ""))
    assert re.search(f"m: weights are streamed {said}", note), note
    assert nodes["ray"] == pytest.approx(nodes["local"] / 3, rel=0.1), "of a third of the memory"
    assert choice.allowed_memory_bytes() == room.allowed_memory_bytes() == 3 * 2**30, "here nothing is shared"

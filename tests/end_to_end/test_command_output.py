"""What a run writes where: results to standard output, progress to standard error, all of it to its log."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import signal
import subprocess
import sys

import pytest

import drillcore
from drillcore.cli.helps import EXAMPLES
from support.runs import sentences

pytest_plugins = ["support.run_fixtures"]

STAGES = ("extract", "measure", "predict", "project", "render")
LOG = re.compile(r"\d{4}-\d\d-\d\dT[\d:]{8}[+-]\d{4} [A-Z]+ +[\w.]+: ")


@pytest.fixture
def work(new_work, seed):
    more = {"measure": {"permutations": 9}, "project": {"method": "pca"}}
    return new_work(seed=seed, count=40, backend="transformers", **more)


def log_of(work):
    return (work.beside / "log.txt").read_text(encoding="utf-8")


def test_the_last_line_is_all_of_standard_output(work):
    command = work.forge.run("run", "job.yaml", cwd=work.folder)
    assert command.status == 0, command.err
    assert command.out == "done: store runs/job.zarr, results in runs/job, report runs/job/report.html\n"
    assert "self-check passed" in command.err and "done:" not in command.err
    log = log_of(work)
    assert all(line in log for line in command.err.splitlines() if " left" not in line)
    assert all(LOG.match(line) for line in log.splitlines())
    assert all(f"stage {stage}: " in log for stage in STAGES) and "numerics {" in log and log.endswith(": done\n")
    assert not list(work.store.rglob("log*"))


@pytest.mark.parametrize("place", [0, 2])
def test_quiet_says_the_last_line_and_verbose_says_details(work, place):
    for option in ("-q", "-v"):
        arguments = ["extract", "job.yaml"]
        arguments.insert(place, option)
        command = work.forge.run(*arguments, cwd=work.folder)
        assert command.status == 0 and command.out == "done: store runs/job.zarr, results in runs/job\n"
        if option == "-q":
            assert command.err == "" and "self-check passed" in log_of(work), "the log has it all the same"
        else:
            assert "up to date" in command.err and "stage extract: " in command.err and "cache in " in command.err
            assert command.err.count("stage extract: ") == 1


def test_quiet_says_what_may_be_wrong_with_the_texts(work):
    (dataset, *_) = work.job["datasets"]
    work.texts(dataset["name"], [{"text": f"A river, number {i}, runs near ", "label": "ab"[i % 2]} for i in range(20)])
    command = work.run("--quiet")
    assert command.status == 0 and "end in a blank" in command.err and "self-check" not in command.err


def test_quiet_says_errors(work):
    work.job["models"][0]["id"] = "./nowhere"
    work.save()
    command = work.run("--quiet")
    assert command.status == 2 and "nowhere" in command.err and command.out == ""


def test_a_resumed_run_goes_on_in_the_log(work):
    work.finish()
    work.finish()
    assert log_of(work).count("another run begins; the one above is done") == 1
    broken = work.run(first=INTERRUPTED)
    assert broken.status == 130 and "interrupted" in log_of(work).splitlines()[-1]
    work.finish()
    assert "another run begins; the one above did not come to its end and is resumed" in log_of(work)


INTERRUPTED = """
import drillcore.runtime.runner as runner
def load_stage(name):
    raise KeyboardInterrupt
runner.load_stage = load_stage
"""


def test_an_error_is_in_the_log_with_its_traceback(work):
    command = work.run(first="import drillcore.runtime.runner as runner\nrunner.load_stage = lambda name: 1 / 0\n")
    assert command.status == 1 and "Traceback" not in command.err
    assert "failed: division by zero\nTraceback" in log_of(work)


def test_a_refused_run_leaves_no_log(work):
    (work.folder / "d.jsonl").write_text('{"text": 5}\n', encoding="utf-8")
    assert work.run().status == 2 and not work.beside.exists()
    late = """
import drillcore.runtime.runner as runner
from drillcore.errors import JobError
def load_stage(name):
    raise JobError("found late", hint="mend it")
runner.load_stage = load_stage
"""
    work.texts("d", sentences(1, 8))
    command = work.run(first=late)
    assert command.status == 2 and "found late" in command.err and not work.beside.exists()
    work.finish()
    before = (work.beside / "log.txt").read_bytes()
    (work.folder / "d.jsonl").write_text('{"text": 5}\n', encoding="utf-8")
    assert work.run().status == 2 and (work.beside / "log.txt").read_bytes() == before


def test_a_log_that_cannot_be_written_is_no_reason_to_fail(work):
    work.beside.mkdir(parents=True)
    broken = """
import drillcore.runtime.log as logs
def fail(*_):
    raise OSError(28, "No space left")
logs._File._open = fail
"""
    command = work.run(first=broken)
    assert command.status == 0 and "No space" not in command.err and not (work.beside / "log.txt").exists()


@pytest.mark.parametrize("name", ["log.txt", "log.txt.1"])
def test_a_folder_in_place_of_the_log_is_refused(work, name):
    (work.beside / name).mkdir(parents=True)
    command = work.run()
    assert command.status == 2 and name in command.err and "which a run writes" in command.err


def test_warnings_of_libraries_go_to_the_log(work):
    noise = """
import drillcore.runtime.runner as runner
import logging, warnings
load = runner.load_stage
def noisy(name):
    warnings.warn("an odd array", RuntimeWarning)
    logging.getLogger("numba.x").warning("slow code")
    import transformers
    transformers.utils.logging.get_logger("transformers.y").warning("odd weights")
    import torch._logging
    logging.getLogger("torch._dynamo").warning("too many shapes")
    return load(name)
runner.load_stage = noisy
"""
    command = work.run(first=noise)
    assert command.status == 0
    for words in ("an odd array", "slow code", "odd weights", "too many shapes"):
        assert words not in command.err + command.out and log_of(work).count(words) >= 1
    shown = work.run("-v", first=noise)
    assert "an odd array" in shown.err and "slow code" in shown.err


def test_a_reader_of_progress_that_leaves_does_not_end_the_run(work):
    command = [sys.executable, "-m", "drillcore", "extract", "job.yaml"]
    with subprocess.Popen(command, cwd=work.folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as run:
        run.stderr.readline()
        run.stderr.close()
        assert run.stdout.read().startswith("done: store runs/job.zarr")
    assert run.returncode == 0 and work.manifest["status"] == "done"


def test_an_interrupted_run_says_so_in_one_line(work):
    slow = """
import drillcore.runtime.runner as runner, time
def load_stage(name, ready=READY):
    ready.touch()
    time.sleep(60)
runner.load_stage = load_stage
"""
    for number in (signal.SIGINT, signal.SIGTERM):
        command = work.start(first=slow)
        command.wait_for(command.is_ready)
        assert command.send(number) == 130 and command.out == ""
        assert command.err.splitlines()[-2] == "drillcore: interrupted; what was committed is kept"


def test_the_examples_run(work):
    """In a folder with a job of one model and two datasets; those that need a network or a device's time aside."""
    work.texts("reviews", sentences(1, 20))
    work.texts("questions", sentences(2, 20))
    (work.folder / "new-reviews.csv").write_text("text,label\nthe port is near,Toronto\n", encoding="utf-8")
    work.job["models"][0]["as"] = "model"
    work.job["datasets"] = [{"name": n, "path": f"{n}.jsonl"} for n in ("reviews", "questions")]
    work.save()
    order = (
        "plan",
        "run",
        *STAGES,
        "append",
        "show",
        "export",
        "compare",
        "verify",
        "push",
        "rm",
        "run",
        "mv",
        "merge",
        "doctor",
        "schema",
    )
    # test_new_job.py and test_wheel.py run init and demo.
    assert {*order} == EXAMPLES.keys() - {"bench", "demo-model", "init", "demo"}
    for name in order:
        if name == "merge":
            shutil.copytree(work.store, work.folder / "runs" / "more.zarr")
            drillcore.move(work.folder / "runs" / "more.zarr", "model", "another")
        words = shlex.split(EXAMPLES[name].partition(" > ")[0])
        command = work.forge.run(*words[1:], cwd=work.folder)
        assert command.status == 0, (name, command.err)
        if name == "schema":
            assert json.loads(command.out)["title"]

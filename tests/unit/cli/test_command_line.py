"""What people type: help, version, options before and after the command, completion, and pipes that close."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys

import pytest
import typer

from drillcore.cli.helps import EXAMPLES
from drillcore.cli.loudness import loudness
from drillcore.cli.main import app, main

GROUP = typer.main.get_command(app)
COMMANDS = sorted(GROUP.commands)


def drillcore(*arguments, cwd=None, **environment):
    return subprocess.run(
        [sys.executable, "-m", "drillcore", *arguments],
        cwd=cwd, capture_output=True, text=True, check=False, env={**os.environ, **environment},
    )  # fmt: skip


def called(monkeypatch, *arguments):
    """Run main inside this process; its exit status."""
    monkeypatch.setattr(sys, "argv", ["drillcore", *arguments])
    try:
        main()
    except SystemExit as end:
        return end.code
    return 0


@pytest.mark.parametrize("command", COMMANDS)
def test_help_has_an_example_and_the_exit_statuses(command, monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "80")
    said = []
    for option in ("-h", "--help"):
        assert called(monkeypatch, command, option) == 0
        said.append(capsys.readouterr().out)
    assert said[0] == said[1] and max(map(len, said[0].splitlines())) <= 80
    example = said[0].split("Example:\n")[1].split("\n\n")[0].replace("\\\n", " ")
    assert shlex.split(example)[:2] == ["drillcore", command]
    assert shlex.split(example) == shlex.split(EXAMPLES[command])
    statuses = [line.split()[0] for line in said[0].split("Exit status:\n")[1].splitlines() if line.strip()]
    assert statuses == ["0", "1", "2", "130"]


@pytest.mark.parametrize("command", COMMANDS)
def test_the_example_can_be_parsed(command):
    words = shlex.split(EXAMPLES[command].partition(" > ")[0])
    with GROUP.make_context("drillcore", words[1:]) as context:
        name, found, rest = GROUP.resolve_command(context, [*context._protected_args, *context.args])
        assert name == command
        found.make_context(name, rest, parent=context)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_the_options_of_all(command):
    options = {option for parameter in GROUP.commands[command].params for option in parameter.opts}
    assert {"-q", "--quiet", "-v", "--verbose", "--debug"} <= options


def test_version():
    done = drillcore("--version")
    number = ".".join(map(str, sys.version_info[:3]))
    assert done.returncode == 0 and done.stdout.startswith("drillcore ") and f"(Python {number})\n" in done.stdout


def test_without_a_command_the_help_goes_to_standard_error():
    done = drillcore()
    assert done.returncode == 2 and done.stdout == "" and done.stderr.startswith("Usage: drillcore [OPTIONS]")


@pytest.mark.parametrize(
    ("arguments", "heard"),
    [
        (["schema"], (False, False, False)),
        (["-q", "schema"], (True, False, False)),
        (["schema", "--quiet"], (True, False, False)),
        (["-v", "schema"], (False, True, False)),
        (["schema", "-v", "--debug"], (False, True, True)),
        (["--debug", "-q", "schema", "-v"], (False, True, True)),
    ],
)
def test_loudness_is_asked_for_before_or_after_the_command(arguments, heard, monkeypatch, capsys):
    found = []
    monkeypatch.setattr("drillcore.job.schema.job_schema", lambda: found.append(loudness()) or "{}\n")
    assert called(monkeypatch, *arguments) == 0 and capsys.readouterr().out == "{}\n"
    assert [(f.quiet, f.verbose, f.debug) for f in found] == [heard]
    assert loudness().verbose is False, "the next command begins anew"


@pytest.mark.parametrize("arguments", [["-q", "-v", "schema"], ["schema", "--verbose", "--quiet"]])
def test_quiet_and_verbose_exclude_each_other(arguments, monkeypatch, capsys):
    assert called(monkeypatch, *arguments) == 2
    assert "exclude each other" in capsys.readouterr().err


@pytest.mark.parametrize("place", [0, 1])
def test_debug_shows_a_traceback(place, monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(tmp_path)
    arguments = ["show", "nowhere.zarr"]
    arguments.insert(place, "--debug")
    assert called(monkeypatch, *arguments) == 2
    assert "Traceback" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        ("drillcore me", ["measure", "merge"]),
        ("drillcore compare s.zarr m", ["m/d", "m/e"]),
        ("drillcore rm s.zarr ", ["m", "m/d", "m/e"]),
        ("drillcore export s.zarr --group m/e", ["m/e"]),
        ("drillcore export s.zarr --to p", ["parquet", "probe"]),
        ("drillcore append job.yaml ", ["d", "e"]),
        ("drillcore append list.yaml d", ["d", "d2"]),
        ("drillcore append nowhere.yaml ", []),
        ("drillcore append s.zarr ", []),
        ("drillcore compare nowhere.zarr m", []),
        ("drillcore compare s3://bucket/x.zarr m", []),
    ],
)
def test_completion(words, offered, tmp_path):
    for group in ("m/d", "m/e", "m/_canary_states"):
        (tmp_path / "s.zarr" / group).mkdir(parents=True)
        (tmp_path / "s.zarr" / group / "zarr.json").write_text("{}", encoding="utf-8")
    (tmp_path / "job.yaml").write_text("datasets: {e: e.csv, d: {path: d.csv}}", encoding="utf-8")
    (tmp_path / "list.yaml").write_text("datasets: [{name: d2}, {name: d}, f.csv]", encoding="utf-8")
    asked = {"COMP_WORDS": words, "COMP_CWORD": str(words.count(" ")), "_DRILLCORE_COMPLETE": "complete_bash"}
    done = drillcore(cwd=tmp_path, **asked)
    assert done.returncode == 0 and done.stderr == "" and done.stdout.split() == offered


def test_completion_imports_nothing_heavy(tmp_path):
    code = """
import os, sys
os.environ |= {"COMP_WORDS": "drillcore compare s.zarr ", "COMP_CWORD": "3", "_DRILLCORE_COMPLETE": "complete_bash"}
from drillcore.cli.main import main
try:
    main()
finally:
    print([m for m in ("torch", "zarr", "numpy", "pandas", "pyarrow", "ray") if m in sys.modules], file=sys.stderr)
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.stderr.strip() == "[]"


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_script_for_a_shell_is_shown(shell):
    done = drillcore("--show-completion", shell, _TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION="1")
    assert done.returncode == 0 and "_DRILLCORE_COMPLETE" in done.stdout


def test_a_reader_that_leaves_gets_no_traceback(tmp_path):
    script = "import sys\nfrom drillcore.cli import main as m, tables\n"
    lines = "def schema():\n    for i in range(100_000):\n        tables.write_line('x' * 80)\n"
    script += lines + "m.app.registered_commands.clear()\nm._register(schema, 'schema')\nm.main()\n"
    command = [sys.executable, "-c", script, "schema"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as run:
        run.stdout.readline()
        run.stdout.close()
        assert run.stderr.read() == ""
    assert run.returncode == 141


def test_a_full_disk_below_standard_output_is_said():
    with open("/dev/full", "w") as full:  # noqa: PTH123
        done = subprocess.run(
            [sys.executable, "-m", "drillcore", "schema"], stdout=full, stderr=subprocess.PIPE, text=True, check=False
        )
    assert done.returncode == 1 and done.stderr == "drillcore: the output cannot be written: No space left on device\n"

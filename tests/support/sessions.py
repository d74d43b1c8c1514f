"""A page as one session: its blocks run in order, in one folder, commands and Python alike."""

from __future__ import annotations

import contextlib
import doctest
import importlib.util
import io
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from drillcore.job.fields import Job
from drillcore.job.file import load_job
from tools.pages import ROOT, SHELL, Block

DEMO = "demo/smollm2-135m-instruct"
MINIMAL = {"models": ["./my-local-model"], "datasets": {"sentences": "sentences.jsonl"}}
SENTENCES = [f"{'the river' if i % 2 else 'a city'} number {i} is {'wide' if i % 3 else 'old'}" for i in range(24)]


class Session:
    """Runs blocks. stand_in: a model that takes the demo model's place; None runs what the page says, to the letter."""

    def __init__(self, folder: Path, stand_in: Path | None) -> None:
        self.folder, self.stand_in = folder, stand_in
        self.printed = ""
        self.names: dict[str, Any] = {"__name__": "__main__"}

    def run(self, block: Block) -> None:
        """Run a block, or check it where it is not to be run; AssertionError says where it stands."""
        text = block.text if self.stand_in is None else block.text.replace(DEMO, str(self.stand_in))
        if "not run" in block.marks:
            return
        if "output" in block.marks:
            self._compare(block)
        elif "file" in block.marks:
            self._write(block, text)
        elif block.kind == "yaml":
            check_job(self._scratch(block, text), block.where)
        elif block.kind in SHELL:
            self._command(block)
        elif block.kind == "python":
            self._python(block, text)
        else:
            raise AssertionError(f"{block.where}: a block of {block.kind} needs a comment above it: see tools/pages.py")

    def _write(self, block: Block, text: str) -> None:
        path = self.folder / block.marks["file"]
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        if block.kind == "yaml":
            load_job(path)

    def _scratch(self, block: Block, text: str) -> Path:
        path = self.folder / f"block-{block.line}.yaml"
        path.write_text(text, encoding="utf-8")
        return path

    def _command(self, block: Block) -> None:
        text = block.runnable if self.stand_in is None else block.runnable.replace(DEMO, str(self.stand_in))
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        env = {**os.environ, "PATH": path, "PYTHONPATH": str(ROOT / "engine")}
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", text], cwd=self.folder, env=env, text=True, encoding="utf-8",
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip
        self.printed = done.stdout
        expected = int(block.marks.get("fails", 0))
        assert done.returncode == expected, f"{block.where}: status {done.returncode}\n{text}\n{done.stdout}"

    def _python(self, block: Block, text: str) -> None:
        out = io.StringIO()
        code = compile("\n" * (block.line - 1) + text, str(ROOT / block.page), "exec")
        with contextlib.chdir(self.folder), contextlib.redirect_stdout(out):
            exec(code, self.names)
        self.printed = out.getvalue()

    def _compare(self, block: Block) -> None:
        if self.stand_in is not None:
            return  # another model, other figures
        flags = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
        same = doctest.OutputChecker().check_output(block.text, self.printed, flags)
        assert same, f"{block.where}: the page says\n{block.text}\nand this was printed:\n{self.printed}"


def check_job(path: Path, where: str) -> None:
    """Check a whole job, or a part of one in a job that has the rest."""
    given = yaml.safe_load(path.read_text(encoding="utf-8"))
    assert isinstance(given, dict) and set(given) <= set(Job.model_fields), f"{where}: is no part of a job"
    if not {"models", "datasets"} <= set(given):
        path.write_text(yaml.safe_dump({**MINIMAL, **given}), encoding="utf-8")
    try:
        load_job(path)
    except Exception as error:
        raise AssertionError(f"{where}: {error}") from error


def is_there(need: str) -> bool:
    """Whether a package of Python, a command, or a package of Node.js beside the project is installed."""
    if (ROOT / "node_modules" / need).is_dir():
        return shutil.which("node") is not None
    return importlib.util.find_spec(need) is not None


def furnish(folder: Path, text: str, model: Path, demo_store: Callable[[], Path]) -> None:
    """Put into a page's folder what the page takes for granted: a model of one's own, a job, the demo's store."""
    for name in ("my-local-model", "my-model"):
        if name in text or (name == "my-local-model" and "runs/job" in text):
            (folder / name).symlink_to(model)
    if "runs/job" in text or "reviews.jsonl" in text:
        rows = [json.dumps({"text": t, "label": t.split()[-1]}) for t in SENTENCES]
        (folder / "texts").mkdir()
        (folder / "texts" / "reviews.jsonl").write_text("\n".join(rows), encoding="utf-8")
        job = {
            "models": ["./my-local-model"],
            "datasets": {"reviews": "texts/reviews.jsonl"},
            "project": {"method": "pca"},
        }
        (folder / "job.yaml").write_text(yaml.safe_dump({**job, "measure": {"permutations": 9}}), encoding="utf-8")
    if "jobs/" in text:
        shutil.copytree(ROOT / "jobs", folder / "jobs")
    if (ROOT / "node_modules").is_dir():
        (folder / "node_modules").symlink_to(ROOT / "node_modules")
    if "runs/demo" in text:
        shutil.copytree(demo_store().parent, folder / "runs")

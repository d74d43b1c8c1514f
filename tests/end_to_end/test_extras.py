"""What pip would install for the extras: it must find one set of versions, without downloading it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from conftest import require

ROOT = Path(__file__).parents[2]
WANTED = {
    "all,gpu": {"torch", "transformers", "umap-learn", "datashader", "cuml-cu13"},
    "all,gpu-cu12": {"torch", "umap-learn", "cuml-cu12"},
    "all,ray": {"torch", "ray"},
    "vllm": {"vllm", "torch"},
}
UNREACHABLE = ("NewConnectionError", "NameResolutionError", "ConnectTimeoutError", "ProxyError", "Temporary failure")


@pytest.mark.parametrize(
    "extras", [name if name == "all,gpu" else pytest.param(name, marks=pytest.mark.long) for name in WANTED]
)
@pytest.mark.timeout(900)
def test_pip_finds_versions_for_an_extra(extras, tmp_path):
    report = tmp_path / "report.json"
    command = [sys.executable, "-m", "pip", "install", "--dry-run", "--ignore-installed", "--quiet", "--report"]
    done = subprocess.run([*command, report, f"{ROOT}[{extras}]"], capture_output=True, text=True, check=False)
    if any(word in done.stderr for word in UNREACHABLE):
        require("index", "pip reaches no package index")
    assert done.returncode == 0, done.stderr[-2000:]
    found = {item["metadata"]["name"].lower() for item in json.loads(report.read_text(encoding="utf-8"))["install"]}
    assert WANTED[extras] | {"drillcore"} <= found

"""The examples in docstrings are run, and the public functions have one."""

from __future__ import annotations

import doctest
import importlib
import json
import pkgutil
import shutil

import pytest
import yaml

import drillcore

# What runs inside vLLM's own environment, or on a GPU.
ELSEWHERE = ("drillcore.backends.vllm.worker", "drillcore.backends.vllm.engine", "drillcore.projections.cuml")
MODULES = [m.name for m in pkgutil.walk_packages(drillcore.__path__, "drillcore.") if m.name not in ELSEWHERE]


# Their examples use the files of `folder`.
WITH_FILES = tuple(name for name in MODULES if name.startswith("drillcore.api."))


@pytest.mark.parametrize("name", [n for n in MODULES if not n.endswith("__main__") and n not in WITH_FILES])
def test_examples_give_what_they_say(name):
    failed, _ = doctest.testmod(importlib.import_module(name), optionflags=doctest.ELLIPSIS)
    assert failed == 0


@pytest.fixture(scope="module")
def finished(models, tmp_path_factory):
    """A folder with `model`, a model's directory, `job.yaml`, which names it, and the job's store."""
    folder = tmp_path_factory.mktemp("examples")
    (folder / "model").symlink_to(models())
    rows = [{"text": f"the river {i} is", "label": "ab"[i % 2]} for i in range(12)]
    (folder / "sentences.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    job = {
        "store": "runs/job.zarr",
        "models": ["./model"],
        "datasets": {"sentences": "sentences.jsonl"},
        "measure": {"permutations": 9},
        "project": {"method": "pca"},
    }
    (folder / "job.yaml").write_text(yaml.safe_dump(job), encoding="utf-8")
    drillcore.run(folder / "job.yaml")
    return folder


@pytest.fixture
def folder(finished, tmp_path, monkeypatch):
    """A copy of it to work in."""
    shutil.copytree(finished, tmp_path, symlinks=True, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("name", WITH_FILES)
def test_examples_with_files_give_what_they_say(name, folder):
    module, names = importlib.import_module(name), {"drillcore": drillcore}
    failed, _ = doctest.testmod(module, extraglobs=names, optionflags=doctest.ELLIPSIS)
    assert failed == 0


@pytest.mark.parametrize("name", sorted({*drillcore.__all__} - {"Run", "__version__", "errors"}))
def test_public_functions_have_an_example_that_runs(name, folder):
    public = getattr(drillcore, name)
    (test,) = doctest.DocTestFinder(recurse=False).find(public, name, globs={"drillcore": drillcore, name: public})
    assert test.examples
    assert doctest.DocTestRunner(optionflags=doctest.ELLIPSIS).run(test).failed == 0

"""The public surface: small, guarded, and light to import."""

from __future__ import annotations

import importlib.metadata
import subprocess
import sys

import pytest

import drillcore

HEAVY = ("torch", "transformers", "zarr", "xarray", "numpy", "pyarrow", "pydantic", "rich", "datashader", "umap", "ray")


def test_the_surface_is_what_is_promised():
    functions = ["append", "compare", "doctor", "export", "extract", "measure", "merge", "move", "open"]
    functions += ["plan", "push", "remove", "run", "show", "verify"]
    shown = ["Extractor", "Job", "Run", "__version__", *functions[:3], "errors", *functions[3:]]
    assert sorted(drillcore.__all__) == shown
    assert all(getattr(drillcore, name) is not None and name in dir(drillcore) for name in drillcore.__all__)
    assert all(callable(getattr(drillcore, name)) for name in functions)
    with pytest.raises(AttributeError, match="no attribute 'shwo'"):
        drillcore.shwo  # noqa: B018


def test_the_version_is_that_of_the_distribution(monkeypatch):
    assert drillcore.__version__ == importlib.metadata.version("drillcore")

    def missing(name):
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.delattr(drillcore, "__version__")
    monkeypatch.setattr(importlib.metadata, "version", missing)
    assert drillcore.__version__ == "0+unknown"
    monkeypatch.delitem(vars(drillcore), "__version__")


@pytest.mark.parametrize("line", ["import drillcore", "import drillcore.cli.main"])
def test_nothing_heavy_is_imported_before_it_is_used(line):
    code = f"{line}; import sys; print([m for m in {HEAVY!r} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_errors_keep_their_hint_between_processes():
    import pickle

    error = pickle.loads(pickle.dumps(drillcore.errors.JobError("what", hint="do")))
    assert (str(error), error.hint, error.exit_status) == ("what", "do", 2)


def test_a_traceback_says_what_to_do_once():
    import traceback

    error = drillcore.errors.JobError("what", hint="do this")
    assert traceback.format_exception_only(error) == ["drillcore.errors.JobError: what\n", "do this\n"]
    assert traceback.format_exception_only(drillcore.errors.JobError("what")) == ["drillcore.errors.JobError: what\n"]

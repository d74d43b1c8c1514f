"""The public surface: small, guarded, and light to import."""

from __future__ import annotations

import subprocess
import sys

import pytest

import drillcore

HEAVY = ("torch", "transformers", "zarr", "xarray", "numpy", "pyarrow", "pydantic", "rich", "datashader", "umap", "ray")


def test_the_surface_is_what_is_promised():
    assert sorted(drillcore.__all__) == ["Extractor", "errors", "extract", "open", "run"]


@pytest.mark.parametrize("line", ["import drillcore", "import drillcore.cli.main"])
def test_nothing_heavy_is_imported_before_it_is_used(line):
    code = f"{line}; import sys; print([m for m in {HEAVY!r} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_errors_keep_their_hint_between_processes():
    import pickle

    error = pickle.loads(pickle.dumps(drillcore.errors.JobError("what", hint="do")))
    assert (str(error), error.hint, error.exit_status) == ("what", "do", 2)

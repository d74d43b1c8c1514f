"""The record of a run in one JSON file: resolved job, numerics, versions, devices, self-checks, seconds."""

from __future__ import annotations

import json
import platform
import sys
import time
from pathlib import Path
from typing import Any

from drillcore.errors import CommitError
from drillcore.job.fields import LoadedJob
from drillcore.system.bounds import objects_in, read_object
from drillcore.system.files import without_nan, write_atomic
from drillcore.system.versions import git_commit, versions


class Manifest:
    """Facts of a run, gathered as it goes and written when asked.

    earlier: what the last run wrote. worked: by stage, the groups (the models, in extract) that it has computed in this
    run, and not found up to date.
    """

    def __init__(self, path: Path, loaded: LoadedJob) -> None:
        self._path = path
        self.worked: dict[str, list[str]] = {}
        earlier = self.earlier = read_manifest(path)
        self.earlier_versions: dict[str, str] = earlier.get("versions", {})
        self.facts: dict[str, Any] = {
            "job": loaded.job.model_dump(mode="json", by_alias=True),
            "base": str(loaded.base.resolve()),
            "store": loaded.store,
            "command": sys.argv[1:],
            "started": time.strftime("%FT%T%z"),
            "versions": versions(),
            "git_commit": git_commit(),
            "host": {"system": platform.platform(), "machine": platform.machine()},
            # What an earlier run of this job recorded of models that this run need not load.
            "models": {k: v for k, v in earlier.get("models", {}).items() if k in {m.group for m in loaded.job.models}},
            "stages": earlier.get("stages", {}),
        }

    def record(self, *place: str, **facts: Any) -> None:
        """Add facts at a place such as ("models", name)."""
        target = self.facts
        for part in place:
            if not isinstance(target.get(part), dict):
                target[part] = {}
            target = target[part]
        target.update(facts)

    def did(self, stage: str, group: str) -> None:
        """Note that a stage has computed a group."""
        self.worked.setdefault(stage, []).append(group)

    def write(self, status: str) -> None:
        """Write the file; `status` is running, done, failed or interrupted. Raises CommitError."""
        ended = {} if status == "running" else {"ended": time.strftime("%FT%T%z")}
        facts = without_nan({**self.facts, "status": status, **ended})
        data = (json.dumps(facts, indent=2, ensure_ascii=False, default=str) + "\n").encode()
        try:
            write_atomic(self._path, data)
        except OSError as error:
            raise CommitError(
                f"{self._path} could not be written: {error.strerror or error}",
                hint="Free space or fix the folder, then run the same command again: what is committed is kept.",
            ) from error


def read_manifest(path: Path) -> dict[str, Any]:
    """The manifest of an earlier run; empty where there is none, or it is damaged.

    What later runs read of it has the kind that they expect: entries of another kind are left out.
    """
    facts = read_object(path)
    models = {name: _checked(model) for name, model in objects_in(facts.get("models")).items()}
    named = facts.get("versions")
    versions = {k: v for k, v in named.items() if isinstance(v, str)} if isinstance(named, dict) else {}
    return {**facts, "models": models, "stages": objects_in(facts.get("stages")), "versions": versions}


def _checked(model: dict[str, Any]) -> dict[str, Any]:
    """What was recorded of a model, without a self-check whose figure is no number."""
    check = model.get("self_check", {})
    error = check.get("worst_relative_error", 0.0) if isinstance(check, dict) else None
    return model if isinstance(error, int | float) else {k: v for k, v in model.items() if k != "self_check"}

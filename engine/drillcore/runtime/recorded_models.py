"""`drillcore verify --models`: the files of a store's models, read again as they are, against what the store records.

Nothing is taken from the cache of digests, and nothing is downloaded. The models are those of the job in the manifest
beside the store; a model of the hub is looked for at the commit that the states were computed with.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import zarr

from drillcore.backends import MODEL_DISTRIBUTIONS
from drillcore.backends.source import ModelSource, identity, locate, weights_folder
from drillcore.backends.weight_files import few
from drillcore.errors import DrillcoreError, ModelError
from drillcore.job.model import Model
from drillcore.runtime.audit import column_rows
from drillcore.runtime.continuing import around_of
from drillcore.runtime.recompute import Line, RecordedJob
from drillcore.runtime.stages.extract.recipes import Recipe, as_recorded, recorded
from drillcore.store.attributes import attributes_of
from drillcore.store.canaries import read_canaries
from drillcore.store.checks.finding import Finding
from drillcore.store.layout import read_array
from drillcore.system.versions import installed_versions
from drillcore.tokens.tokenizer import Tokenizer

# What a finding names in the place of an array.
MODEL = "model"
# Sentences of each dataset that are encoded again.
NUM_ENCODED = 64
PARTS = {
    "config": "configuration",
    "code": "Python files",
    "adapter_files": "adapter",
    "adapter_revision": "revision of the adapter",
    "gguf": "GGUF file",
    "quantization": "quantization",
    "random_weights": "setting random_weights",
}
AGAIN = "put back what the states were computed with, or compute them with this: `drillcore run JOB --overwrite`"
GONE = "put it back to run or recompute anything; the states themselves are read without it"


def check_models(root: zarr.Group, job: RecordedJob) -> Iterator[Finding | Line]:
    """Compare the files of every model with the store's record; yields a line for each model, or what is wrong."""
    by_name = {model.group: model for model in job.job.models}
    for name, group in sorted(root.groups()):
        if name not in by_name:
            yield f"{name}: its model is not compared: the last job does not name it"
            continue
        results = list(_Recorded(name, group).compare(by_name[name], job))
        yield from results
        if not any(isinstance(result, Finding) for result in results):
            yield f"{name}: configuration, weights and tokenizer are those that the store records"


@dataclass(frozen=True)
class _Recorded:
    """What the group of a model records of it."""

    name: str
    group: zarr.Group

    def compare(self, model: Model, job: RecordedJob) -> Iterator[Finding | Line]:
        """What differs from the files that there are."""
        try:
            recipes = [r for _, dataset in sorted(self.group.groups()) for r in recorded(attributes_of(dataset))]
            identities = [dict(r.request["model"]) for r in recipes] or [*self._of_canaries()]
        except (LookupError, TypeError, ValueError, AttributeError):
            yield Finding(self.name, MODEL, "the store's record of its files (recipes) is damaged; run the job")
            return
        if not identities:
            yield Finding(self.name, MODEL, "the store records nothing of its files; run the job, which records them")
            return
        revisions = {key: {i[key] for i in identities if i.get(key)} for key in ("revision", "adapter_revision")}
        asked = model.model_copy(update={key: min(found) for key, found in revisions.items() if found})
        try:
            source = locate(asked, job.base)
            if not model.random_weights and weights_folder(source) is None:
                raise ModelError(f"model {model.id}: its files are not in the local cache of the hub as a whole")
            now = identity(source, afresh=True)
        except (DrillcoreError, OSError) as error:
            yield Finding(self.name, MODEL, f"cannot be read, or is no longer there: {error}; {GONE}")
            return
        for what in dict.fromkeys(what for before in identities for what in _differences(before, now)):
            yield Finding(self.name, MODEL, f"{what}; {AGAIN}")
        yield from self._tokenizer(source, recipes, job)

    def _of_canaries(self) -> Iterator[dict[str, Any]]:
        """What the canaries' record tells; its configuration is written in another way."""
        canaries = read_canaries(self.group)
        if canaries is not None:
            yield {part: value for part, value in canaries.facts["model"].items() if part != "config"}

    def _tokenizer(self, source: ModelSource, recipes: list[Recipe], job: RecordedJob) -> Iterator[Finding | Line]:
        try:
            tokenizer = source.tokenizer(job.job.extract.special_tokens)
            wrong = list(self._other_tokens(tokenizer, source.facts.max_tokens, job))
        except DrillcoreError as error:
            yield Finding(self.name, MODEL, f"its tokenizer cannot be used: {error}; {AGAIN}")
            return
        for path, row in wrong:
            what = f"its tokenizer gives other tokens for sentence {row} of {path} than the store holds; {AGAIN}"
            yield Finding(self.name, MODEL, what)
        if wrong or all(r.policy.get("tokenizer") == tokenizer.recorded for r in recipes):
            return
        here = installed_versions(MODEL_DISTRIBUTIONS)
        if all({n: v for n, v in here.items() if r.request.get("versions", {}).get(n) != v} for r in recipes):
            yield f"{self.name}: its tokenizer is written otherwise under these versions, and gives the same tokens"
        else:
            what = f"its tokenizer is not the one that the store records; {NUM_ENCODED} sentences give the same tokens"
            yield Finding(self.name, MODEL, f"{what}; {AGAIN}")

    def _other_tokens(
        self, tokenizer: Tokenizer, max_tokens: int | None, job: RecordedJob
    ) -> Iterator[tuple[str, int]]:
        """A sentence of each dataset whose tokens are not those in the store: by their number and the last one."""
        by_name = {dataset.name: dataset for dataset in job.job.groups}
        limit = max_tokens if job.job.extract.too_long == "truncate" else None
        for name, group in sorted(self.group.groups()):
            around = around_of(by_name[name]) if name in by_name else None
            # A chat template that writes the date gives other tokens each day.
            if around is None or "text" not in group or tokenizer.date_in(around) is not None:
                continue
            lengths_N = read_array(group, "n_tokens")
            rows = np.unique(np.linspace(0, len(lengths_N) - 1, NUM_ENCODED).astype(np.int64))
            texts = [str(text) for text in column_rows(group, "text", rows)]
            last = column_rows(group, "last_token_id", rows)
            for row, ids, end in zip(rows.tolist(), tokenizer.encode(texts, around), last, strict=True):
                if len(ids[:limit]) != lengths_N[row] or ids[:limit][-1:] != [end]:
                    yield group.path, row
                    break


def _differences(before: dict[str, Any], now: dict[str, Any]) -> Iterator[str]:
    """What of a model is not as it was, each in a few words.

    >>> [*_differences({"weights": {"a": "1", "b": "2"}}, {"weights": {"a": "3", "c": "2"}})]
    ['its weights are not those that the store records: a has other bytes, b is gone, c is new']
    """
    now = as_recorded({"model": now}, {"model": before})["model"]
    for part in sorted({*before, *now} - ({"config"} if "config" not in before else set())):
        old, new = before.get(part), now.get(part)
        if isinstance(old, dict) and isinstance(new, dict):
            names = [f"{n} {_how(old.get(n), new.get(n))}" for n in sorted({*old, *new}) if old.get(n) != new.get(n)]
            if names:
                yield f"its {PARTS.get(part, part)} are not those that the store records: {few(names)}"
        elif old != new:
            yield f"its {PARTS.get(part, part)} is not the one that the store records"


def _how(old: str | None, new: str | None) -> str:
    return "has other bytes" if old and new else "is gone" if old else "is new"

"""The models of a job, found and examined; all that is wrong with them is reported at once."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

from drillcore.backends import check_weights
from drillcore.backends.source import ModelSource
from drillcore.errors import InputError
from drillcore.job.fields import LoadedJob
from drillcore.job.model import Model


def find_models(loaded: LoadedJob, find: Callable[[Model, Path], ModelSource]) -> dict[str, ModelSource]:
    """Where each model is, by its group in the store; raises ModelError that names every one that cannot be used."""
    sources, mistakes = {}, []
    for model in loaded.job.models:
        try:
            sources[model.group] = find(model, loaded.base)
        except InputError as error:
            mistakes.append(error)
    _raise_if_any(mistakes)
    return sources


def check_all_weights(loaded: LoadedJob, sources: Iterable[ModelSource]) -> None:
    """Refuse weights that are not whole, or lack what the job wants; raises what `check_weights` raises, for all."""
    predicts, mistakes = any(d.expected_next or d.candidates for d in loaded.job.datasets), list[InputError]()
    for source in sources:
        try:
            check_weights(source, predicts=predicts)
        except InputError as error:
            mistakes.append(error)
    _raise_if_any(mistakes)


def _raise_if_any(mistakes: list[InputError]) -> None:
    """Raise one error for several, of the kind of the first one."""
    if len(mistakes) > 1:
        hints = dict.fromkeys(m.hint for m in mistakes if m.hint)
        raise type(mistakes[0])("\n".join(dict.fromkeys(map(str, mistakes))), hint=" ".join(hints))
    if mistakes:
        raise mistakes[0]

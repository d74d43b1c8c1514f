"""What is refused before weights are streamed: settings or model. Imports nothing heavy."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.util import find_spec
from typing import TYPE_CHECKING

from drillcore.backends.adapters import ADAPTER
from drillcore.backends.transformers.plain_files import why_not_plain
from drillcore.errors import JobError, MissingExtraError
from drillcore.system.bounds import read_json

if TYPE_CHECKING:
    from drillcore.backends.source import ModelSource
    from drillcore.job.extract import Extract

FIELD = "extract.weights"
# How peft draws the first values of an adapter that are then read: in these ways it leaves the model as it is.
HARMLESS = (True, False, "gaussian", "orthogonal", "eva")
HINT = "Set extract.weights: resident; or save the model so that its own weights are plain numbers in files."


def check(source: ModelSource | None, extract: Extract) -> None:
    """Raise what refuses `extract.weights: streamed`, or `auto` whatever the model. source: None asks about settings.

    JobError for a setting or a model that does not go with it, MissingExtraError where a package is missing.
    """
    if find_spec("greenlet") is None:
        raise MissingExtraError(
            f"{FIELD}: {extract.weights} needs greenlet, which is not installed",
            hint="pip install 'drillcore[transformers]'",
        )
    if source is not None and extract.weights == "streamed":
        for reason in reasons(source):
            raise JobError(f"model {source.model.id}: {FIELD}: streamed {reason}", hint=HINT)


def reasons(source: ModelSource) -> Iterator[str]:
    """What of a model speaks against streaming it, as the end of a sentence."""
    from drillcore.backends.lengths import length_rules

    yield from why_not_plain(source, one_by_one=True)
    way = None if source.adapter is None else read_json(source.adapter.folder / ADAPTER).get("init_lora_weights", True)
    if way is not None and way not in HARMLESS:
        what = "an adapter that changes the model's own weights as it begins"
        yield f"does not go with {what} (init_lora_weights: {way})"
    if source.model.trust_remote_code:
        yield "does not go with trust_remote_code: how such a model's weights are converted is known to its code alone"
    if length_rules(source.config).scaled_above is not None:
        yield "does not go with dynamic NTK, by which a batch changes the positions of those that wait"

"""The predict stage: what needs the model again, next tokens and candidates."""

from __future__ import annotations

import time

from drillcore.runtime.context import Context
from drillcore.runtime.failures import Failures, check_whole
from drillcore.runtime.stages.predict.candidates import score_candidates
from drillcore.runtime.stages.predict.next_token import predict_next_tokens


def predict(context: Context) -> None:
    """Predict what changed since it was last predicted; datasets that name nothing to predict are passed over.

    Raises PartFailed, once all others are done, where some cannot be predicted.
    """
    started, failures = time.perf_counter(), Failures("predict")
    for pair in context.inputs.pairs:
        if pair.expected is None and pair.candidates is None:
            continue
        writer = context.store.dataset(pair.model.group, pair.dataset.name)
        with failures.of(writer.group.path):
            check_whole(writer)
            predict_next_tokens(context, pair, writer)
            score_candidates(context, pair, writer)
    failures.raise_if_any()
    context.manifest.record("stages", "predict", wall_seconds=round(time.perf_counter() - started, 3))

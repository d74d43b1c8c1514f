"""The predict stage: what needs the model again, next tokens and candidates."""

from __future__ import annotations

import time

from drillcore.runtime.context import Context
from drillcore.runtime.stages.predict.candidates import score_candidates
from drillcore.runtime.stages.predict.next_token import predict_next_tokens


def predict(context: Context) -> None:
    """Predict what changed since it was last predicted; datasets that name nothing to predict are passed over."""
    started = time.perf_counter()
    for pair in context.inputs.pairs:
        writer = context.store.dataset(pair.model.group, pair.dataset.name)
        predict_next_tokens(context, pair.model, writer)
        score_candidates(context, pair, writer)
    context.manifest.record("stages", "predict", wall_seconds=round(time.perf_counter() - started, 3))

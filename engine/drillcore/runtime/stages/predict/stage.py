"""The predict stage: what needs the model again, next tokens and candidates."""

from __future__ import annotations

import time

import numpy as np

from drillcore.errors import RunError
from drillcore.runtime.context import Context
from drillcore.runtime.failures import Failures, check_whole
from drillcore.runtime.preflight import Input
from drillcore.runtime.stages.predict.candidates import score_candidates
from drillcore.runtime.stages.predict.next_token import predict_next_tokens
from drillcore.store.group import GroupWriter
from drillcore.store.reader import column
from drillcore.texts.rows import row_ids


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
            _refuse_other_rows(context, pair, writer)
            predict_next_tokens(context, pair, writer)
            score_candidates(context, pair, writer)
    failures.raise_if_any()
    context.manifest.record("stages", "predict", wall_seconds=round(time.perf_counter() - started, 3))


def _refuse_other_rows(context: Context, pair: Input, writer: GroupWriter) -> None:
    """Raise RunError where the stored states are not those of the dataset's file as it is now."""
    rows = pair.rows
    wanted = {"row_id": row_ids(rows.texts(0, rows.num_rows))}
    if pair.expected is not None:
        wanted["expected_next"] = [
            "" if v is None else v for v in rows.slice(0, rows.num_rows)["expected_next"].to_pylist()
        ]
    for name, values in wanted.items():
        stored = column(writer.group, name)
        if stored is None or not np.array_equal(stored, np.array(values, object)):
            file = context.inputs.loaded.path(pair.dataset)
            raise RunError(
                f"{writer.group.path}: the store holds other rows than {file}", hint="Run `drillcore extract` first."
            )

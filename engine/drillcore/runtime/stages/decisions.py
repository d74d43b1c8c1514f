"""What the probe of each layer takes each sentence for: the array `probe_decision`.

Shape legend: N sentences, M labelled ones, T tested ones, L layers (as stored).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from drillcore.measures import PRIMARY
from drillcore.measures.draws import Draws
from drillcore.runtime.results import DECISIONS, read_separation
from drillcore.runtime.wanted import is_up_to_date
from drillcore.store.arrays import of_label
from drillcore.store.freshness import ResultInputs, stale
from drillcore.store.group import GroupWriter
from drillcore.store.reader import num_rows


def lacks_decisions(writer: GroupWriter, inputs: ResultInputs, label: str) -> bool:
    """Whether a probe decided about sentences of the group, and that is not stored."""
    measured = read_separation(writer.group, label)
    if measured is None or measured.of(PRIMARY) is None or "dataset" in measured.facts.get("split", {}):
        return False
    return not is_up_to_date(writer, (of_label(DECISIONS, label),), inputs, "")


def write_decisions(
    writer: GroupWriter,
    inputs: ResultInputs,
    label: str,
    draws: Draws,
    rows_M: NDArray[np.int64] | None,
    decided_LT: Sequence[NDArray[np.int16] | None],
) -> None:
    """Store the decisions of each layer; remove those of earlier settings where the probe decides about none now.

    rows_M: the sentences that are measured, None for all. decided_LT: of the tested ones of `draws`; None where a
    layer has no probe.
    """
    name = of_label(DECISIONS, label)
    if not lacks_decisions(writer, inputs, label):
        if stale(writer.group, name):
            writer.drop_results([name])
        return
    tested_T = draws.tested.rows_U
    rows_T = tested_T if rows_M is None else rows_M[tested_T]
    codes_LN = np.full((len(decided_LT), num_rows(writer.group)), -1, np.int16)
    for codes_N, decided_T in zip(codes_LN, decided_LT, strict=True):
        if decided_T is not None:
            codes_N[rows_T] = decided_T
    facts = {"inputs": inputs.record(), "labels": [str(v) for v in draws.labels], "sentences": len(rows_T)}
    writer.write_results(inputs.digest, {name: codes_LN}, {name: facts})

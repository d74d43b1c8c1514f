"""What `drillcore plan` says of models whose weights are streamed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from drillcore.api.estimates import Estimate
from drillcore.runtime.preflight import Inputs
from drillcore.system.columns import size_words
from drillcore.system.progress import counted


def streaming_notes(inputs: Inputs, groups: Sequence[Estimate]) -> Iterator[str]:
    """A line for each model whose weights are streamed, on what that takes at its most."""
    extract = inputs.loaded.job.extract
    if extract.weights == "resident":
        return
    from drillcore.backends.transformers.streamed.outlook import peaks_of

    for name, source in inputs.sources.items():
        mine = [e for e in groups if e.model == name and not e.is_done]
        nodes, rows = sum(e.num_nodes for e in mine), sum(e.num_rows for e in mine)
        peaks = peaks_of(source, extract, inputs.layers[name], nodes, rows) if mine else None
        if peaks is None:
            continue
        host = f", {size_words(peaks.host)} of host memory" if peaks.host else ""
        yield (
            f"{name}: weights are streamed, {counted(peaks.sweeps, 'sweeps')} of at most {peaks.nodes_per_sweep:,} "
            f"nodes; up to {size_words(peaks.device)} of the device{host}, {size_words(peaks.scratch)} of scratch disk"
        )

"""How fast a prepared backend is: whole passes over a block, or the rate of the first few seconds of one."""

from __future__ import annotations

import time

from drillcore.backends.base import Backend, Work
from drillcore.tokens.sequences import Sequences


def pass_seconds(backend: Backend, block: Sequences | Work) -> float:
    """Seconds of one pass over a block; laying it out counts too unless it is given laid out."""
    started = time.perf_counter()
    for _ in backend.run(block if isinstance(block, Work) else backend.lay_out(block)):
        pass
    return time.perf_counter() - started


def nodes_per_second(backend: Backend, work: Work, seconds: float) -> float:
    """Nodes, padding left out, that a pass computes in a second; the pass ends after about `seconds`.

    The first batch, in which things are compiled and allocated, is left out where there are more.
    """
    nodes, started = 0, time.perf_counter()
    for number, part in enumerate(backend.run(work)):
        if number == 0 and part.num_nodes < work.num_nodes:
            started = time.perf_counter()
            continue
        nodes += part.num_nodes
        if time.perf_counter() - started > seconds:
            break
    return nodes / max(time.perf_counter() - started, 1e-9)

"""How long sweeps take, from one that was timed."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Timing:
    """What one sweep took, in seconds: reading all layers, and computing `nodes` nodes through them."""

    read_seconds: float
    computed_seconds: float
    nodes: int
    num_layers: int

    def seconds(self, nodes: int, nodes_per_sweep: int) -> float:
        """Seconds of sweeps over so many nodes: each reads while it computes, but for its first layer.

        >>> timing = Timing(read_seconds=10.0, computed_seconds=2.0, nodes=1000, num_layers=10)
        >>> timing.seconds(1000, 5000), timing.seconds(50_000, 50_000), timing.seconds(100_000, 50_000)
        (11.0, 101.0, 202.0)
        """
        sweeps = max(1, math.ceil(nodes / max(1, nodes_per_sweep)))
        computed = self.computed_seconds * nodes / max(1, self.nodes)
        layer = self.read_seconds / max(1, self.num_layers)
        return max(sweeps * self.read_seconds, computed) + sweeps * layer

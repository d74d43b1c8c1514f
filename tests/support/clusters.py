"""Real Ray clusters of several nodes on this machine, by Ray's own utility."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

NODE = {"num_cpus": 1, "object_store_memory": 80 * 2**20}


@contextmanager
def ray_cluster(num_nodes: int = 2, **node: Any) -> Iterator[Any]:
    """A cluster of nodes of one core each (or of `node`); skips the test where Ray is not installed."""
    from conftest import require

    try:
        import ray
        from ray.cluster_utils import Cluster
    except ImportError:
        require("ray", "Ray is not installed")
    logging.getLogger("ray").setLevel(logging.ERROR)
    cluster = Cluster(initialize_head=True, head_node_args={**NODE, **node, "include_dashboard": False})
    try:
        for _ in range(num_nodes - 1):
            cluster.add_node(**{**NODE, **node})
        yield cluster
    finally:
        ray.shutdown()
        cluster.shutdown()

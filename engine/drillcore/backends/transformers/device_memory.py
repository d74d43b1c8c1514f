"""What a batch takes of a GPU's memory, and how many nodes fit: planned before it is used."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

# Nodes of a batch where memory does not limit it, and at least.
MOST_NODES, FEWEST_NODES = 32_768, 1024
# Part of the free memory that is planned for: kernels, compiled graphs and fragments take the rest.
PLANNED = 0.8
# Nodes whose states are kept, of all of a batch: texts of eight tokens that share nothing.
GATHERED = 1 / 8
# Batches whose states are on the device at a time: one that computes and one that is copied.
IN_FLIGHT = 2


@dataclass(frozen=True)
class NodeBytes:
    """Bytes of a GPU's memory that a node of a batch takes.

    activations: values of one decoder layer at a time, in float32 as the self-check computes them. states: of all
    wanted layers, in the model's dtype, for the nodes that are kept.
    """

    activations: int
    states: int

    @property
    def total(self) -> int:
        """Both."""
        return self.activations + self.states


def node_bytes(config: Any, hidden_size: int, num_layers: int, item_bytes: int) -> NodeBytes:
    """What a node takes.

    config: of the model. num_layers: wanted. item_bytes: of the model's dtype.
    """
    text = config.get_text_config(decoder=True)
    sizes = [getattr(text, name, None) for name in ("intermediate_size", "ffn_dim", "n_inner", "ffn_hidden_size")]
    inner = next((int(s) for s in sizes if isinstance(s, int) and s > 0), 4 * hidden_size)
    experts = getattr(text, "num_experts_per_tok", None)
    inner *= experts if isinstance(experts, int) and experts > 0 else 1
    # The residual stream and its sum, normed input, queries, keys, values, attended values, output; gate, up, product.
    activations = 4 * (8 * hidden_size + 3 * inner)
    return NodeBytes(activations, int(IN_FLIGHT * GATHERED * num_layers * hidden_size * item_bytes))


def fitting_nodes(free_bytes: int, node: NodeBytes) -> int:
    """Nodes of a batch for so much free memory: a power of two between the fewest and the most.

    >>> fitting_nodes(60 * 2**30, NodeBytes(300_000, 70_000)), fitting_nodes(6 * 2**30, NodeBytes(300_000, 70_000))
    (32768, 8192)
    """
    nodes = int(PLANNED * free_bytes) // node.total
    return max(FEWEST_NODES, min(MOST_NODES, 1 << max(0, nodes.bit_length() - 1)))


def free_bytes(device: torch.device) -> int:
    """Memory of a GPU that nothing holds, with what PyTorch keeps of freed tensors."""
    unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return int(torch.cuda.mem_get_info(device)[0]) + unused

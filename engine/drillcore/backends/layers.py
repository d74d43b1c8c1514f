"""The layer contract: which numbers layers have, what each means, and which ones a job asks for.

With L transformer blocks: 0 is the token embedding as it enters block 1, k = 1..L the residual stream after block k
before the final norm, L + 1 block L after the model's final norm.
"""

from __future__ import annotations

from collections.abc import Sequence

from drillcore.errors import JobError


def resolve_layers(wanted: str | Sequence[int], num_layers: int) -> tuple[int, ...]:
    """Layer numbers in ascending order for `all`, `hf` or a list.

    Raises JobError where a number is beyond L + 1.
    """
    if wanted == "all":
        return tuple(range(num_layers + 2))
    if wanted == "hf":
        return (*range(num_layers), num_layers + 1)
    numbers = tuple(sorted(int(k) for k in wanted))
    beyond = [k for k in numbers if not 0 <= k <= num_layers + 1]
    if beyond:
        raise JobError(
            f"layer {beyond[0]} is out of range: this model has {num_layers} blocks, so its layers are "
            f"0 (embed) to {num_layers + 1} (final_norm)",
            hint="Change extract.layers, or use `all`.",
        )
    return numbers


def layer_name(layer: int, num_layers: int) -> str:
    """`embed`, `block_k` or `final_norm`."""
    if layer == 0:
        return "embed"
    return "final_norm" if layer == num_layers + 1 else f"block_{layer}"

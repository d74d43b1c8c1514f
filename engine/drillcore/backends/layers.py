"""The layer contract: which numbers layers have, what each means, and which ones a job asks for.

With L decoder layers: 0 is the token embedding as it enters the first one, k = 1..L the residual stream after the k-th
one, before the final norm, and L + 1 the output of the last one after the model's final norm.
"""

from __future__ import annotations

from collections.abc import Sequence

from drillcore.errors import JobError


def resolve_layers(wanted: str | Sequence[int], num_layers: int) -> tuple[int, ...]:
    """The layer numbers that a job asks for, ascending.

    wanted: `all` for 0..L + 1, `hf` for those that transformers returns (0..L - 1 and L + 1), or a list of numbers.
    num_layers: L. Raises JobError where a number is greater than L + 1.

    >>> resolve_layers("all", 3)
    (0, 1, 2, 3, 4)
    >>> resolve_layers("hf", 3)
    (0, 1, 2, 4)
    >>> resolve_layers([2, 0], 3)
    (0, 2)
    """
    if wanted == "all":
        return tuple(range(num_layers + 2))
    if wanted == "hf":
        return (*range(num_layers), num_layers + 1)
    numbers = tuple(sorted(int(k) for k in wanted))
    beyond = [k for k in numbers if not 0 <= k <= num_layers + 1]
    if beyond:
        raise JobError(
            f"layer {beyond[0]} is out of range: this model has {num_layers} decoder layers, so its layers are "
            f"0 (embed) to {num_layers + 1} (final_norm)",
            hint="Change extract.layers, or use `all`.",
        )
    return numbers


def layer_name(layer: int, num_layers: int) -> str:
    """The name of a layer in stores and pictures: `embed`, `block_k` or `final_norm`.

    >>> [layer_name(k, 3) for k in (0, 1, 3, 4)]
    ['embed', 'block_1', 'block_3', 'final_norm']
    """
    if layer == 0:
        return "embed"
    return "final_norm" if layer == num_layers + 1 else f"block_{layer}"

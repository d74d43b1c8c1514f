"""The layer contract: which numbers layers have, what each means, and which ones a job asks for.

With L decoder layers: 0 is the token embedding as it enters the first one, k = 1..L the residual stream after the k-th
one, before the final norm, and L + 1 the output of the last one after the model's final norm.
"""

from __future__ import annotations

from collections.abc import Sequence

from drillcore.errors import JobError


def resolve_layers(wanted: str | Sequence[int | str], num_layers: int) -> tuple[int, ...]:
    """The layer numbers that a job asks for, ascending.

    wanted: `all` for 0..L + 1, `hf` for those that transformers returns (0..L - 1 and L + 1), or a list of numbers and
    names; -1 is layer L + 1. num_layers: L. Raises JobError where the model has no such layer, or one is named twice.

    >>> resolve_layers("all", 3)
    (0, 1, 2, 3, 4)
    >>> resolve_layers("hf", 3)
    (0, 1, 2, 4)
    >>> resolve_layers([2, 0], 3)
    (0, 2)
    >>> resolve_layers([-1, "block_2", "embed"], 3)
    (0, 2, 4)
    """
    if wanted == "all":
        return tuple(range(num_layers + 2))
    if wanted == "hf":
        return (*range(num_layers), num_layers + 1)
    numbers = {each: number_of(each, num_layers) for each in wanted}
    beyond = [each for each, k in numbers.items() if not 0 <= k <= num_layers + 1 or each == f"block_{num_layers + 1}"]
    if beyond:
        raise JobError(
            f"layer {beyond[0]} is out of range: this model has {num_layers} decoder layers, so its layers are "
            f"0 (embed) to {num_layers + 1} (final_norm)",
            hint="Change extract.layers, or use `all`.",
        )
    twice = [each for each, k in numbers.items() if list(numbers.values()).count(k) > 1]
    if twice:
        raise JobError(
            f"extract.layers: {' and '.join(map(str, twice))} are the same layer of this model, which has {num_layers} "
            "decoder layers",
            hint="Name each layer once.",
        )
    return tuple(sorted(numbers.values()))


def number_of(layer: int | str, num_layers: int) -> int:
    """The number of a layer by its number, counted from the end where it is negative, or by its name."""
    if layer == "embed":
        return 0
    if layer == "final_norm":
        return num_layers + 1
    number = int(layer.removeprefix("block_")) if isinstance(layer, str) else layer
    return number if number >= 0 else num_layers + 2 + number


def layer_name(layer: int, num_layers: int) -> str:
    """The name of a layer in stores and pictures: `embed`, `block_k` or `final_norm`.

    >>> [layer_name(k, 3) for k in (0, 1, 3, 4)]
    ['embed', 'block_1', 'block_3', 'final_norm']
    """
    if layer == 0:
        return "embed"
    return "final_norm" if layer == num_layers + 1 else f"block_{layer}"

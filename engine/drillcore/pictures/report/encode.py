"""Points, labels and texts in the form that the page of the report reads: small, deflated, base64.

Owns the format: a blob is zlib data in base64. Numbers of 16 bits are written as all low bytes and then all high bytes,
which deflates better. Lengths are not in the blob; the page has them from its metadata.

Shape legend: N points, 2 axes.
"""

from __future__ import annotations

import base64
import json
import zlib
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from drillcore.pictures.frame import Frame, outside

LARGEST = 65_534
MISSING = 65_535


def quantised(points_N2: NDArray[np.float32], frame: Frame | None = None) -> NDArray[np.uint16]:
    """Points within the frame of their panel, 0 to 65,534 on each axis: uint16 [2, N], first all x, then all y.

    A point that is not finite is 65,535 on both axes; one outside of the frame is at its edge.

    >>> quantised(np.array([[0, 0], [9, 9], [np.nan, 0]], np.float32))
    array([[ 3277, 62257, 65535],
           [ 3277, 62257, 65535]], dtype=uint16)
    """
    frame = frame or Frame.around(points_N2) or Frame(0.0, 0.0, 1.0)
    unit_N2 = frame.unit(points_N2)
    finite_N = np.isfinite(unit_N2[:, 0]) & np.isfinite(unit_N2[:, 1])
    scaled_N2 = np.rint(np.where(finite_N[:, None], unit_N2, 0) * LARGEST).clip(0, LARGEST).astype(np.uint16)
    scaled_N2[~finite_N] = MISSING
    return np.ascontiguousarray(scaled_N2.T)


def outsiders(points_K2: NDArray[np.float32], frame: Frame | None) -> list[tuple[int, float, float]]:
    """The points outside of the frame: number, and place in units of its side, x to the right and y upwards.

    >>> outsiders(np.array([[0, 0], [9, 3]], np.float32), Frame(0.0, 0.0, 1.0, is_whole=False))
    [(1, 5.0, 2.0)]
    """
    if frame is None or frame.is_whole:
        return []
    unit_K2 = frame.unit(points_K2)
    return [(int(k), float(f"{unit_K2[k, 0]:.5g}"), float(f"{unit_K2[k, 1]:.5g}")) for k in outside(unit_K2)]


def packed_numbers(arrays: Iterable[NDArray[np.uint16]]) -> bytes:
    """A blob of 16-bit numbers, one array after the other."""
    flat = [np.zeros(0, np.uint16), *(np.ravel(array) for array in arrays)]
    low_and_high = np.concatenate(flat).astype("<u2").view(np.uint8).reshape(-1, 2)
    return _blob(np.ascontiguousarray(low_and_high.T).tobytes())


def packed_indexes(arrays: Sequence[NDArray[np.int32]], count: int) -> bytes:
    """A blob of the nearest sentences [N, J] of each layer, of as few bytes each as `count` sentences need.

    -1 is the largest number of that size. Of two bytes they are 16-bit numbers, of four two of these each. Of one byte
    they are ranks: each sentence has a list of all, in which those that were near at the layers before stand first.
    """
    width = index_bytes(count)
    if width == 1:
        # Ranks hardly repeat in a row: without a search for repeats they get smaller by a tenth.
        return _blob(_ranks(np.stack(arrays), count).tobytes() if arrays else b"", zlib.Z_HUFFMAN_ONLY)
    dtype = {2: "<u2", 4: "<u4"}[width]
    return packed_numbers(np.ravel(array).astype(dtype).view("<u2") for array in arrays)


def _ranks(nearest_LNJ: NDArray[np.int32], count: int) -> NDArray[np.uint8]:
    """Numbers of sentences as places in a list of those that have not been named at the layer, moved to its front."""
    ranks_LNJ = np.full(nearest_LNJ.shape, 255, np.uint8)
    for i in range(nearest_LNJ.shape[1]):
        order = list(range(count))
        for k, row in enumerate(nearest_LNJ[:, i].tolist()):
            for j, number in enumerate(row):
                if number < 0:
                    continue
                place = order.index(number, j)
                order.insert(j, order.pop(place))
                ranks_LNJ[k, i, j] = place - j
    return ranks_LNJ


def index_bytes(count: int) -> int:
    """Bytes of the number of a sentence, and of the mark for none.

    >>> index_bytes(255), index_bytes(256), index_bytes(70_000)
    (1, 2, 4)
    """
    return 1 if count < 256 else 2 if count < 65_536 else 4


def packed_texts(texts: Sequence[str]) -> bytes:
    """A blob of texts, a JSON array."""
    return _blob(json.dumps(list(texts), ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace"))


def _blob(data: bytes, strategy: int = zlib.Z_DEFAULT_STRATEGY) -> bytes:
    packer = zlib.compressobj(9 if len(data) < 1 << 20 else 6, strategy=strategy)
    return base64.b64encode(packer.compress(data) + packer.flush())


def cut_length(texts: Sequence[str], budget: int) -> int | None:
    """The greatest length in characters to which texts can be cut so that all fit the budget, but at least 16.

    None where no text need be cut. budget: characters of all texts together.

    >>> cut_length(["a" * 100, "b" * 10], 60)
    50
    """
    lengths = np.sort(np.fromiter((len(text) for text in texts), np.int64, len(texts)))
    if lengths.sum() <= budget:
        return None
    # Where the k shortest texts stay whole, the others have equal shares of the rest.
    whole = np.concatenate([[0], np.cumsum(lengths)[:-1]])
    shares = (budget - whole) // np.arange(len(lengths), 0, -1)
    return max(int(shares[np.argmax(shares < lengths)]), 16)


def cut(text: str, length: int | None) -> str:
    """The text, or its beginning with an ellipsis where it is longer than `length`.

    >>> cut("Montreal", 4), cut("Montreal", None)
    ('Mon…', 'Montreal')
    """
    return text if length is None or len(text) <= length else text[: length - 1] + "…"


def script_json(value: Any) -> str:
    """JSON for a script element: nothing in it can end the element or begin a comment.

    >>> print(script_json(["</script>"]))
    ["\\u003c/script\\u003e"]
    """
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text.encode("utf-8", "replace").decode("utf-8")


def numbers(values: NDArray[Any] | None) -> list[float | int | None] | None:
    """Numbers for JSON, with five digits; NaN and infinities become None.

    >>> numbers(np.array([0.12345678, np.nan]))
    [0.12346, None]
    """
    if values is None:
        return None
    return [float(f"{v:.5g}") if np.isfinite(v) else None for v in values.tolist()]

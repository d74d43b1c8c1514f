"""PNG files written stripe by stripe, so that a picture of any height takes only the memory of one stripe.

Owns the file format (W3C PNG, 8-bit RGB, no interlace) and the replacement of an old file in one step.

Shape legend: Y rows and X columns of pixels, 3 red-green-blue.
"""

from __future__ import annotations

import struct
import zlib
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType

import numpy as np
from numpy.typing import NDArray

from drillcore.system.files import replacing

ROWS_AT_ONCE = 64


class PngWriter:
    """Writes a picture of known size from the top down; the file appears at `path` once all of it is written.

    width, height: in pixels. The same pixels give the same bytes. Raises ValueError for stripes that do not fit,
    OSError where the file cannot be written.
    """

    def __init__(self, path: Path, width: int, height: int) -> None:
        self.path = path
        self.width = width
        self.height = height
        self._rows = 0
        self._compress = zlib.compressobj(6)

    def __enter__(self) -> PngWriter:
        with ExitStack() as exits:
            scratch = exits.enter_context(replacing(self.path))
            self._file = exits.enter_context(scratch.open("wb"))
            self._file.write(b"\x89PNG\r\n\x1a\n")
            self._chunk(b"IHDR", struct.pack(">IIBBBBB", self.width, self.height, 8, 2, 0, 0, 0))
            exits.push(self._finish)
            self._exits = exits.pop_all()
        return self

    def write(self, pixels_YX3: NDArray[np.uint8]) -> None:
        """Append a stripe: uint8 [rows, width, 3]."""
        if pixels_YX3.dtype != np.uint8 or pixels_YX3.shape[1:] != (self.width, 3):
            raise ValueError(f"stripe of {pixels_YX3.dtype} {pixels_YX3.shape} in a picture {self.width} px wide")
        self._rows += len(pixels_YX3)
        for start in range(0, len(pixels_YX3), ROWS_AT_ONCE):
            part = pixels_YX3[start : start + ROWS_AT_ONCE].reshape(-1, self.width * 3)
            # Byte 0 of a line names its filter; scattered points compress best without one.
            lines = np.pad(part, ((0, 0), (1, 0)))
            self._chunk(b"IDAT", self._compress.compress(lines.tobytes()))

    def _chunk(self, kind: bytes, data: bytes) -> None:
        if data or kind != b"IDAT":
            self._file.write(struct.pack(">I", len(data)) + kind + data)
            self._file.write(struct.pack(">I", zlib.crc32(kind + data)))

    def _finish(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            if self._rows != self.height:
                raise ValueError(f"{self._rows} of {self.height} rows were written")
            self._chunk(b"IDAT", self._compress.flush())
            self._chunk(b"IEND", b"")

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._exits.__exit__(kind, error, trace)

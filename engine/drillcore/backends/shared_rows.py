"""Rows of hidden states in memory that two processes share: vLLM's first worker writes them, the backend reads them.

Nothing is pickled: a request's answer is the number of its row alone. The file has no name once both sides have it
open, so nothing is left behind however they end.

Shape legend: C rows of the file, K layers, H hidden size.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from drillcore.errors import RunError

SHARED_MEMORY = Path("/dev/shm")


@dataclass(frozen=True)
class RowsFile:
    """Where the rows are: plain data that travels to the worker. dtype: numpy's name of it."""

    path: str
    num_rows: int
    num_layers: int
    hidden_size: int
    dtype: str

    @property
    def num_bytes(self) -> int:
        """Size of the file: the rows, then their largest magnitudes."""
        return self.num_rows * self.num_layers * (self.hidden_size * np.dtype(self.dtype).itemsize + 4)


class SharedRows:
    """Rows of one file, mapped. values_CKH: the states; absmax_CK: float32, their largest magnitudes."""

    def __init__(self, file: RowsFile) -> None:
        self.file = file
        shape = (file.num_rows, file.num_layers, file.hidden_size)
        whole: NDArray[np.uint8] = np.memmap(file.path, np.uint8, "r+", shape=(file.num_bytes,))
        split = file.num_bytes - 4 * shape[0] * shape[1]
        self.values_CKH: NDArray[Any] = whole[:split].view(file.dtype).reshape(shape)
        self.absmax_CK: NDArray[np.float32] = whole[split:].view(np.float32).reshape(shape[:2])

    @staticmethod
    def create(num_rows: int, num_layers: int, hidden_size: int, dtype: str) -> SharedRows:
        """Make the file, in shared memory where there is room (containers often have 64 MB).

        Raises RunError where there is room nowhere.
        """
        wanted = RowsFile("", num_rows, num_layers, hidden_size, dtype)
        error: OSError | None = None
        for folder in (SHARED_MEMORY, Path(tempfile.gettempdir())):
            if not folder.is_dir() or shutil.disk_usage(folder).free < 2 * wanted.num_bytes:
                continue
            try:
                handle, path = tempfile.mkstemp(prefix="drillcore-rows-", dir=folder)
            except OSError as failure:
                error = failure
                continue
            try:
                os.posix_fallocate(handle, 0, wanted.num_bytes)
                return SharedRows(RowsFile(path, num_rows, num_layers, hidden_size, dtype))
            except OSError as failure:
                Path(path).unlink()
                error = failure
            finally:
                os.close(handle)
        raise RunError(
            f"there is no room for {wanted.num_bytes / 2**20:,.0f} MiB of rows in shared memory or for temporary files",
            hint="Give the container more shared memory (--shm-size), or set TMPDIR to a larger disk.",
        ) from error

    def forget(self) -> None:
        """Take away the file's name; the rows stay for whoever has them mapped."""
        Path(self.file.path).unlink(missing_ok=True)

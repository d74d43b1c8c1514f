"""Rows of hidden states in memory that two processes share: vLLM's first worker writes them, the backend reads them.

Nothing is pickled: the answer to a request is just the number of its row. The file is in memory and has no name, so
nothing is left behind however the processes end, and a small /dev/shm of a container does not matter.

Shape legend: C rows of the file, K layers, H hidden size.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from drillcore.errors import RunError


@dataclass(frozen=True)
class RowsFile:
    """Where the rows are: plain data that is sent to the worker.

    path: of the open file. num_wanted: layers of a row. dtype: numpy's name of it.
    """

    path: str
    num_rows: int
    num_wanted: int
    hidden_size: int
    dtype: str

    @property
    def num_bytes(self) -> int:
        """Size of the file: the rows, then their largest magnitudes."""
        return self.num_rows * self.num_wanted * (self.hidden_size * np.dtype(self.dtype).itemsize + 4)


class SharedRows:
    """Rows of one file, mapped. values_CKH: the states; absmax_CK: float32, their largest magnitudes."""

    def __init__(self, file: RowsFile) -> None:
        self.file = file
        self._handle: int | None = None
        shape = (file.num_rows, file.num_wanted, file.hidden_size)
        whole: NDArray[np.uint8] = np.memmap(file.path, np.uint8, "r+", shape=(file.num_bytes,))
        split = file.num_bytes - 4 * shape[0] * shape[1]
        self.values_CKH: NDArray[Any] = whole[:split].view(file.dtype).reshape(shape)
        self.absmax_CK: NDArray[np.float32] = whole[split:].view(np.float32).reshape(shape[:2])

    @staticmethod
    def create(num_rows: int, num_wanted: int, hidden_size: int, dtype: str) -> SharedRows:
        """Make the file; another process of this user can map it until `settled` is called.

        Raises RunError where there is no room.
        """
        file = RowsFile("", num_rows, num_wanted, hidden_size, dtype)
        handle = os.memfd_create("drillcore-rows")
        try:
            os.ftruncate(handle, file.num_bytes)
            rows = SharedRows(replace(file, path=f"/proc/{os.getpid()}/fd/{handle}"))
        except OSError as error:
            os.close(handle)
            raise RunError(
                f"there is no room for {file.num_bytes / 2**20:,.0f} MiB of rows in memory",
                hint="Free memory, or ask for fewer layers.",
            ) from error
        rows._handle = handle
        return rows

    def settled(self) -> None:
        """Both sides have mapped the rows: close the file, so that no other process can."""
        if self._handle is not None:
            os.close(self._handle)
            self._handle = None

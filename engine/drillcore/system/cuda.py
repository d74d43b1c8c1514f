"""What the NVIDIA driver of this machine supports, asked without PyTorch."""

from __future__ import annotations

import ctypes
import sys

LIBRARY = "nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1"


def driver_cuda() -> tuple[int, int] | None:
    """The newest CUDA version that the driver runs, as (major, minor); None where there is no driver."""
    try:
        library = ctypes.CDLL(LIBRARY)
        version = ctypes.c_int()
        failed = library.cuDriverGetVersion(ctypes.byref(version))
    except (OSError, AttributeError):
        return None
    return None if failed or version.value <= 0 else (version.value // 1000, version.value % 1000 // 10)

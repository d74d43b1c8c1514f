"""Where a store is: a folder on this machine, or a key prefix in an S3 bucket.

Owns opening it for Zarr, durable writes, and what lies beside it.
"""

from __future__ import annotations

import asyncio
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from zarr.abc.store import Store
from zarr.core.buffer import Buffer
from zarr.storage import LocalStore, ObjectStore

from drillcore.errors import StoreError


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


class DurableStore(LocalStore):
    """A LocalStore whose writes are on disk when they return: zarr renames atomically but never flushes."""

    async def set(self, key: str, value: Buffer) -> None:
        """Write and flush the file, then its folder, so that a fingerprint never outlives its data."""
        await super().set(key, value)
        path = Path(self.root) / key
        await asyncio.to_thread(_flush, path)
        await asyncio.to_thread(_flush, path.parent)


@dataclass(frozen=True)
class Location:
    """A store's place; `address` is a path or s3://bucket/key."""

    address: str

    @property
    def is_s3(self) -> bool:
        """Whether it lies in object storage."""
        return self.address.startswith("s3://")

    @property
    def path(self) -> Path:
        """The folder of a local store."""
        return Path(self.address)

    @property
    def stem(self) -> str:
        """Name of the folder beside the store for manifest, pictures, report, logs and lock."""
        return Path(self.address.rstrip("/")).stem

    def beside(self, out: Path | None = None) -> Path:
        """The folder beside the store, or within `out` for one on S3."""
        if out is not None:
            return out
        return Path("runs") / self.stem if self.is_s3 else self.path.parent / self.stem

    def open(self, *, read_only: bool = False) -> Store:
        """The Zarr store; raises StoreError where the place cannot hold one."""
        if self.is_s3:
            return _open_s3(self.address, read_only)
        if self.path.exists() and not self.path.is_dir():
            raise StoreError(f"store {self.address} is a file", hint="Name a folder that is not there yet.")
        return LocalStore(self.path, read_only=True) if read_only else DurableStore(self.path)


def _open_s3(address: str, read_only: bool) -> Store:
    from obstore.store import S3Store

    bucket, _, key = address.removeprefix("s3://").partition("/")
    if not bucket or not key.strip("/"):
        raise StoreError(f"store {address} names no bucket and key", hint="s3://bucket/path/name.zarr")
    options: dict[str, Any] = {}
    endpoint = os.environ.get("AWS_ENDPOINT_URL", "")
    if endpoint.startswith("http://"):
        options["client_options"] = {"allow_http": True}
    return ObjectStore(S3Store(bucket, prefix=key.strip("/"), **options), read_only=read_only)

"""Where a store is: a folder on this machine, a key prefix in an S3 bucket, or, for reading, a data set of the hub.

Owns opening it for Zarr, and what lies beside it.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from zarr.abc.store import Store
from zarr.storage import LocalStore

from drillcore.errors import CommitError, StoreError
from drillcore.store.places.hold import Hold
from drillcore.store.places.local import DurableStore
from drillcore.system.bounds import problem_with_folder, read_object, real_path
from drillcore.system.files import digest

BUCKET = re.compile(r"[a-z0-9][a-z0-9._-]{1,62}")


@dataclass(frozen=True)
class Location:
    """A store's place; `address` is a path, s3://bucket/key, or hf://datasets/org/name.

    hold: of the run that has locked it; what is opened for writing writes only while the run holds it.
    """

    address: str
    hold: Hold | None = field(default=None, compare=False, repr=False)

    @property
    def is_s3(self) -> bool:
        """Whether it lies in object storage."""
        return self.address.startswith("s3://")

    @property
    def is_hub(self) -> bool:
        """Whether it lies on the Hugging Face hub, where stores are read only."""
        return self.address.startswith("hf://")

    @property
    def is_remote(self) -> bool:
        """Whether it is no folder of this machine."""
        return self.is_s3 or self.is_hub

    @property
    def path(self) -> Path:
        """The folder of a local store."""
        return Path(self.address)

    @property
    def bucket_and_key(self) -> tuple[str, str]:
        """Bucket and key; raises StoreError for a wrong address, and never repeats credentials that it holds."""
        bucket, _, key = self.address.removeprefix("s3://").partition("/")
        key = key.strip("/")
        if "@" in bucket or ":" in bucket:
            raise StoreError(
                "the store's address holds credentials",
                hint="Leave them out: they are read from AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY.",
            )
        if not BUCKET.fullmatch(bucket) or not key:
            raise StoreError(
                f"store {self.address} does not name a bucket and a key", hint="s3://bucket/path/name.zarr"
            )
        if any(part in ("", ".", "..") for part in key.split("/")):
            raise StoreError(
                f"store {self.address}: a key may not have empty, . or .. parts", hint="s3://bucket/path/x.zarr"
            )
        return bucket, key

    @property
    def stem(self) -> str:
        """Name of the folder beside the store for manifest, pictures, report and logs.

        >>> Location("runs/cities.zarr").stem, Location("runs/cities.1").stem
        ('cities', 'cities.1.run')
        """
        name = PurePosixPath(self.address.rstrip("/")).name
        stem = name.removesuffix(".zarr")
        return stem if stem not in ("", name) else f"{name}.run"

    def beside(self, out: Path | None = None, base: Path | None = None) -> Path:
        """The folder beside the store, unless `out` names one.

        base: folder of the job file, below which a store on S3 has its folder; by default the working directory. That
        folder is of one bucket, key and endpoint: stores of equal name are told apart by a digest of these. A folder
        that an earlier version filled for this very store, under another name, stays in use.
        """
        if out is not None:
            return out
        parent = (base or Path()) / "runs" if self.is_remote else self.path.parent
        former = parent / self._former_stem
        if self.is_hub:
            return parent / f"{former.name}-{digest([self.address])[:8]}"
        if not self.is_s3:
            return former if former.name != self.stem and self._is_of(former) else parent / self.stem
        if self._is_of(former):
            return former
        place = digest([s3_endpoint(), *self.bucket_and_key])
        return parent / f"{former.name}-{place[:8]}"

    @property
    def _former_stem(self) -> str:
        """What earlier versions called the folder beside the store: any suffix was left out."""
        name = PurePosixPath(self.address.rstrip("/")).name
        stem = PurePosixPath(name).stem
        return stem if stem != name else f"{name}.run"

    def _is_of(self, folder: Path) -> bool:
        """Whether the manifest in a folder is of this store."""
        named = read_object(folder / "manifest.json").get("store")
        if not isinstance(named, str) or "\0" in named:
            return False
        return Location(named.rstrip("/")).identity == Location(self.address.rstrip("/")).identity

    @property
    def identity(self) -> str:
        """The address without links and relative parts: one for a store, however it is named."""
        return self.address if self.is_remote else str(real_path(self.path))

    @property
    def bookkeeping(self) -> Path:
        """Folder of the lock and of `verify`'s note: one for a store, whatever link or --out a run names."""
        return Location(self.identity).beside()

    def open(self, *, read_only: bool = False) -> Store:
        """The Zarr store; raises StoreError where the place cannot hold one."""
        if self.is_s3:
            from drillcore.store.places.s3 import S3Place, open_bucket

            return S3Place(open_bucket(*self.bucket_and_key), read_only=read_only, hold=self.hold)
        if self.is_hub:
            from drillcore.store.places.hub import open_hub

            if not read_only:
                raise read_only_place(self.address)
            return open_hub(self.address)
        self.check()
        root = real_path(self.path)  # the target of a link need not exist yet
        return LocalStore(root, read_only=True) if read_only else DurableStore(root, hold=self.hold)

    def check(self) -> None:
        """Raise StoreError where the address cannot be that of a store; writes nothing."""
        if self.is_hub:
            from drillcore.store.places.hub import HubAddress

            HubAddress.of(self.address)
        elif self.is_s3:
            _ = self.bucket_and_key
        elif problem := problem_with_folder(self.path):
            raise StoreError(f"store {self.address} {problem}", hint="Name a folder that does not exist yet.")


def read_only_place(address: str) -> StoreError:
    """The error for a store on the hub that is to be written."""
    return StoreError(
        f"{address} is on the hub, where stores are read only",
        hint="Run into a folder or a bucket; `drillcore push` puts a finished store there.",
    )


def s3_endpoint() -> str:
    """Address of the object storage; empty for Amazon's own."""
    return os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL") or ""


def make_folder(folder: Path) -> None:
    """Create the folder beside a store; raises CommitError where that fails."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise CommitError(
            f"{folder} could not be created: {error.strerror or error}",
            hint="Fix the folder, or name another one with --out.",
        ) from error

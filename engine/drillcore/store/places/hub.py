"""A store in a data set of the Hugging Face hub, for reading: whole files and ranges of them, at one commit."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass
from pathlib import PurePosixPath

from zarr.abc.buffer import Buffer, BufferPrototype
from zarr.abc.store import ByteRequest, OffsetByteRequest, RangeByteRequest, Store

from drillcore.errors import StoreError
from drillcore.system.hub import asking, commit_of

PREFIX = "hf://"
FORM = "hf://datasets/ORG/NAME, with @REVISION and a path below it where they are needed"
# Small files and ranges are kept in memory, since opening a store reads its documents dozens of times. All are dropped
# when together they would be larger than this.
KEPT_BYTES, KEPT_TOGETHER = 2**20, 64 * 2**20
ADDRESS = re.compile(r"hf://datasets/([\w.-]+/[\w.-]+)(?:@([\w./-]+?))?(?:/+([^@]*))?")


@dataclass(frozen=True)
class HubAddress:
    """A place on the hub. repo: `org/name` of the data set. revision: branch, tag or commit. path: below its root."""

    repo: str
    revision: str
    path: str

    @classmethod
    def of(cls, address: str) -> HubAddress:
        """From an address; raises StoreError.

        >>> HubAddress.of("hf://datasets/org/name@v1/runs/job.zarr")
        HubAddress(repo='org/name', revision='v1', path='runs/job.zarr')
        """
        found = ADDRESS.fullmatch(address.rstrip("/"))
        path = "" if found is None else (found[3] or "").strip("/")
        if found is None or (path and any(part in ("", ".", "..") for part in path.split("/"))):
            raise StoreError(f"{address} is no place in a data set of the hub", hint=f"Write {FORM}.")
        return cls(found[1], found[2] or "main", path)


class HubPlace(Store):
    """Zarr's view of a folder of a data set, read-only; raises StoreError where the hub refuses or cannot be reached.

    commit: that is read, whatever the branch holds meanwhile. What was read of it is asked for once, if it is small:
    at a commit nothing changes.
    """

    supports_writes = False
    supports_deletes = False
    supports_listing = True

    def __init__(self, repo: str, commit: str, path: str) -> None:
        super().__init__(read_only=True)
        self.repo, self.commit, self.path = repo, commit, path
        self._kept: dict[tuple[str, ByteRequest | None], bytes | None] = {}
        self._kept_bytes = 0

    def __eq__(self, other: object) -> bool:
        return isinstance(other, HubPlace) and str(self) == str(other)

    def __reduce__(self) -> tuple[type[HubPlace], tuple[str, str, str]]:
        return HubPlace, (self.repo, self.commit, self.path)

    def __str__(self) -> str:
        return f"{PREFIX}datasets/{self.repo}@{self.commit}/{self.path}".rstrip("/")

    def _name(self, key: str) -> str:
        return str(PurePosixPath(self.path, key)) if key else self.path

    async def get(self, key: str, prototype: BufferPrototype, byte_range: ByteRequest | None = None) -> Buffer | None:
        """Bytes of a file, or of a range of it; None where there is no such file."""
        asked = (key, byte_range)
        if asked in self._kept:
            data = self._kept[asked]
        else:
            data = await asyncio.to_thread(_fetch, self.repo, self.commit, self._name(key), byte_range)
            self._keep(asked, data)
        return None if data is None else prototype.buffer.from_bytes(data)

    def _keep(self, asked: tuple[str, ByteRequest | None], data: bytes | None) -> None:
        size = len(data or b"")
        if size > KEPT_BYTES:
            return
        if self._kept_bytes + size > KEPT_TOGETHER or len(self._kept) > KEPT_TOGETHER // 1024:
            self._kept.clear()
            self._kept_bytes = 0
        self._kept[asked] = data
        self._kept_bytes += size

    async def get_partial_values(
        self, prototype: BufferPrototype, key_ranges: Iterable[tuple[str, ByteRequest | None]]
    ) -> list[Buffer | None]:
        """Several ranges, at the same time."""
        return list(await asyncio.gather(*(self.get(key, prototype, part) for key, part in key_ranges)))

    async def exists(self, key: str) -> bool:
        """Whether there is such a file."""
        return await asyncio.to_thread(_size, self.repo, self.commit, self._name(key)) is not None

    async def getsize(self, key: str) -> int:
        """Bytes of a file; raises FileNotFoundError."""
        size = await asyncio.to_thread(_size, self.repo, self.commit, self._name(key))
        if size is None:
            raise FileNotFoundError(key)
        return size

    async def set(self, key: str, value: Buffer) -> None:
        """Refuse: the place is for reading."""
        raise StoreError(f"{self} is for reading", hint="`drillcore push` puts a local store there.")

    async def delete(self, key: str) -> None:
        """Refuse: the place is for reading."""
        raise StoreError(f"{self} is for reading", hint="Remove files of a data set on the hub itself.")

    async def list(self) -> AsyncIterator[str]:
        """Keys of all files."""
        async for key in self.list_prefix(""):
            yield key

    async def list_prefix(self, prefix: str) -> AsyncIterator[str]:
        """Keys of all files that begin so."""
        folder = prefix.rpartition("/")[0]
        for name, is_file in await asyncio.to_thread(_tree, self.repo, self.commit, self._name(folder), True):
            key = self._key(name)
            if is_file and key.startswith(prefix):
                yield key

    async def list_dir(self, prefix: str) -> AsyncIterator[str]:
        """Names of the files and folders directly in a folder."""
        for name, _ in await asyncio.to_thread(_tree, self.repo, self.commit, self._name(prefix.rstrip("/")), False):
            yield name.rpartition("/")[2]

    def _key(self, name: str) -> str:
        return name.removeprefix(f"{self.path}/") if self.path else name


def open_hub(address: str) -> HubPlace:
    """The store at an address, pinned to the commit that its revision names now.

    Without a path it is the root of the data set, or the one folder there that ends in .zarr. Raises StoreError where
    there is none.
    """
    asked = HubAddress.of(address)
    commit = commit_of(asked.repo, asked.revision)
    path = asked.path
    if not path:
        names = [name for name, _ in _tree(asked.repo, commit, "", False)]
        stores = [name for name in names if name.endswith(".zarr")]
        if "zarr.json" not in names and len(stores) != 1:
            found = f"has the stores {', '.join(stores)}" if stores else "has no store at its root"
            raise StoreError(f"the data set {asked.repo} {found}", hint=f"Name one: {FORM}.")
        path = "" if "zarr.json" in names else stores[0]
    return HubPlace(asked.repo, commit, path)


def _fetch(repo: str, commit: str, name: str, part: ByteRequest | None) -> bytes | None:
    """Bytes of a file, or of a range; None where there is no such file."""
    with asking(repo, commit) as hub:
        url = hub.hf_hub_url(repo, name, repo_type="dataset", revision=commit)
        # Ranges are of the bytes themselves, not of compressed ones.
        headers = {**hub.utils.build_hf_headers(), "Accept-Encoding": "identity"}
        if part is not None:
            headers["Range"] = _range(part)
        reply = hub.utils.http_backoff("GET", url, headers=headers, follow_redirects=True)
        if reply.status_code == 404 and "RepoNotFound" not in reply.headers.get("x-error-code", ""):
            return None
        if reply.status_code == 416:
            return b""
        hub.utils.hf_raise_for_status(reply)
        data = bytes(reply.content)
        # A server may send all of a file.
        return data if part is None or reply.status_code == 206 else _cut(data, part)


def _range(part: ByteRequest) -> str:
    """A range as HTTP has it.

    >>> _range(RangeByteRequest(0, 10)), _range(OffsetByteRequest(5))
    ('bytes=0-9', 'bytes=5-')
    """
    if isinstance(part, RangeByteRequest):
        return f"bytes={part.start}-{part.end - 1}"
    return f"bytes={part.offset}-" if isinstance(part, OffsetByteRequest) else f"bytes=-{part.suffix}"


def _cut(data: bytes, part: ByteRequest) -> bytes:
    if isinstance(part, RangeByteRequest):
        return data[part.start : part.end]
    return data[part.offset :] if isinstance(part, OffsetByteRequest) else data[-part.suffix :]


def _size(repo: str, commit: str, name: str) -> int | None:
    """Bytes of a file; None where there is no such file."""
    with asking(repo, commit) as hub:
        found = hub.HfApi().get_paths_info(repo, [name], revision=commit, repo_type="dataset")
        files = [entry.size for entry in found if isinstance(entry, hub.hf_api.RepoFile)]
        return int(files[0]) if files else None


def _tree(repo: str, commit: str, folder: str, recursive: bool) -> list[tuple[str, bool]]:
    """Paths below a folder, and whether each is a file; none where there is no such folder."""
    with asking(repo, commit) as hub:
        try:
            entries = hub.HfApi().list_repo_tree(
                repo, folder or None, recursive=recursive, revision=commit, repo_type="dataset"
            )
            return [(str(entry.path), isinstance(entry, hub.hf_api.RepoFile)) for entry in entries]
        except hub.errors.EntryNotFoundError:
            return []

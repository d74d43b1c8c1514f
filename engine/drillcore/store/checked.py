"""A store as its readers see it: every small file is compared with what its group records before it is used.

Files and groups that are not recorded do not exist here. The states themselves are compared chunk by chunk by
`states.StatesReader`.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from zarr.abc.buffer import Buffer, BufferPrototype
from zarr.abc.store import ByteRequest, Store
from zarr.buffer import default_buffer_prototype
from zarr.storage import LocalStore, WrapperStore

from drillcore.errors import DamageError
from drillcore.store.arrays import CANARIES
from drillcore.store.attributes import (
    BEGUN,
    CONTENTS,
    FIRST_FORMAT,
    FORMATS,
    MEMBERS,
    MEND,
    SEAL,
    check_seal,
    document_key,
    is_finished,
    parse_document,
)
from drillcore.store.contents import OF_SHARDS, Digests, fast_digest
from drillcore.store.places.local import inside, read_local
from drillcore.store.record import NOT_COMMITTED, fingerprint_key, record_from, record_key, seal_from

ROOT = ""


def owner_of(key: str) -> tuple[str, str, str]:
    """The group that a key belongs to, the array in it, and the rest of the key; no array for a group's own zarr.json.

    >>> owner_of("m/d/umap/c/0/0/0"), owner_of("m/d/zarr.json"), owner_of("zarr.json")
    (('m/d', 'umap', 'c/0/0/0'), ('m/d', '', 'zarr.json'), ('', '', 'zarr.json'))
    """
    parts = key.split("/")
    depth = 1 if CANARIES in parts[1:2] else 2
    if len(parts) <= depth + 1 and parts[-1] == "zarr.json" and not (depth == 1 and len(parts) == 3):
        return "/".join(parts[:-1]), "", "zarr.json"
    return "/".join(parts[:depth]), parts[depth] if len(parts) > depth else "", "/".join(parts[depth + 1 :])


class CheckedStore(WrapperStore[Store]):
    """A read-only store whose files are checked when they are read.

    Raises DamageError for a file that is damaged, missing, older, or belongs somewhere else. What a run writes at the
    same moment is read again once before that.
    """

    def __init__(self, store: Store) -> None:
        super().__init__(store)
        self._known: dict[str, dict[str, Any] | None] = {}

    def __getstate__(self) -> dict[str, Any]:
        return {"store": self._store}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(state["store"])  # type: ignore[misc]

    async def get(
        self, key: str, prototype: BufferPrototype | None = None, byte_range: ByteRequest | None = None
    ) -> Buffer | None:
        """Bytes of a file; None where the group does not record it. Raises DamageError."""
        prototype = prototype or default_buffer_prototype()
        path, array, rest = owner_of(key)
        if not array:
            return await self._document(path)
        if array == "hidden_states" and rest != "zarr.json":
            return await self._store.get(key, prototype, byte_range)
        if array in OF_SHARDS and rest != "zarr.json":
            recorded = CONTENTS in await self._attributes(path)
            return await self._of_shard(path, array, rest) if recorded else await self._raw(key)
        for last_try in (False, True):
            listed = await self._listed(path, array)
            if listed is None:
                return None
            data = await self._raw(key)
            wrong = _wrong(listed, array, rest, data)
            if not wrong:
                break
            if last_try:
                raise DamageError(f"{key} {wrong}", hint=MEND)
            self._known.clear()  # a run may have written both between two readings
        return data

    async def _begun(self, path: str, shard: int) -> str:
        """The fingerprint that a shard may have while its group grows: it holds its first rows only; empty for none."""
        if is_finished(await self._attributes(ROOT), path):
            return ""
        return str((await self._attributes(path)).get(BEGUN, {}).get(str(shard), ""))

    async def _of_shard(self, path: str, array: str, rest: str) -> Buffer | None:
        """The file of a shard beside its states, once its record was found to be the one that the group plans."""
        shard = int(rest.split("/")[1])
        for last_try in (False, True):
            try:
                seal = seal_from(await self._bytes(fingerprint_key(path, shard)))
                record = record_from(seal, await self._bytes(record_key(path, shard))) if seal else None
                if record is None and is_finished(await self._attributes(ROOT), path):
                    raise ValueError(NOT_COMMITTED)
                planned = await self.get(f"{path}/shard_planned/c/0/0")
                wanted = b"" if planned is None else planned.to_bytes()[32 * shard :][:32]
                allowed = {wanted.hex(), await self._begun(path, shard)} if any(wanted) else set[str]()
                if record is not None and allowed and record.fingerprint not in allowed:
                    raise ValueError("it is not of the sentences, model and settings that the group records")
                data = await self._raw(f"{path}/{array}/{rest}")
                found = "" if data is None else fast_digest(data.to_bytes())
                if record is not None and array == "layer_absmax" and found != record.absmax:
                    raise ValueError("its maxima are not those that its record names")
            except ValueError as error:
                if last_try:
                    raise DamageError(f"{path}: {array} of shard {shard}: {error}", hint=MEND) from None
                self._known.clear()  # a run may have begun between two readings
            else:
                break
        return data

    async def _bytes(self, key: str) -> bytes | None:
        data = await self._raw(key)
        return None if data is None else data.to_bytes()

    async def _raw(self, key: str) -> Buffer | None:
        """All bytes of a file, unchecked."""
        if not isinstance(self._store, LocalStore):
            return await self._store.get(key, default_buffer_prototype())
        data = await asyncio.to_thread(read_local, inside(Path(self._store.root), key))
        return None if data is None else default_buffer_prototype().buffer.from_bytes(data)

    async def _listed(self, path: str, array: str) -> Digests | None:
        """Digests of an array; empty where it need not be checked, None where there is no such array."""
        attributes = await self._attributes(path)
        if CONTENTS not in attributes:
            return {} if await self._is_old() else None
        found: Digests | None = attributes[CONTENTS].get(array)
        return found

    async def _is_old(self) -> bool:
        root = await self._attributes(ROOT)
        return root.get("format") == FIRST_FORMAT

    async def _attributes(self, path: str) -> dict[str, Any]:
        """Attributes of a group, checked; empty where there is no such group."""
        if path not in self._known:
            await self._document(path)
        return self._known.get(path) or {}

    async def _exists(self, path: str) -> bool:
        await self._attributes(path)
        return self._known.get(path) is not None

    async def _document(self, path: str) -> Buffer | None:
        """The zarr.json of a group, checked and remembered; None where there is no such group."""
        for last_try in (False, True):
            data = await self._raw(document_key(path))
            try:
                attributes = await self._check(path, data)
            except ValueError as error:
                if last_try:
                    raise DamageError(f"{document_key(path)} is damaged: {error}", hint=MEND) from None
                self._known.clear()
            else:
                self._known[path] = None if data is None else attributes
                break
        return data

    async def _check(self, path: str, data: Buffer | None) -> dict[str, Any]:
        root = {} if path == ROOT else await self._attributes(ROOT)
        recorded = root.get(CONTENTS, {}).get(path)
        if data is None:
            if recorded is not None:
                raise ValueError("it is missing, although the run had finished")
            return {}
        raw = data.to_bytes()
        document = parse_document(raw)
        attributes: dict[str, Any] = document.get("attributes", {})
        if SEAL not in attributes and (root or attributes).get("format") == FIRST_FORMAT:
            return attributes
        if path == ROOT and attributes.get("format") not in FORMATS:
            return attributes  # `check_ours` refuses it by its number
        if path != ROOT and recorded is None and CONTENTS in root:
            raise ValueError("the store does not record it")
        if recorded is not None and fast_digest(raw) != recorded["zarr.json"]:
            raise ValueError("it is not the one that the store records")
        return check_seal(attributes, path)

    async def list_dir(self, prefix: str) -> AsyncIterator[str]:
        """Names directly in a folder, as far as they are recorded."""
        path = prefix.rstrip("/")
        depth = len(path.split("/")) if path else 0
        if depth > 2 or await self._is_old() or path.endswith(f"/{CANARIES}"):
            async for name in self._store.list_dir(prefix):
                yield name
            return
        for name in await self._names(path, depth):
            yield name

    async def _names(self, path: str, depth: int) -> list[str]:
        root, own = await self._attributes(ROOT), await self._attributes(path)
        arrays = sorted(own.get(CONTENTS, {})) if depth else []
        if depth == 2:
            return ["zarr.json", *arrays]
        under = f"{path}/" if path else ""
        below = [member[len(under) :] for member in root.get(MEMBERS, []) if member.startswith(under)]
        groups = list(dict.fromkeys(member.split("/")[0] for member in below))
        # Groups are listed before they are made, so that not all of them need exist before the run has finished.
        there = [name for name in groups if await self._exists(f"{under}{name}")]
        return ["zarr.json", *there, *arrays]


def _wrong(listed: Digests, array: str, rest: str, data: Buffer | None) -> str:
    """What is wrong with a file of an array; empty where nothing is, or the array is being written."""
    expected = listed.get(rest)
    if not listed or (expected is None and array == "shard_planned" and len(listed) == 1):
        return ""
    if expected is None:
        return "is not recorded by its group"
    if data is None:
        return "is missing"
    return "" if fast_digest(data.to_bytes()) == expected else "is damaged, or not the one that its group records"

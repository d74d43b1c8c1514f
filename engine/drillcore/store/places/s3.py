"""The store in an S3 bucket: bounded retries, and errors in plain words with nothing secret in them.

Endpoint, region and credentials come from the standard environment variables, and from nowhere else.
"""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from datetime import timedelta
from typing import Any, TypeVar

from obstore.exceptions import BaseError, GenericError, PermissionDeniedError, UnauthenticatedError
from obstore.store import S3Store
from zarr.abc.buffer import Buffer, BufferPrototype
from zarr.abc.store import ByteRequest
from zarr.storage import ObjectStore

from drillcore.errors import CommitError, DrillcoreError, StoreError
from drillcore.store.places.hold import LATELY_SECONDS, Hold
from drillcore.store.places.location import s3_endpoint

# obstore retries a request after 5xx replies and lost connections; what it does not retry (a part of an upload that
# timed out, a write whose connection was lost) is retried here. The longest wait before a run gives up is the product:
# minutes.
REQUEST_RETRIES = 5
REQUEST_SECONDS = 120.0
RETRY_SECONDS = 90.0
WAITS_SECONDS = (1.0, 4.0)
SECRETS = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_TOKEN")
NO_CREDENTIALS = "169.254.169.254"  # where obstore looks last: the metadata service of an Amazon machine

Answer = TypeVar("Answer")


def open_bucket(bucket: str, prefix: str) -> S3Store:
    """A client for the keys below a prefix of a bucket."""
    endpoint = s3_endpoint()
    region = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION") or "us-east-1"
    options: dict[str, Any] = {"endpoint": endpoint} if endpoint else {}
    return S3Store(
        bucket,
        prefix=prefix or None,
        region=region,
        client_options={
            "allow_http": endpoint.startswith("http://"),
            "timeout": timedelta(seconds=REQUEST_SECONDS),
            "connect_timeout": timedelta(seconds=min(10.0, REQUEST_SECONDS)),
        },
        retry_config={"max_retries": REQUEST_RETRIES, "retry_timeout": timedelta(seconds=RETRY_SECONDS)},
        **options,
    )


class S3Place(ObjectStore[S3Store]):
    """Zarr's view of a prefix of a bucket.

    hold: the run's hold of the store; what it lost is not written to any more. Raises CommitError once all retries
    failed; StoreError where it is opened for reading and the place is wrong.
    """

    def __init__(self, store: S3Store, *, read_only: bool = False, hold: Hold | None = None) -> None:
        super().__init__(store, read_only=read_only)
        self._hold = hold

    async def _check_held(self) -> None:
        if self._hold is not None:
            await asyncio.to_thread(self._hold.check, LATELY_SECONDS)

    async def _bounded(self, doing: str, call: Callable[[], Awaitable[Answer]]) -> Answer:
        for wait in WAITS_SECONDS:
            try:
                return await call()
            except GenericError as error:
                if NO_CREDENTIALS in str(error):
                    raise refused(error, doing, nothing_written=self.read_only) from None
            except (BaseError, FileNotFoundError) as error:
                raise refused(error, doing, nothing_written=self.read_only) from None
            await asyncio.sleep(wait)
        try:
            return await call()
        except (BaseError, FileNotFoundError) as error:
            raise refused(error, doing, nothing_written=self.read_only) from None

    async def get(self, key: str, prototype: BufferPrototype, byte_range: ByteRequest | None = None) -> Buffer | None:
        """Bytes of an object, None where there is no such object."""
        wanted = (key, prototype, byte_range)
        return await self._bounded(f"{key} could not be read", lambda: super(S3Place, self).get(*wanted))

    async def exists(self, key: str) -> bool:
        """Whether there is such an object."""
        return await self._bounded(f"{key} could not be looked up", lambda: super(S3Place, self).exists(key))

    async def set(self, key: str, value: Buffer) -> None:
        """Write a whole object, or nothing."""
        await self._check_held()
        await self._bounded(f"{key} could not be written", lambda: super(S3Place, self).set(key, value))

    async def set_if_not_exists(self, key: str, value: Buffer) -> None:
        """Write an object unless it exists."""
        await self._check_held()
        await self._bounded(f"{key} could not be written", lambda: super(S3Place, self).set_if_not_exists(key, value))

    async def delete(self, key: str) -> None:
        """Remove an object."""
        await self._check_held()
        await self._bounded(f"{key} could not be removed", lambda: super(S3Place, self).delete(key))

    async def getsize(self, key: str) -> int:
        """Bytes of an object."""
        return await self._bounded(f"{key} could not be looked up", lambda: super(S3Place, self).getsize(key))

    async def delete_dir(self, prefix: str) -> None:
        """Remove all objects below a prefix."""
        async for key in self.list_prefix(prefix.rstrip("/") + "/" if prefix else ""):
            await self.delete(key)

    def list(self) -> AsyncGenerator[str, None]:
        """All keys."""
        return self._listed("the store", lambda: super(S3Place, self).list())

    def list_prefix(self, prefix: str) -> AsyncGenerator[str, None]:
        """All keys below a prefix."""
        return self._listed(prefix or "the store", lambda: super(S3Place, self).list_prefix(prefix))

    def list_dir(self, prefix: str) -> AsyncGenerator[str, None]:
        """Names directly below a prefix."""
        return self._listed(prefix or "the store", lambda: super(S3Place, self).list_dir(prefix))

    async def _listed(self, what: str, make: Callable[[], AsyncIterator[str]]) -> AsyncGenerator[str, None]:
        async def collect() -> list[str]:
            return [key async for key in make()]

        for key in await self._bounded(f"{what} could not be listed", collect):
            yield key


def refused(error: Exception, doing: str, *, nothing_written: bool = False) -> DrillcoreError:
    """The error that says why object storage refused; with `nothing_written` a wrong place exits with status 2."""
    wrong_place = True
    # A listing fails like this only where the bucket does not exist; listing an empty bucket is not an error.
    if isinstance(error, FileNotFoundError) or "404 Not Found" in str(error):
        why, hint = "the bucket does not exist", "Create it, or check its name and AWS_ENDPOINT_URL."
    elif isinstance(error, PermissionDeniedError | UnauthenticatedError):
        why, hint = "access is denied", "Check the AWS_ variables of the environment and the bucket's policy."
    elif NO_CREDENTIALS in str(error):
        why, hint = "there are no credentials", "Set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY."
    else:
        wrong_place, why = False, _reason(str(error))
        hint = "Check AWS_ENDPOINT_URL and the network, then run the same command again: what is committed is kept."
    kind = StoreError if wrong_place and nothing_written else CommitError
    return kind(f"{doing}: {why}", hint=hint)


def _reason(text: str) -> str:
    """The first line of obstore's message after the request, which it repeats, without anything secret."""
    reason = text.splitlines()[0].rsplit(" - ", 1)[-1][:200].strip() if text else "unknown error"
    for name in SECRETS:
        value = os.environ.get(name, "")
        if len(value) > 3:
            reason = reason.replace(value, "***")
    return re.sub(r"//[^/@\s]*@", "//***@", reason)

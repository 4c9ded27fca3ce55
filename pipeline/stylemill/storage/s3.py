"""S3 and compatible stores through s3fs: one request per operation, errors classified by what can be done.

Transient faults raise TransientError and are retried by ``Storage``; the retries of s3fs and botocore are off.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from stylemill.errors import AccessDenied, ObjectNotFound, PathConflict, StorageError
from stylemill.storage.options import StorageOptions
from stylemill.storage.retry import Throttled, TransientError
from stylemill.storage.store import ObjectStat
from stylemill.storage.uri import name

PAGE_SIZE = 1000
MULTIPART_FROM_BYTES = 64 * 2**20
"""Objects from this size on use a multipart upload, which becomes visible when it is complete."""

_NOT_FOUND = {"NoSuchKey", "NoSuchBucket", "404", "NotFound"}
_DENIED = {"AccessDenied", "403", "Forbidden", "AllAccessDisabled", "InvalidObjectState"}
_EXISTS = {"PreconditionFailed", "412"}
_BAD_NAME = {"KeyTooLongError", "InvalidURI", "KeyTooLong"}
_THROTTLED = {
    "SlowDown",
    "ServiceUnavailable",
    "Throttling",
    "ThrottlingException",
    "TooManyRequests",
    "RequestLimitExceeded",
}
_TRANSIENT = {
    "ConditionalRequestConflict",  # concurrent conditional creates are not decided yet: ask again
    "RequestTimeout",
    "RequestTimeTooSkewed",
    "InternalError",
    "BadDigest",
    "IncompleteBody",
    "XAmzContentSHA256Mismatch",
}


class S3Store:
    """Objects of S3-compatible stores. Locations are ``s3://bucket/key``, never percent-encoded."""

    def __init__(self, options: StorageOptions) -> None:
        import s3fs

        client: dict[str, Any] = {"endpoint_url": options.endpoint_url, "region_name": options.region}
        self._timeout_s = options.timeout_s
        self._fs = s3fs.S3FileSystem(
            profile=options.profile,
            client_kwargs={key: value for key, value in client.items() if value},
            config_kwargs={
                "retries": {"max_attempts": 1, "mode": "standard"},
                "connect_timeout": min(10.0, options.timeout_s),
                "read_timeout": options.timeout_s,
                "max_pool_connections": 32,
            },
            use_listings_cache=False,
        )
        self._fs.retries = 1  # only Storage retries

    def read(self, path: str) -> bytes:
        """Return the whole content of an object; a body shorter than announced is a transient fault."""
        return self._get(path, {})

    def read_range(self, path: str, start: int, size_bytes: int) -> bytes:
        """Return at most ``size_bytes`` of an object, from the byte ``start`` on."""
        try:
            return self._get(path, {"Range": f"bytes={start}-{start + size_bytes - 1}"})
        except _EmptyRange:
            return b""

    def _get(self, path: str, extra: dict[str, str]) -> bytes:
        async def get() -> tuple[bytes, int]:
            answer = await self._fs._call_s3("get_object", **_place(path), **extra)
            async with answer["Body"] as body:
                return await body.read(), int(answer["ContentLength"])

        data, announced = self._run(get, path)
        if len(data) != announced:
            raise TransientError(f"{path}: only {len(data)} of {announced} bytes arrived")
        return data

    def write(self, path: str, data: bytes, *, durable: bool = False) -> None:
        """Replace an object with one request, or one multipart upload. S3 is always durable."""
        del durable
        if len(data) < MULTIPART_FROM_BYTES:
            self._run(lambda: self._fs._call_s3("put_object", **_place(path), Body=data), path)
        else:
            self._run(lambda: self._fs._pipe_file(path, data, chunksize=MULTIPART_FROM_BYTES // 4), path)

    def create(self, path: str, data: bytes, *, durable: bool = True) -> bool:
        """Write an object unless it exists (``If-None-Match: *``); return whether it was written."""
        del durable
        request = {**_place(path), "Body": data, "IfNoneMatch": "*"}
        chunks = {"chunksize": MULTIPART_FROM_BYTES // 4, "mode": "create"}
        try:
            if len(data) < MULTIPART_FROM_BYTES:
                self._run(lambda: self._fs._call_s3("put_object", **request), path)
            else:
                self._run(lambda: self._fs._pipe_file(path, data, **chunks), path)
        except FileExistsError:
            return False
        return True

    def stat(self, path: str) -> ObjectStat:
        """Return size and etag of an object."""
        try:
            found = self._run(lambda: self._fs._call_s3("head_object", **_place(path)), path)
        except AccessDenied:
            self.read_range(
                path, 0, 1
            )  # a HEAD answer has no body with a reason; this one raises for expired credentials
            raise
        return ObjectStat(path, name(path), int(found["ContentLength"]), str(found["ETag"]).strip('"'))

    def list_objects(self, root: str, after: str = "") -> Iterator[ObjectStat]:
        """Yield the objects below a prefix in order of key, with one page of 1,000 in memory at a time."""
        place = _place(root)
        prefix = place["Key"] + "/" if place["Key"] else ""
        request: dict[str, Any] = {"Bucket": place["Bucket"], "Prefix": prefix, "MaxKeys": PAGE_SIZE}
        if after:
            request["StartAfter"] = prefix + after
        while True:
            page = self._list_page(request, root)
            for item in page.get("Contents", []):
                found = _listed(place["Bucket"], prefix, item)
                if found is not None:
                    yield found
            if not page.get("IsTruncated"):
                return
            request["ContinuationToken"] = page["NextContinuationToken"]
            request.pop("StartAfter", None)

    def _list_page(self, request: dict[str, Any], root: str) -> dict[str, Any]:
        page: dict[str, Any] = self._run(lambda: self._fs._call_s3("list_objects_v2", **request), root)
        return page

    def delete(self, path: str) -> None:
        """Remove an object; a missing object is not an error."""
        self._run(lambda: self._fs._call_s3("delete_object", **_place(path)), path)

    def delete_all(self, paths: Sequence[str]) -> None:
        """Remove at most 1,000 objects of one bucket with one request; it is no error if some do not exist."""
        places = [_place(path) for path in paths]
        request = {"Objects": [{"Key": place["Key"]} for place in places], "Quiet": True}

        async def delete() -> list[dict[str, Any]]:
            answer = await self._fs._call_s3("delete_objects", Bucket=places[0]["Bucket"], Delete=request)
            return list(answer.get("Errors", []))

        for refused in self._run(delete, paths[0]):
            # The other objects are removed; repeating the whole request is harmless.
            raise _classify_code(
                refused["Code"], 200, f"s3://{places[0]['Bucket']}/{refused['Key']}: {refused['Code']}"
            )

    def remove_leftovers(self, root: str, older_than_s: float) -> None:
        """Do nothing: an object appears whole or not at all."""

    def _run(self, request: Callable[[], Any], path: str) -> Any:
        from fsspec.asyn import sync

        try:
            # Covers a body that arrives very slowly; connecting and each read have shorter timeouts of their own.
            return sync(self._fs.loop, request, timeout=4 * self._timeout_s)
        except Exception as error:
            raise _classify_error(error, path) from error


class _EmptyRange(Exception):
    """The object has no bytes in the requested range: it is empty."""


def _place(path: str) -> dict[str, str]:
    bucket, _, key = path.partition("://")[2].partition("/")
    return {"Bucket": bucket, "Key": key}


def _listed(bucket: str, prefix: str, item: dict[str, Any]) -> ObjectStat | None:
    key = item["Key"][len(prefix) :]
    size_bytes = int(item["Size"])
    if not key or (key.endswith("/") and size_bytes == 0):
        return None  # the marker that web consoles write for an empty folder
    return ObjectStat(f"s3://{bucket}/{item['Key']}", key, size_bytes, str(item["ETag"]).strip('"'))


def _classify_error(error: BaseException, path: str) -> BaseException:
    """Return the error to raise for an error of s3fs, botocore or aiohttp."""
    from botocore import exceptions as botocore

    chain: list[BaseException] = []
    cause: BaseException | None = error
    while cause is not None and cause not in chain:
        chain.append(cause)
        cause = cause.__cause__ or cause.__context__
    client_error = next((item for item in chain if isinstance(item, botocore.ClientError)), None)
    if client_error is not None:
        return _classify_answer(client_error, path)
    if any(isinstance(item, botocore.NoCredentialsError) for item in chain):
        return StorageError(f"{path}: no credentials found; set the AWS variables or give the machine a role")
    text = f"{path}: {' '.join(str(error).split())}"
    if any(isinstance(item, botocore.ParamValidationError) for item in chain):
        return PathConflict(text)
    settings = (
        botocore.ConfigParseError,
        botocore.EndpointProviderError,
        botocore.InvalidRegionError,
        botocore.PartialCredentialsError,
        botocore.ProfileNotFound,
    )
    if any(isinstance(item, settings) for item in chain) or isinstance(error, ValueError):  # a malformed endpoint
        return StorageError(text)
    if isinstance(error, FileNotFoundError):
        return ObjectNotFound(f"{path} does not exist")
    if isinstance(error, PermissionError):
        return AccessDenied(f"{path}: {error}")
    if isinstance(error, asyncio.TimeoutError | OSError | botocore.BotoCoreError) or _is_http_fault(chain):
        return TransientError(f"{path}: {type(error).__name__}: {error}")
    return error


def _classify_answer(error: Any, path: str) -> BaseException:
    code = str(error.response.get("Error", {}).get("Code", ""))
    status = int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
    text = f"{path}: {code or status}: {error.response.get('Error', {}).get('Message', '')}"
    if code in _EXISTS or status == 412:
        return FileExistsError(path)
    return _classify_code(code, status, text)


def _classify_code(code: str, status: int, text: str) -> BaseException:
    if code in _NOT_FOUND:
        return ObjectNotFound(text)
    if code in _DENIED:
        return AccessDenied(text)
    if code in _BAD_NAME:
        return PathConflict(text)
    if code == "InvalidRange" or status == 416:
        return _EmptyRange(text)
    if code in _THROTTLED or status in (429, 503):
        return Throttled(text)
    if code in _TRANSIENT or status == 408 or status >= 500:
        return TransientError(text)
    return StorageError(text)


def _is_http_fault(chain: list[BaseException]) -> bool:
    import aiohttp

    return any(isinstance(item, aiohttp.ClientError) for item in chain)

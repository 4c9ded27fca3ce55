"""How errors of S3 services are classified."""

from __future__ import annotations

import pytest
from botocore.exceptions import (
    ClientError,
    ConfigParseError,
    ConnectTimeoutError,
    CredentialRetrievalError,
    EndpointConnectionError,
    InvalidRegionError,
    ParamValidationError,
    PartialCredentialsError,
    ProfileNotFound,
)

from stylemill.errors import AccessDenied, ObjectNotFound, PathConflict, StorageError
from stylemill.storage.retry import Throttled, TransientError
from stylemill.storage.s3 import _classify_error


def answer(code: str, status: int) -> ClientError:
    return ClientError({"Error": {"Code": code}, "ResponseMetadata": {"HTTPStatusCode": status}}, "PutObject")


@pytest.mark.parametrize(
    ("code", "status", "kind"),
    [
        ("NoSuchKey", 404, ObjectNotFound),
        ("404", 404, ObjectNotFound),
        ("AccessDenied", 403, AccessDenied),
        ("ExpiredToken", 400, StorageError),
        ("InvalidAccessKeyId", 403, StorageError),
        ("SignatureDoesNotMatch", 403, StorageError),
        ("PreconditionFailed", 412, FileExistsError),
        ("ConditionalRequestConflict", 409, TransientError),
        ("SlowDown", 503, Throttled),
        ("ServiceUnavailable", 503, Throttled),
        ("TooManyRequests", 429, Throttled),
        ("", 429, Throttled),
        ("InternalError", 500, TransientError),
        ("", 502, TransientError),
        ("RequestTimeout", 400, TransientError),
        ("BadDigest", 400, TransientError),
        ("KeyTooLongError", 400, PathConflict),
        ("QuotaExceeded", 403, StorageError),
    ],
)
def test_each_answer_has_one_meaning(code: str, status: int, kind: type[Exception]):
    assert type(_classify_error(answer(code, status), "s3://bucket/x")) is kind


def test_a_wrapped_answer_is_found():
    wrapped = OSError(5, "something went wrong")
    wrapped.__cause__ = answer("SlowDown", 503)
    assert type(_classify_error(wrapped, "s3://bucket/x")) is Throttled
    refused = PermissionError("no")
    refused.__cause__ = answer("ExpiredToken", 403)
    assert type(_classify_error(refused, "s3://bucket/x")) is StorageError


@pytest.mark.parametrize("error", [ConnectionResetError(), TimeoutError(), OSError(5, "?")])
def test_a_broken_connection_is_transient(error: Exception):
    assert type(_classify_error(error, "s3://bucket/x")) is TransientError


@pytest.mark.parametrize(
    "error",
    [
        ConfigParseError(path="config"),
        InvalidRegionError(region_name="x y"),
        PartialCredentialsError(provider="env", cred_var="AWS_SECRET_ACCESS_KEY"),
        ProfileNotFound(profile="nobody"),
        ValueError("Invalid endpoint: http://"),
    ],
)
def test_wrong_settings_are_not_transient(error: Exception):
    found = _classify_error(error, "s3://bucket/x")
    assert type(found) is StorageError and "\n" not in str(found)


def test_a_name_that_s3_does_not_have_is_a_conflict_in_one_line():
    found = _classify_error(ParamValidationError(report="Invalid bucket name\n''"), "s3://")
    assert type(found) is PathConflict and "\n" not in str(found)


@pytest.mark.parametrize(
    "error",
    [
        ConnectTimeoutError(endpoint_url="http://h"),
        EndpointConnectionError(endpoint_url="http://h"),
        CredentialRetrievalError(provider="iam-role", error_msg="busy"),
    ],
)
def test_network_errors_are_transient(error: Exception):
    assert type(_classify_error(error, "s3://bucket/x")) is TransientError

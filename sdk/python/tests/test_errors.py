"""Every error of the contract becomes an exception of its class; errors of others are not hidden either."""

import pickle

import pytest

from faas_sdk import errors
from faas_sdk.errors import BY_CODE, APIError, ExecutionTimeoutError, InvalidRequestError
from tests.stub import Reply, execution, problem

CODES = [
    (400, "invalid_request", "InvalidRequestError"),
    (422, "invalid_request", "InvalidRequestError"),
    (401, "unauthorized", "UnauthorizedError"),
    (403, "forbidden", "ForbiddenError"),
    (404, "not_found", "NotFoundError"),
    (405, "method_not_allowed", "MethodNotAllowedError"),
    (408, "request_timeout", "RequestTimeoutError"),
    (409, "conflict", "ConflictError"),
    (410, "gone", "GoneError"),
    (413, "payload_too_large", "PayloadTooLargeError"),
    (415, "unsupported_media_type", "UnsupportedMediaTypeError"),
    (416, "range_not_satisfiable", "RangeNotSatisfiableError"),
    (429, "rate_limited", "RateLimitedError"),
    (429, "quota_exceeded", "QuotaExceededError"),
    (501, "runtime_unavailable", "RuntimeUnavailableError"),
    (501, "unsupported", "UnsupportedError"),
    (503, "overloaded", "OverloadedError"),
    (502, "image_unavailable", "ImageUnavailableError"),
    (502, "sandbox_lost", "SandboxLostError"),
    (507, "insufficient_storage", "InsufficientStorageError"),
    (504, "execution_timeout", "ExecutionTimeoutError"),
    (500, "internal", "InternalError"),
]


@pytest.mark.parametrize(("status", "code", "name"), CODES)
def test_each_code_has_its_class(caller, stub, status, code, name):
    stub.replies(Reply(status=status, json=problem(status, code, retryable=True)))
    with pytest.raises(APIError) as caught:
        caller.execute("x")
    error = caught.value
    assert type(error) is getattr(errors, name)
    assert (error.status, error.code, error.detail) == (status, code, f"this is {code}")
    assert (error.request_id, error.retryable, error.title) == ("req-9", True, code.replace("_", " "))
    assert str(error) == f"{code} ({status}): this is {code} [request req-9]"


def test_a_fields_message_is_said_once(caller, stub):
    fields = [{"pointer": "/image", "message": "this is invalid_request"}, {"pointer": "", "message": "and more"}]
    stub.replies(Reply(status=422, json=problem(422, "invalid_request", errors=fields)))
    with pytest.raises(APIError) as caught:
        caller.execute("x")
    assert str(caught.value) == "invalid_request (422): this is invalid_request; body: and more [request req-9]"


def test_the_table_of_classes_is_whole():
    assert set(BY_CODE) == {code for _, code, _ in CODES}


def test_the_members_that_are_not_valid_are_named(caller, stub):
    body = problem(422, "invalid_request", errors=[{"pointer": "/memory_mb", "message": "must be at least 1"}])
    stub.replies(Reply(status=422, json=body))
    with pytest.raises(InvalidRequestError, match="/memory_mb: must be at least 1") as caught:
        caller.execute("x", memory_mb=0)
    assert [(e.pointer, e.message) for e in caught.value.errors] == [("/memory_mb", "must be at least 1")]


def test_a_timeout_carries_the_execution_so_far(caller, stub):
    body = problem(504, "execution_timeout", execution=execution(stdout="half", exit_code=137, signal="SIGKILL"))
    stub.replies(Reply(status=504, json=body))
    with pytest.raises(ExecutionTimeoutError) as caught:
        caller.execute("x", timeout_ms=1)
    assert caught.value.execution is not None
    assert caught.value.execution.stdout == "half"


def test_a_timeout_without_a_readable_execution_is_still_a_timeout(caller, stub):
    stub.replies(Reply(status=504, json=problem(504, "execution_timeout", execution={"stdout": 3})))
    with pytest.raises(ExecutionTimeoutError) as caught:
        caller.execute("x")
    assert caught.value.execution is None


def test_a_code_of_a_newer_gateway_is_an_api_error(caller, stub):
    stub.replies(Reply(status=418, json=problem(418, "teapot")))
    with pytest.raises(APIError) as caught:
        caller.execute("x")
    assert type(caught.value) is APIError
    assert caught.value.code == "teapot"


@pytest.mark.parametrize(
    ("status", "body", "kind", "words"),
    [
        (502, b"<html>\n<h1>502 Bad Gateway</h1>\n</html>", "text/html", "502 Bad Gateway"),
        (502, b"", "text/html", "the answer has no body (text/html)"),
        (500, b"\xff\xfe not text", "application/octet-stream", "not text"),
        (500, b"[1, 2]", "application/json", "[1, 2]"),
        (500, b'{"code": 7, "errors": "x", "execution": []}', "application/json", '"code": 7'),
        (404, b"[" * 100_000, "application/json", "[[["),
    ],
)
def test_an_error_of_a_proxy_is_told_with_status_and_an_excerpt(caller, stub, status, body, kind, words):
    stub.replies(Reply(status=status, body=body, headers={"content-type": kind}))
    with pytest.raises(APIError) as caught:
        caller.execute("x")
    assert type(caught.value) is APIError
    assert (caught.value.status, caught.value.code) == (status, None)
    assert words in caught.value.detail
    assert len(caught.value.detail) < 500
    assert caught.value.request_id == "req-h"


def test_a_problem_with_status_200_is_no_result(caller, stub):
    stub.replies(Reply(json=problem(500, "internal"), headers={"content-type": "application/problem+json"}))
    with pytest.raises(APIError, match="internal"):
        caller.execute("x")


def test_errors_survive_the_way_between_processes(caller, stub):
    stub.replies(Reply(status=504, json=problem(504, "execution_timeout", execution=execution())))
    with pytest.raises(APIError) as caught:
        caller.execute("x")
    copy = pickle.loads(pickle.dumps(caught.value))  # noqa: S301 - made in the line itself
    assert type(copy) is ExecutionTimeoutError
    assert str(copy) == str(caught.value)
    assert copy.execution == caught.value.execution
    lost = errors.ConnectionLostError("gone", True)
    copy = pickle.loads(pickle.dumps(lost))  # noqa: S301 - made in the line above
    assert (type(copy), str(copy), copy.request_sent) == (errors.ConnectionLostError, "gone", True)

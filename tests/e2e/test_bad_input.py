"""Bad input: each has its own clear error, or its documented result."""

from __future__ import annotations

import json
import socket
from urllib.parse import urlsplit

import pytest
from faas_sdk import ImageUnavailableError, InvalidRequestError, RuntimeUnavailableError, UnsupportedError

import raw

GIB = 1 << 30

INVALID = [
    # What, the body, where the error points, a word of its message.
    ("no command", {}, "/command"),
    ("null command", {"command": None}, "/command"),
    ("empty command", {"command": ""}, "/command"),
    ("empty array", {"command": []}, "/command"),
    ("empty program", {"command": [""]}, "/command"),
    ("NUL in a command", {"command": "echo a\0b"}, "/command"),
    ("NUL in an argument", {"command": ["echo", "a\0b"]}, "/command"),
    ("NUL in a variable", {"command": "true", "env_vars": {"A": "x\0y"}}, "/env_vars"),
    ("NUL in a variable's name", {"command": "true", "env_vars": {"A\0": "x"}}, "/env_vars"),
    ("a variable without a name", {"command": "true", "env_vars": {"": "x"}}, "/env_vars"),
    ("a variable's name with =", {"command": "true", "env_vars": {"A=B": "x"}}, "/env_vars"),
    ("NUL in the working directory", {"command": "true", "working_dir": "/t\0mp"}, "/working_dir"),
    ("a relative working directory", {"command": "true", "working_dir": "tmp"}, "/working_dir"),
    ("no such working directory", {"command": "true", "working_dir": "/no/such"}, "/working_dir"),
    ("a file as working directory", {"command": "true", "working_dir": "/etc/passwd"}, "/working_dir"),
    ("an unknown user", {"command": "true", "user": "no-such-user"}, "/user"),
    ("an empty user", {"command": "true", "user": ""}, "/user"),
    ("NUL in the user", {"command": "true", "user": "a\0"}, "/user"),
    ("NUL in a file's path", {"command": "true", "files": [{"path": "/tmp/a\0", "content": ""}]}, "/files/0"),
    ("an empty path", {"command": "true", "files": [{"path": "", "content": ""}]}, "/files/0"),
    ("a file without content", {"command": "true", "files": [{"path": "/tmp/a"}]}, "/files/0"),
    (
        "a file with two contents",
        {"command": "true", "files": [{"path": "/tmp/a", "content": "", "content_base64": ""}]},
        "/files/0",
    ),
    ("content that is not base64", {"command": "true", "files": [{"path": "/a", "content_base64": "%"}]}, "/files/0"),
    ("a mode that is none", {"command": "true", "files": [{"path": "/a", "content": "", "mode": "rwx"}]}, "/files/0"),
    ("two kinds of stdin", {"command": "true", "stdin": "", "stdin_base64": ""}, "/stdin"),
    ("stdin that is not base64", {"command": "true", "stdin_base64": "%"}, "/stdin_base64"),
    ("a secret's name with /", {"command": "true", "secrets": {"../x": "y"}}, "/secrets"),
    ("a secret without a name", {"command": "true", "secrets": {"": "y"}}, "/secrets"),
    ("a secret called ..", {"command": "true", "secrets": {"..": "y"}}, "/secrets"),
    ("a timeout of 0", {"command": "true", "timeout_ms": 0}, "/timeout_ms"),
    ("a negative timeout", {"command": "true", "timeout_ms": -1}, "/timeout_ms"),
    ("no memory", {"command": "true", "memory_mb": 0}, "/memory_mb"),
    ("negative memory", {"command": "true", "memory_mb": -1}, "/memory_mb"),
    ("more memory than the host", {"command": "true", "memory_mb": 1 << 40}, "/memory_mb"),
    ("more memory than a number", {"command": "true", "memory_mb": (1 << 64) - 1}, "/memory_mb"),
    ("no CPU", {"command": "true", "cpu_cores": 0}, "/cpu_cores"),
    ("negative CPU", {"command": "true", "cpu_cores": -0.5}, "/cpu_cores"),
    ("more CPU than the host", {"command": "true", "cpu_cores": 100_000}, "/cpu_cores"),
    ("no processes", {"command": "true", "pids_limit": 0}, "/pids_limit"),
    ("negative processes", {"command": "true", "pids_limit": -1}, "/pids_limit"),
    ("more processes than the host", {"command": "true", "pids_limit": 1 << 40}, "/pids_limit"),
    ("no disk", {"command": "true", "disk_mb": 0}, "/disk_mb"),
    ("negative disk", {"command": "true", "disk_mb": -1}, "/disk_mb"),
    ("more disk than the host", {"command": "true", "disk_mb": 1 << 40}, "/disk_mb"),
    ("negative output", {"command": "true", "max_output_bytes": -1}, "/max_output_bytes"),
    ("output without measure", {"command": "true", "max_output_bytes": 1 << 50}, "/max_output_bytes"),
    ("an unknown runtime", {"command": "true", "runtime": "lxc"}, "/runtime"),
    ("an unknown network", {"command": "true", "network": "all"}, "/network"),
    ("an empty image", {"command": "true", "image": ""}, "/image"),
]


@pytest.mark.parametrize(("body", "pointer"), [case[1:] for case in INVALID], ids=[case[0] for case in INVALID])
def test_what_is_not_valid_is_named(gateway, body, pointer):
    problem = raw.assert_problem(raw.execute(gateway.url, body), 422, "invalid_request")
    assert not problem["retryable"]
    assert problem["errors"], problem
    assert all(error["message"] for error in problem["errors"]), problem
    assert any(error["pointer"].startswith(pointer) for error in problem["errors"]), problem


@pytest.mark.parametrize(
    ("body", "name"),
    [
        ({"command": "true", "comand": "x"}, "comand"),
        ({"command": "true", "timeout": 5}, "timeout"),
        ({"command": "true", "files": [{"path": "a", "content": "", "modus": "x"}]}, "modus"),
    ],
)
def test_an_unknown_member_is_named(gateway, body, name):
    problem = raw.assert_problem(raw.execute(gateway.url, body), 422, "invalid_request")
    assert name in json.dumps([problem["detail"], problem["errors"]])


@pytest.mark.parametrize(
    "body",
    [
        {"command": 3},
        {"command": ["x", 3]},
        {"command": {"a": "b"}},
        {"command": "true", "env_vars": 3},
        {"command": "true", "env_vars": ["A"]},
        {"command": "true", "timeout_ms": "1000"},
        {"command": "true", "timeout_ms": 1.5},
        {"command": "true", "labels": {"a": 1}},
        [],
        "true",
        None,
    ],
)
def test_a_wrong_type_is_the_same_kind_of_error(gateway, body):
    raw.assert_problem(raw.execute(gateway.url, body), 422, "invalid_request")


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b'{"command": "true"',
        b"command=true",
        b'{"command": "\xff"}',
        b'{"command": "\\ud800"}',
        b"[" * 100_000,
    ],
)
def test_a_body_that_is_no_json_is_400(gateway, body):
    answer = raw.request(gateway.url, "POST", "/api/v1/execute", body)
    raw.assert_problem(answer, 400, "invalid_request")


def test_too_much_environment_is_refused_and_the_gateway_goes_on(gateway, client):
    answer = raw.execute(gateway.url, {"command": "true", "env_vars": {f"V{n}": "x" * 100_000 for n in range(105)}})
    assert answer.status in (413, 422), answer
    raw.assert_problem(answer, answer.status, "payload_too_large" if answer.status == 413 else "invalid_request")
    answer = raw.execute(gateway.url, {"command": "true", "env_vars": {"V": "x" * (10 << 20)}})
    raw.assert_problem(answer, answer.status, "payload_too_large" if answer.status == 413 else "invalid_request")
    assert client.execute("echo fine").stdout == "fine\n"


def test_an_unknown_image_says_which(client):
    with pytest.raises(ImageUnavailableError, match="no-such-image"):
        client.execute("true", image="no-such-image")


def test_what_this_version_does_not_do_says_so_with_the_reason(client):
    with pytest.raises(UnsupportedError, match="egress"):
        client.execute("true", network="egress")
    for runtime in ("docker", "firecracker"):
        with pytest.raises(RuntimeUnavailableError, match=runtime) as caught:
            client.execute("true", runtime=runtime)
        assert caught.value.status == 501


def test_the_sdk_names_the_member(client):
    with pytest.raises(InvalidRequestError) as caught:
        client.execute("true", memory_mb=0, timeout_ms=0)
    assert {error.pointer for error in caught.value.errors} == {"/memory_mb", "/timeout_ms"}


def send_much(url: str, head: str, chunk: bytes, size: int) -> bytes:
    """Sends a head and up to `size` bytes of body in chunks, until the server answers; the beginning of the answer."""
    parts = urlsplit(url)
    with socket.create_connection((parts.hostname, parts.port), timeout=120) as connection:
        connection.sendall(head.encode())
        connection.setblocking(False)
        sent = 0
        while sent < size:
            try:
                # What was not taken of a chunk goes first, so that the chunks stay whole.
                sent += connection.send(chunk[sent % len(chunk) :])
            except BlockingIOError:
                pass
            except (BrokenPipeError, ConnectionResetError):
                break
            try:
                if answer := connection.recv(65536):
                    return answer
                break
            except BlockingIOError:
                continue
        connection.settimeout(120)
        return connection.recv(65536)


@pytest.mark.parametrize("kind", ["with its length", "in chunks"])
def test_a_body_of_a_gibibyte_is_413_long_before_its_end(gateway, client, kind):
    common = "POST /api/v1/execute HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
    if kind == "with its length":
        answer = send_much(gateway.url, f"{common}content-length: {GIB}\r\n\r\n", b" " * 65536, GIB)
    else:
        chunk = b"10000\r\n" + b" " * 65536 + b"\r\n"
        answer = send_much(gateway.url, f"{common}transfer-encoding: chunked\r\n\r\n", chunk, GIB)
    assert answer.startswith(b"HTTP/1.1 413 "), answer
    assert b"payload_too_large" in answer
    assert client.execute("echo fine").stdout == "fine\n"


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/no/such/route", 404, "not_found"),
        ("POST", "/api/v1/no-such", 404, "not_found"),
        ("GET", "/api/v1/execute", 405, "method_not_allowed"),
        ("DELETE", "/health", 405, "method_not_allowed"),
    ],
)
def test_unknown_routes_and_wrong_methods(gateway, method, path, status, code):
    raw.assert_problem(raw.request(gateway.url, method, path, None, {}), status, code)


@pytest.mark.parametrize(
    "kind", [{}, {"content-type": "text/plain"}, {"content-type": "application/x-www-form-urlencoded"}]
)
def test_a_content_type_that_is_not_json_is_415(gateway, kind):
    answer = raw.request(gateway.url, "POST", "/api/v1/execute", b'{"command": "true"}', kind)
    raw.assert_problem(answer, 415, "unsupported_media_type")


def test_a_host_that_is_not_loopback_is_refused(gateway):
    body = b'{"command": "true"}'
    headers = raw.JSON | {"host": "gateway.attacker.example"}
    answer = raw.request(gateway.url, "POST", "/api/v1/execute", body, headers)
    raw.assert_problem(answer, answer.status, "forbidden")


@pytest.mark.parametrize(
    "origin", ["null", "http://attacker.example", "http://localhost", "https://{host}", "file://{host}"]
)
@pytest.mark.parametrize("method", ["GET", "POST", "DELETE", "OPTIONS"])
def test_a_web_page_of_another_origin_is_refused(gateway, method, origin):
    host = gateway.url.removeprefix("http://")
    other = origin.format(host="localhost:1" if "https" in origin else host)
    answer = raw.request(gateway.url, method, "/api/v1/instances", None, raw.JSON | {"host": host, "origin": other})
    problem = raw.assert_problem(answer, 403, "forbidden")
    assert other in problem["detail"]


def test_the_servers_own_page_is_served(gateway):
    own = {"origin": gateway.url, "host": gateway.url.removeprefix("http://")}
    assert raw.execute(gateway.url, {"command": "true"}, **own).status == 200
    upgrade = {"connection": "upgrade", "upgrade": "websocket", "sec-websocket-version": "13", "origin": "null"}
    raw.assert_problem(raw.request(gateway.url, "GET", "/api/v1/events", None, upgrade), 403, "forbidden")


def test_a_given_request_id_comes_back_in_answers_and_errors(gateway):
    answer = raw.execute(gateway.url, {"command": "true"}, **{"x-request-id": "mine-7"})
    assert (answer.headers["x-request-id"], answer.json["request_id"]) == ("mine-7", "mine-7")
    problem = raw.assert_problem(raw.execute(gateway.url, {}, **{"x-request-id": "mine-8"}), 422, "invalid_request")
    assert problem["request_id"] == "mine-8"

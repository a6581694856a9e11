"""What the gateway says of itself."""

import pytest

from faas_sdk import APIError, ResponseFormatError
from tests.stub import Reply, problem

YES, NO = {"supported": True, "detail": "cgroup v1"}, {"supported": False, "detail": "no quota here"}
CAPABILITIES = {
    "default_runtime": "native",
    "default_image": "host",
    "runtimes": {
        "native": {
            "available": True,
            "reason": None,
            "features": {"network_egress": NO},
            "limits": {"memory": YES, "cpu": YES, "pids": YES, "disk": NO},
        }
    },
}
HEALTH = {
    "status": "degraded",
    "version": "0.1.0",
    "uptime_ms": 5,
    "runtimes": {"docker": {"available": False, "reason": "no socket", "unenforced_limits": ["disk: no quota"]}},
    "store": {"kind": "postgresql", "available": False, "reason": "it cannot be reached"},
    "docker": False,
    "firecracker": False,
}
VERSION = {"version": "0.1.0", "api": "1", "guest_protocol": 1, "guest_agent": "sha256:00"}


def test_capabilities(caller, stub):
    stub.replies(Reply(json=CAPABILITIES))
    found = caller("capabilities")
    assert (stub.seen[0].method, stub.seen[0].path, stub.seen[0].raw) == ("GET", "/api/v1/capabilities", b"")
    assert (found.default_runtime, found.default_image) == ("native", "host")
    native = found.runtimes["native"]
    assert (native.available, native.reason) == (True, None)
    assert (native.features["network_egress"].supported, native.limits.disk.detail) == (False, "no quota here")
    assert (native.limits.memory.supported, native.limits.cpu.supported, native.limits.pids.supported) == (True,) * 3
    assert found.raw == CAPABILITIES


def test_health(caller, stub):
    stub.replies(Reply(json=HEALTH))
    found = caller("health")
    assert stub.seen[0].path == "/health"
    assert (found.status, found.version, found.uptime_ms) == ("degraded", "0.1.0", 5)
    assert (found.docker, found.firecracker) == (False, False)
    store = found.store
    assert (store.kind, store.available, store.reason) == ("postgresql", False, "it cannot be reached")
    docker = found.runtimes["docker"]
    assert (docker.available, docker.reason, docker.unenforced_limits) == (False, "no socket", ("disk: no quota",))


def test_an_unhealthy_gateway_is_a_result_and_a_problem_is_not(caller, stub):
    unhealthy = Reply(status=503, json=HEALTH | {"status": "unhealthy"}, headers={"content-type": "application/json"})
    stub.replies(unhealthy)
    assert caller("health").status == "unhealthy"
    stub.replies(Reply(status=503, json=problem(503, "overloaded")))
    with pytest.raises(APIError, match="overloaded"):
        caller("health")


def test_version(caller, stub):
    stub.replies(Reply(json=VERSION))
    found = caller("version")
    assert stub.seen[0].path == "/version"
    assert (found.version, found.api, found.guest_protocol, found.guest_agent) == ("0.1.0", "1", 1, "sha256:00")


def test_leaks(caller, stub):
    stub.replies(Reply(json=[{"runtime": "native", "kind": "cgroup", "name": "/sys/fs/cgroup/x"}]))
    (leak,) = caller("leaks")
    assert (stub.seen[0].method, stub.seen[0].path) == ("GET", "/api/v1/admin/leaks")
    assert (leak.runtime, leak.kind, leak.name) == ("native", "cgroup", "/sys/fs/cgroup/x")
    stub.replies(Reply(json=[]))
    assert caller("leaks") == ()


@pytest.mark.parametrize(
    ("verb", "body", "words"),
    [
        ("health", HEALTH | {"runtimes": []}, "/runtimes is an array, not an object"),
        ("health", HEALTH | {"runtimes": {"x": {}}}, "/runtimes/x/available is missing"),
        ("capabilities", CAPABILITIES | {"default_image": None}, "/default_image is null, not a string"),
        ("leaks", {}, "the body is an object, not an array"),
        ("leaks", [{"runtime": "native", "kind": "cgroup"}], "/0/name is missing"),
        ("version", VERSION | {"guest_protocol": 1.5}, "/guest_protocol is a number, not a whole number"),
    ],
)
def test_an_answer_of_another_shape_is_refused_with_the_place(caller, stub, verb, body, words):
    stub.replies(Reply(json=body))
    with pytest.raises(ResponseFormatError) as caught:
        caller(verb)
    assert words in str(caught.value)

"""The names that users import: taking one away is a breaking change."""

import inspect

import pytest

import faas_sdk
from faas_sdk import AsyncFaaSClient, FaaSClient
from faas_sdk._core.operations import execute, instances
from faas_sdk.images import AsyncImages, Images
from faas_sdk.instances import AsyncInstance, AsyncInstances, Instance, Instances
from faas_sdk.options import CreateInstanceOptions, ExecOptions, ExecuteOptions
from tests.stub import Reply, instance

NAMES = """
APIError AsyncFaaSClient AsyncInstance Capabilities ConflictError ConnectFailedError ConnectionLostError
CreateInstanceOptions ExecOptions ExecuteEvent ExecuteOptions ExecuteResult ExecutionTimeoutError ExitEvent FaaSClient
FaaSError FieldError File ForbiddenError GapEvent GoneError Health ImageInfo ImageProgress ImageUnavailableError
Instance InstanceInfo InstanceMetrics InsufficientStorageError InternalError InvalidRequestError Leak LimitsSupport
MethodNotAllowedError NotFoundError OutputEvent OverloadedError PayloadTooLargeError QuotaExceededError
RangeNotSatisfiableError RateLimitedError RequestTimeoutError ResponseFormatError RetryPolicy RuntimeCapabilities
RuntimeHealth RuntimeUnavailableError SandboxLostError StartedEvent StoreHealth Support Timings TransportError
TransportTimeoutError UnauthorizedError UnsupportedError UnsupportedMediaTypeError Usage VersionInfo __version__
""".split()

VERBS = ["base_url", "capabilities", "close", "execute", "health", "images", "instances", "leaks", "stream", "version"]
IMAGE_VERBS = ["import_archive", "list", "pull", "remove"]
CHANGES = ["delete", "exec", "metrics", "pause", "resume", "set_timeout", "start", "stop", "update"]
INSTANCES_VERBS = sorted([*CHANGES, "create", "get", "list"])
INSTANCE_MEMBERS = sorted([*CHANGES, "id", "info", "labels", "name", "refresh", "status"])


def test_the_package_exports_exactly_these_names():
    assert sorted(faas_sdk.__all__) == sorted(NAMES)
    for name in NAMES:
        assert hasattr(faas_sdk, name)


def test_both_clients_have_the_same_verbs():
    for client in (FaaSClient("http://127.0.0.1:1"), AsyncFaaSClient("http://127.0.0.1:1")):
        assert [name for name in dir(client) if not name.startswith("_")] == VERBS
        assert [name for name in dir(client.images) if not name.startswith("_")] == IMAGE_VERBS
        assert [name for name in dir(client.instances) if not name.startswith("_")] == INSTANCES_VERBS


def test_both_kinds_of_an_instance_have_the_same_members(stub):
    stub.replies(Reply(json=instance()))
    with FaaSClient(stub.url) as client:
        found = client.instances.get("ins-1")
    assert [name for name in dir(found) if not name.startswith("_")] == INSTANCE_MEMBERS
    assert [name for name in dir(AsyncInstance) if not name.startswith("_")] == sorted({*INSTANCE_MEMBERS} - {"info"})


@pytest.mark.parametrize("verb", IMAGE_VERBS)
def test_the_verbs_of_images_take_the_same_arguments(verb):
    assert inspect.signature(getattr(Images, verb)) == inspect.signature(getattr(AsyncImages, verb))


def arguments(verb):
    """A verb's arguments with what they default to."""
    return {
        parameter.name: parameter.default
        for parameter in inspect.signature(verb).parameters.values()
        if parameter.name not in ("self", "instance_id")
    }


@pytest.mark.parametrize("verb", INSTANCES_VERBS)
def test_the_verbs_of_instances_take_the_same_arguments(verb):
    assert arguments(getattr(Instances, verb)) == arguments(getattr(AsyncInstances, verb))
    if verb in CHANGES:
        assert arguments(getattr(Instances, verb)) == arguments(getattr(Instance, verb))
        assert arguments(getattr(Instances, verb)) == arguments(getattr(AsyncInstance, verb))


@pytest.mark.parametrize(
    ("operation", "options"),
    [
        (execute.execute, ExecuteOptions),
        (instances.execute, ExecOptions),
        (instances.create, CreateInstanceOptions),
    ],
)
def test_the_typed_options_are_the_operations_arguments(operation, options):
    assert [name for name in arguments(operation) if name != "command"] == list(options.__annotations__)

"""The names that users import: taking one away is a breaking change."""

import inspect

import pytest

import faas_sdk
from faas_sdk import AsyncFaaSClient, FaaSClient
from faas_sdk._core.operations import execute, instances
from faas_sdk.executions import AsyncExecution, AsyncExecutions, Execution, Executions
from faas_sdk.files import AsyncFiles, Files
from faas_sdk.images import AsyncImages, Images
from faas_sdk.instances import AsyncInstance, AsyncInstances, Instance, Instances
from faas_sdk.options import CreateInstanceOptions, ExecOptions, ExecuteOptions
from faas_sdk.terminals import AsyncTerminal, Terminal
from tests.stub import Reply, instance

NAMES = """
APIError AsyncExecution AsyncFaaSClient AsyncFileReader AsyncFiles AsyncInstance AsyncTerminal Capabilities
ConflictError ConnectFailedError ConnectionLostError CreateInstanceOptions EndEvent ExecOptions ExecuteEvent
ExecuteOptions ExecuteResult Execution ExecutionEvent ExecutionInfo ExecutionOutput ExecutionTimeoutError ExitEvent
FaaSClient FaaSError FieldError File FileEvent FileInfo Files ForbiddenError GapEvent GatewayEvent GoneError Health
ImageInfo ImageProgress ImageUnavailableError Instance InstanceInfo InstanceMetrics InsufficientStorageError
InternalError InvalidRequestError Leak LimitsSupport LogEntry MainInfo MethodNotAllowedError NotFoundError OutputEvent
OverloadedError PayloadTooLargeError QuotaExceededError RangeNotSatisfiableError RateLimitedError RequestTimeoutError
ResponseFormatError RetryPolicy RuntimeCapabilities RuntimeHealth RuntimeUnavailableError SandboxLostError
StartedEvent StoreHealth Support Terminal TerminalSize Timings TransportError TransportTimeoutError UnauthorizedError
UnpackedTar UnsupportedError UnsupportedMediaTypeError Usage VersionInfo __version__
""".split()

VERBS = """
base_url capabilities close events execute executions health images instances leaks stream version
""".split()
IMAGE_VERBS = ["import_archive", "list", "pull", "remove"]
EXECUTION_VERBS = ["cancel", "input", "signal", "stream"]
EXECUTIONS_VERBS = sorted([*EXECUTION_VERBS, "get"])
EXECUTION_MEMBERS = sorted([*EXECUTION_VERBS, *"exit_code id info labels output refresh status wait".split()])
FILE_VERBS = """
download_tar list mkdir move open read read_text remove stat upload_tar watch write write_stream
""".split()
TERMINAL_MEMBERS = "close end execution_id gaps offset read reattach resize write".split()
CHANGES = """
delete exec executions logs metrics pause pty resume set_timeout start stop stream update
""".split()
INSTANCES_VERBS = sorted([*CHANGES, "create", "files", "get", "list"])
INSTANCE_MEMBERS = sorted([*CHANGES, "files", "id", "info", "labels", "main", "name", "refresh", "status"])


def test_the_package_exports_exactly_these_names():
    assert sorted(faas_sdk.__all__) == sorted(NAMES)
    for name in NAMES:
        assert hasattr(faas_sdk, name)


def test_both_clients_have_the_same_verbs():
    for client in (FaaSClient("http://127.0.0.1:1"), AsyncFaaSClient("http://127.0.0.1:1")):
        assert [name for name in dir(client) if not name.startswith("_")] == VERBS
        assert [name for name in dir(client.images) if not name.startswith("_")] == IMAGE_VERBS
        assert [name for name in dir(client.instances) if not name.startswith("_")] == INSTANCES_VERBS
        assert [name for name in dir(client.executions) if not name.startswith("_")] == EXECUTIONS_VERBS


def test_both_kinds_of_an_instance_have_the_same_members(stub):
    stub.replies(Reply(json=instance()))
    with FaaSClient(stub.url) as client:
        found = client.instances.get("ins-1")
    assert [name for name in dir(found) if not name.startswith("_")] == INSTANCE_MEMBERS
    of_class = sorted({*INSTANCE_MEMBERS} - {"files", "info"})
    assert [name for name in dir(AsyncInstance) if not name.startswith("_")] == of_class
    for kind in (Execution, AsyncExecution):
        assert [name for name in dir(kind) if not name.startswith("_")] == sorted({*EXECUTION_MEMBERS} - {"info"})
    for kind in (Terminal, AsyncTerminal):
        assert [name for name in dir(kind) if not name.startswith("_")] == TERMINAL_MEMBERS


@pytest.mark.parametrize("verb", IMAGE_VERBS)
def test_the_verbs_of_images_take_the_same_arguments(verb):
    assert inspect.signature(getattr(Images, verb)) == inspect.signature(getattr(AsyncImages, verb))


@pytest.mark.parametrize("verb", FILE_VERBS)
def test_the_verbs_of_files_take_the_same_arguments(verb):
    assert list(inspect.signature(getattr(Files, verb)).parameters.items())[1:] == [
        (name, parameter.replace(annotation=inspect.signature(getattr(Files, verb)).parameters[name].annotation))
        for name, parameter in list(inspect.signature(getattr(AsyncFiles, verb)).parameters.items())[1:]
    ]
    assert [name for name in dir(Files) if not name.startswith("_")] == FILE_VERBS


@pytest.mark.parametrize("verb", EXECUTIONS_VERBS)
def test_the_verbs_of_executions_take_the_same_arguments(verb):
    assert arguments(getattr(Executions, verb)) == arguments(getattr(AsyncExecutions, verb))
    if verb in EXECUTION_VERBS:
        assert arguments(getattr(Executions, verb)) == arguments(getattr(Execution, verb))
        assert arguments(getattr(Executions, verb)) == arguments(getattr(AsyncExecution, verb))


def arguments(verb):
    """A verb's arguments with what they default to."""
    return {
        parameter.name: parameter.default
        for parameter in inspect.signature(verb).parameters.values()
        if parameter.name != "self"
        and not (parameter.name.endswith("_id") and parameter.default is inspect.Parameter.empty)
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
        (instances.exec_members, ExecOptions),
        (instances.create, CreateInstanceOptions),
    ],
)
def test_the_typed_options_are_the_operations_arguments(operation, options):
    optional = [name for name, default in arguments(operation).items() if default is not inspect.Parameter.empty]
    assert optional == list(options.__annotations__)

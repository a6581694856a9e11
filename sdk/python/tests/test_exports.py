"""The names that users import: taking one away is a breaking change."""

import inspect

import pytest

import faas_sdk
from faas_sdk import AsyncFaaSClient, FaaSClient
from faas_sdk._core.operations import execute as operation
from faas_sdk.images import AsyncImages, Images
from faas_sdk.options import ExecuteOptions

NAMES = """
APIError AsyncFaaSClient Capabilities ConflictError ConnectFailedError ConnectionLostError ExecuteEvent
ExecuteOptions ExecuteResult ExecutionTimeoutError ExitEvent FaaSClient FaaSError FieldError File ForbiddenError
GapEvent GoneError Health
ImageInfo ImageProgress ImageUnavailableError InsufficientStorageError InternalError InvalidRequestError LimitsSupport
MethodNotAllowedError NotFoundError OutputEvent OverloadedError PayloadTooLargeError QuotaExceededError
RangeNotSatisfiableError RateLimitedError RequestTimeoutError ResponseFormatError RetryPolicy
RuntimeCapabilities RuntimeHealth RuntimeUnavailableError SandboxLostError StartedEvent StoreHealth Support Timings TransportError
TransportTimeoutError UnauthorizedError UnsupportedError UnsupportedMediaTypeError Usage VersionInfo __version__
""".split()

VERBS = ["base_url", "capabilities", "close", "execute", "health", "images", "stream", "version"]
IMAGE_VERBS = ["import_archive", "list", "pull", "remove"]


def test_the_package_exports_exactly_these_names():
    assert sorted(faas_sdk.__all__) == sorted(NAMES)
    for name in NAMES:
        assert hasattr(faas_sdk, name)


def test_both_clients_have_the_same_verbs():
    for client in (FaaSClient("http://127.0.0.1:1"), AsyncFaaSClient("http://127.0.0.1:1")):
        assert [name for name in dir(client) if not name.startswith("_")] == VERBS
        assert [name for name in dir(client.images) if not name.startswith("_")] == IMAGE_VERBS


@pytest.mark.parametrize("verb", IMAGE_VERBS)
def test_the_verbs_of_images_take_the_same_arguments(verb):
    assert inspect.signature(getattr(Images, verb)) == inspect.signature(getattr(AsyncImages, verb))


def test_the_typed_options_are_the_operations_arguments():
    arguments = [name for name in inspect.signature(operation.execute).parameters if name != "command"]
    assert arguments == list(ExecuteOptions.__annotations__)

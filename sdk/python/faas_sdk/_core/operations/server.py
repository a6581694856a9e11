"""What the gateway says of itself: ``/api/v1/capabilities``, ``/api/v1/admin/leaks``, ``/health``, ``/version``."""

from __future__ import annotations

from collections.abc import Mapping

from faas_sdk._core.call import Call
from faas_sdk._core.decode import Members, each
from faas_sdk.types import (
    Capabilities,
    Health,
    Leak,
    LimitsSupport,
    RuntimeCapabilities,
    RuntimeHealth,
    StoreHealth,
    Support,
    VersionInfo,
)


def capabilities() -> Call[Capabilities]:
    """What every runtime can do."""
    return Call(method="GET", path="/api/v1/capabilities", read=_read_capabilities)


def health() -> Call[Health]:
    """Whether the gateway can work. An unhealthy one answers 503 with the same body: that is a result too."""
    return Call(method="GET", path="/health", read=_read_health, result_statuses=frozenset({200, 503}))


def version() -> Call[VersionInfo]:
    """The gateway's versions."""
    return Call(method="GET", path="/version", read=_read_version)


def leaks() -> Call[tuple[Leak, ...]]:
    """What is on the gateway's host with its mark and belongs to nobody."""
    return Call(method="GET", path="/api/v1/admin/leaks", read=_read_leaks)


def _read_leaks(value: object, _headers: Mapping[str, str]) -> tuple[Leak, ...]:
    return tuple(
        Leak(runtime=members.string("runtime"), kind=members.string("kind"), name=members.string("name"))
        for members in each(value)
    )


def _read_capabilities(value: object, _headers: Mapping[str, str]) -> Capabilities:
    members = Members(value)
    return Capabilities(
        default_runtime=members.optional_string("default_runtime"),
        default_image=members.string("default_image"),
        runtimes=members.map("runtimes", _read_runtime_capabilities),
        raw=members.raw,
    )


def _read_runtime_capabilities(members: Members) -> RuntimeCapabilities:
    limits = members.child("limits")
    return RuntimeCapabilities(
        available=members.boolean("available"),
        reason=members.optional_string("reason"),
        features=members.map("features", _read_support),
        limits=LimitsSupport(
            memory=_read_support(limits.child("memory")),
            cpu=_read_support(limits.child("cpu")),
            pids=_read_support(limits.child("pids")),
            disk=_read_support(limits.child("disk")),
        ),
    )


def _read_support(members: Members) -> Support:
    return Support(supported=members.boolean("supported"), detail=members.string("detail"))


def _read_health(value: object, _headers: Mapping[str, str]) -> Health:
    members = Members(value)
    return Health(
        status=members.string("status"),
        version=members.string("version"),
        uptime_ms=members.integer("uptime_ms"),
        runtimes=members.map("runtimes", _read_runtime_health),
        store=_read_store_health(members.child("store")),
        docker=members.boolean("docker"),
        firecracker=members.boolean("firecracker"),
        raw=members.raw,
    )


def _read_store_health(members: Members) -> StoreHealth:
    return StoreHealth(
        kind=members.string("kind"),
        available=members.boolean("available"),
        reason=members.optional_string("reason"),
    )


def _read_runtime_health(members: Members) -> RuntimeHealth:
    return RuntimeHealth(
        available=members.boolean("available"),
        reason=members.optional_string("reason"),
        unenforced_limits=members.strings("unenforced_limits"),
    )


def _read_version(value: object, _headers: Mapping[str, str]) -> VersionInfo:
    members = Members(value)
    return VersionInfo(
        version=members.string("version"),
        api=members.string("api"),
        guest_protocol=members.integer("guest_protocol"),
        guest_agent=members.string("guest_agent"),
        raw=members.raw,
    )

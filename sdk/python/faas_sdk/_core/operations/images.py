"""``/api/v1/images``: the gateway's image store."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping

from faas_sdk._core.call import IDEMPOTENCY_KEY, Call, Upload
from faas_sdk._core.decode import DecodeError, Members
from faas_sdk._core.headers import given_headers
from faas_sdk._core.pages import Listing, with_query
from faas_sdk.types import ImageInfo, ImageProgress

PATH = "/api/v1/images"

HTTP_TIMEOUT_S = 1860.0
"""How long adding an image may take: the gateway's own limit for a pull (30 min by default), and a minute."""

OnProgress = Callable[[ImageProgress], None]


def listing(name: str | None, limit: int | None) -> Listing[ImageInfo]:
    """The images of the store, page by page."""
    return Listing(PATH, {"name": None if name is None else _checked(name)}, limit, read_image)


def pull(
    name: str, *, on_progress: OnProgress | None, idempotency_key: str | None, http_timeout_s: float | None
) -> Call[ImageInfo]:
    """Fetch an image from its registry."""
    if on_progress is not None and idempotency_key is not None:
        raise ValueError("idempotency_key is for a pull without on_progress: an answer in steps is not kept")
    return Call(
        method="POST",
        path=PATH,
        headers=_accepted(on_progress) | given_headers({IDEMPOTENCY_KEY: idempotency_key}),
        body=json.dumps({"name": _checked(name)}, ensure_ascii=False).encode(),
        http_timeout_s=http_timeout_s,
        default_http_timeout_s=HTTP_TIMEOUT_S,
        result_statuses=frozenset({201}),
        read=_read_pulled,
        on_progress=on_progress,
    )


def import_archive(
    archive: bytes | Upload, *, name: str | None, on_progress: OnProgress | None, http_timeout_s: float | None
) -> Call[tuple[ImageInfo, ...]]:
    """Add the images of an archive."""
    return Call(
        method="POST",
        path=with_query(PATH, {"name": None if name is None else _checked(name)}),
        headers={"content-type": "application/octet-stream"} | _accepted(on_progress),
        body=archive,
        http_timeout_s=http_timeout_s,
        default_http_timeout_s=HTTP_TIMEOUT_S,
        result_statuses=frozenset({201}),
        read=_read_added,
        on_progress=on_progress,
    )


def remove(name: str) -> Call[None]:
    """Remove a name, or an image with all its names."""
    return Call(
        method="DELETE",
        path=with_query(PATH, {"name": _checked(name)}),
        result_statuses=frozenset({204}),
        read=lambda _value, _headers: None,
    )


def read_image(members: Members) -> ImageInfo:
    """An ``ImageInfo``.

    Raises:
        DecodeError: it is not one.
    """
    return ImageInfo(
        id=members.string("id"),
        names=members.strings("names"),
        repo_digests=members.strings("repo_digests"),
        architecture=members.string("architecture"),
        created_at=members.optional_string("created_at"),
        size_bytes=members.integer("size_bytes"),
        layers=members.integer("layers"),
        added_at=members.string("added_at"),
        last_used_at=members.string("last_used_at"),
        in_use=members.boolean("in_use"),
        env_vars=members.string_map("env_vars"),
        working_dir=members.string("working_dir"),
        user=members.string("user"),
        entrypoint=members.strings("entrypoint"),
        cmd=members.strings("cmd"),
        raw=members.raw,
    )


def _read_added(value: object, _headers: Mapping[str, str]) -> tuple[ImageInfo, ...]:
    return tuple(read_image(members) for members in Members(value).children("images"))


def _read_pulled(value: object, headers: Mapping[str, str]) -> ImageInfo:
    images = _read_added(value, headers)
    if len(images) != 1:
        raise DecodeError(f"/images has {len(images)} entries for one image that was pulled")
    return images[0]


def _accepted(on_progress: OnProgress | None) -> dict[str, str]:
    return {} if on_progress is None else {"accept": "application/x-ndjson"}


def _checked(name: object) -> str:
    if not isinstance(name, str):
        raise TypeError(f"name is a string, not {type(name).__name__}")
    return name

"""``/api/v1/instances/{id}/files``: the files of an instance."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Never, TypeVar

from faas_sdk._core.call import Call, Upload
from faas_sdk._core.decode import DecodeError, Members
from faas_sdk._core.event_source import EventSource, stream_call
from faas_sdk._core.operations.ids import segment
from faas_sdk._core.pages import Listing, with_query
from faas_sdk.types import FileEvent, FileInfo, UnpackedTar

TRANSFER_TIMEOUT_S = 600.0
"""The longest silence while files are transferred: they may have to be synced, or a tar be unpacked."""

FilePath = str | os.PathLike[str]
"""A path in an instance: absolute, or relative to its working directory."""

T = TypeVar("T")


class FileRoute:
    """The route of one instance's files."""

    def __init__(self, instance_id: str) -> None:
        self._path = f"/api/v1/instances/{segment('instance_id', instance_id)}/files"

    def read(self, path: FilePath, offset: int, length: int | None, user: str | None) -> Call[bytes]:
        """The bytes of a file, or a part of them."""
        part = _range(offset, length)
        return Call(
            method="GET",
            path=self._asked({"path": path, "user": user}),
            headers={"accept": "*/*"} | ({} if part is None else {"range": part}),
            default_http_timeout_s=TRANSFER_TIMEOUT_S,
            result_statuses=frozenset({200} if part is None else {206}),
            raw=True,
            read=_bytes,
        )

    def tar(self, path: FilePath, user: str | None) -> Call[bytes]:
        """A tar archive of a directory or a file."""
        return Call(
            method="GET",
            path=self._asked({"path": path, "tar": "true", "user": user}),
            headers={"accept": "*/*"},
            default_http_timeout_s=TRANSFER_TIMEOUT_S,
            raw=True,
            read=_bytes,
        )

    def stat(self, path: FilePath, user: str | None) -> Call[FileInfo]:
        """What stands at a path."""
        return Call(method="GET", path=self._asked({"path": path, "stat": "true", "user": user}), read=_read_info)

    def listing(self, path: FilePath, limit: int | None, user: str | None) -> Listing[FileInfo]:
        """What is in a directory, page by page."""
        return Listing(self._path, {"path": _text(path), "list": "true", "user": user}, limit, read_file_info)

    def write(
        self, path: FilePath, body: bytes | Upload, mode: int | str | None, owner: str | None, user: str | None
    ) -> Call[FileInfo]:
        """Make a file, or another one in its place."""
        asked = {"path": path, "mode": _mode(mode), "owner": owner, "user": user}
        return self._put(asked, body, _read_info)

    def unpack(self, path: FilePath, body: bytes | Upload, user: str | None) -> Call[UnpackedTar]:
        """Unpack a tar archive into a directory."""
        return self._put({"path": path, "tar": "true", "user": user}, body, _read_unpacked)

    def mkdir(self, path: FilePath, mode: int | str | None, user: str | None) -> Call[FileInfo]:
        """Make a directory. One that is there is no error."""
        return self._post({"op": "mkdir", "path": path, "mode": _mode(mode), "user": user}, idempotent=True)

    def move(self, path: FilePath, to: FilePath, user: str | None) -> Call[FileInfo]:
        """Give it another path."""
        return self._post({"op": "move", "path": path, "to": to, "user": user}, idempotent=False)

    def remove(self, path: FilePath, recursive: bool, user: str | None) -> Call[None]:
        """Remove it."""
        return Call(
            method="DELETE",
            path=self._asked({"path": path, "recursive": "true" if recursive else None, "user": user}),
            default_http_timeout_s=TRANSFER_TIMEOUT_S,
            result_statuses=frozenset({204}),
            read=lambda _value, _headers: None,
        )

    def watch(self, path: FilePath, recursive: bool, user: str | None) -> FileEvents:
        """What happens there from now on."""
        asked = {"path": path, "watch": "true", "recursive": "true" if recursive else None, "user": user}
        return FileEvents(self._path, {name: _text(value) for name, value in asked.items() if value is not None})

    def _put(
        self,
        asked: Mapping[str, FilePath | None],
        body: bytes | Upload,
        read: Callable[[object, Mapping[str, str]], T],
    ) -> Call[T]:
        return Call(
            method="PUT",
            path=self._asked(asked),
            headers={"content-type": "application/octet-stream"},
            body=body,
            default_http_timeout_s=TRANSFER_TIMEOUT_S,
            result_statuses=frozenset({200, 201}),
            idempotent=True,
            read=read,
        )

    def _post(self, asked: Mapping[str, FilePath | None], *, idempotent: bool) -> Call[FileInfo]:
        return Call(
            method="POST",
            path=self._asked(asked),
            body=b"",
            result_statuses=frozenset({200, 201}),
            idempotent=idempotent,
            read=_read_info,
        )

    def _asked(self, asked: Mapping[str, FilePath | None]) -> str:
        return with_query(self._path, {name: _text(value) for name, value in asked.items() if value is not None})


class FileEvents(EventSource[FileEvent]):
    """What happens where a watch looks. What happened while nobody was connected is not kept: it does not go on."""

    def __init__(self, path: str, asked: Mapping[str, str]) -> None:
        super().__init__()
        self._call = stream_call(path, asked)

    def call(self) -> Call[Never]:
        return self._call

    def read(self, members: Members) -> FileEvent | None:
        return FileEvent(
            kind=members.string("event"),
            path=members.optional_string("path"),
            moved_from=members.optional_string("from"),
            type=members.optional_string("type"),
            raw=members.raw,
        )


def read_file_info(members: Members) -> FileInfo:
    """A ``FileInfo``.

    Raises:
        DecodeError: it is not one.
    """
    return FileInfo(
        path=members.string("path"),
        path_base64=members.optional_string("path_base64"),
        name=members.string("name"),
        type=members.string("type"),
        size_bytes=members.integer("size_bytes"),
        mode=members.string("mode"),
        uid=members.integer("uid"),
        gid=members.integer("gid"),
        owner=members.optional_string("owner"),
        group=members.optional_string("group"),
        modified_at=members.string("modified_at"),
        target=members.optional_string("target"),
        raw=members.raw,
    )


def _read_info(value: object, _headers: Mapping[str, str]) -> FileInfo:
    return read_file_info(Members(value))


def _read_unpacked(value: object, _headers: Mapping[str, str]) -> UnpackedTar:
    members = Members(value)
    return UnpackedTar(files=members.integer("files"), bytes=members.integer("bytes"))


def _bytes(value: object, _headers: Mapping[str, str]) -> bytes:
    if not isinstance(value, bytes):
        raise DecodeError("the answer is no bytes")
    return value


def _range(offset: int, length: int | None) -> str | None:
    if offset < 0 or (length is not None and length < 1):
        raise ValueError(f"offset {offset} and length {length} are no part of a file")
    if length is None:
        return None if offset == 0 else f"bytes={offset}-"
    return f"bytes={offset}-{offset + length - 1}"


def _mode(mode: int | str | None) -> str | None:
    return f"{mode:04o}" if isinstance(mode, int) else mode


def _text(path: FilePath) -> str:
    text = os.fspath(path)
    if not isinstance(text, str):
        raise TypeError(f"a path is text, not {type(text).__name__}")
    return text

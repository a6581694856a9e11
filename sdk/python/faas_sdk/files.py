"""The files of an instance: the attribute ``files`` of an instance. Same verbs, same arguments for both clients.

Paths in an instance are absolute, or relative to its working directory. Every verb takes `user`, as whom it is done:
the instance's user when not given. Nothing of a file is in memory as a whole but with ``read`` and ``read_text``.
"""

from __future__ import annotations

import io
from collections.abc import AsyncGenerator, AsyncIterator, Generator
from types import TracebackType
from typing import TYPE_CHECKING, Self

from faas_sdk._core.operations.files import FilePath, FileRoute
from faas_sdk._transport.aio import AsyncTransport
from faas_sdk._transport.aio import Body as AsyncBody
from faas_sdk._transport.blocking import BlockingTransport, Body
from faas_sdk._transport.upload import upload_of
from faas_sdk.options import AsyncUploadSource, UploadSource
from faas_sdk.types import FileEvent, FileInfo, UnpackedTar

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

__all__ = ["AsyncFileReader", "AsyncFiles", "Files"]

_BUFFER_BYTES = 256 * 1024


class Files:
    """The files of an :class:`faas_sdk.instances.Instance`."""

    def __init__(self, transport: BlockingTransport, instance_id: str) -> None:
        self._transport = transport
        self._route = FileRoute(instance_id)

    def read(self, path: FilePath, *, offset: int = 0, length: int | None = None, user: str | None = None) -> bytes:
        """The bytes of a file, or a part of them.

        Args:
            path: the file.
            offset: the first byte.
            length: the most bytes; all of them when not given.
            user: as whom.

        Raises:
            NotFoundError: there is none.
            ForbiddenError: the user may not read it.
            RangeNotSatisfiableError: the file ends before `offset`.
            InvalidRequestError: it is a directory, or leads nowhere.
        """
        return self._transport.send(self._route.read(path, offset, length, user))

    def read_text(self, path: FilePath, *, encoding: str = "utf-8", user: str | None = None) -> str:
        """The text in a file.

        Raises:
            UnicodeDecodeError: it is not of this encoding.
        """
        return self.read(path, user=user).decode(encoding)

    def open(
        self, path: FilePath, *, offset: int = 0, length: int | None = None, user: str | None = None
    ) -> io.BufferedReader:
        """A file opened for reading, or a part of it, which is read while it comes. To be closed, or read to its end.

        Raises:
            NotFoundError: there is none; and so on as for :meth:`read`.
            ConnectionLostError: when read, where the connection broke before its end.
        """
        return _buffered(self._transport.open(self._route.read(path, offset, length, user)))

    def write(
        self,
        path: FilePath,
        content: str | bytes,
        *,
        mode: int | str | None = None,
        owner: str | None = None,
        user: str | None = None,
    ) -> FileInfo:
        """Makes a file, or another one in its place: it is whole at its path, or what was there before is.

        Args:
            path: where; missing parents are made.
            content: its content; text is stored as UTF-8.
            mode: permission bits (``0o755`` or ``"0755"``); 0644 for a new file.
            owner: ``user[:group]`` or ``uid:gid``.
            user: as whom.

        Raises:
            ForbiddenError: the user may not write there.
            InsufficientStorageError: there is no room for it.
        """
        body = content.encode() if isinstance(content, str) else bytes(content)
        return self._transport.send(self._route.write(path, body, mode, owner, user))

    def write_stream(
        self,
        path: FilePath,
        source: UploadSource,
        *,
        mode: int | str | None = None,
        owner: str | None = None,
        user: str | None = None,
    ) -> FileInfo:
        """The same from a file of this machine, an open file or an iterator, a piece at a time.

        Args:
            path: where; missing parents are made.
            source: the path of a file of this machine, a file opened with mode ``"rb"``, an iterator of bytes, or
                bytes. What cannot be read a second time is sent once.
            mode: as for :meth:`write`.
            owner: as for :meth:`write`.
            user: as whom.

        Raises:
            OSError: the file cannot be read.
        """
        return self._transport.send(self._route.write(path, upload_of(source), mode, owner, user))

    def stat(self, path: FilePath, *, user: str | None = None) -> FileInfo:
        """What stands at a path; of a symbolic link the link itself.

        Raises:
            NotFoundError: nothing does.
        """
        return self._transport.send(self._route.stat(path, user))

    def list(self, path: FilePath, *, limit: int | None = None, user: str | None = None) -> tuple[FileInfo, ...]:
        """What is in a directory, by name, however many pages it takes.

        Args:
            path: the directory.
            limit: the most entries to tell of; all of them when not given.
            user: as whom.
        """
        listing = self._route.listing(path, limit, user)
        while (call := listing.next_call()) is not None:
            listing.add(self._transport.send(call))
        return listing.entries()

    def mkdir(self, path: FilePath, *, mode: int | str | None = None, user: str | None = None) -> FileInfo:
        """Makes a directory, with missing parents. One that is there is no error.

        Raises:
            ConflictError: something else stands there.
        """
        return self._transport.send(self._route.mkdir(path, mode, user))

    def move(self, path: FilePath, to: FilePath, *, user: str | None = None) -> FileInfo:
        """Gives it another path, in place of what is there."""
        return self._transport.send(self._route.move(path, to, user))

    def remove(self, path: FilePath, *, recursive: bool = False, user: str | None = None) -> None:
        """Removes a file, or a directory.

        Args:
            path: what.
            recursive: whether a directory is removed with all that is in it.
            user: as whom.

        Raises:
            NotFoundError: there is none.
            ConflictError: the directory is not empty.
        """
        self._transport.send(self._route.remove(path, recursive, user))

    def download_tar(self, path: FilePath, *, user: str | None = None) -> io.BufferedReader:
        """A tar archive of a directory or a file, which is read while it comes.

        For :func:`tarfile.open` with mode ``"r|"``, or to be copied into a file. To be closed, or read to its end.
        """
        return _buffered(self._transport.open(self._route.tar(path, user)))

    def upload_tar(self, path: FilePath, source: UploadSource, *, user: str | None = None) -> UnpackedTar:
        """Unpacks a tar archive into a directory. What would come to lie outside it is refused.

        Args:
            path: the directory.
            source: as for :meth:`write_stream`.
            user: as whom.
        """
        return self._transport.send(self._route.unpack(path, upload_of(source), user))

    def watch(self, path: FilePath, *, recursive: bool = False, user: str | None = None) -> Generator[FileEvent]:
        """What happens to a file, or in a directory, from the first event on, which is ``ready``.

        Nothing is watched before that one is asked for. Closing the generator ends it.

        Args:
            path: the file or directory.
            recursive: whether what is below its directories is watched, too.
            user: as whom.

        Raises:
            SandboxLostError: the instance ended.
            ConnectionLostError: the connection broke: what happens from then on is not seen.
        """
        return self._transport.stream(self._route.watch(path, recursive, user))


class AsyncFiles:
    """The files of an :class:`faas_sdk.instances.AsyncInstance`."""

    def __init__(self, transport: AsyncTransport, instance_id: str) -> None:
        self._transport = transport
        self._route = FileRoute(instance_id)

    async def read(
        self, path: FilePath, *, offset: int = 0, length: int | None = None, user: str | None = None
    ) -> bytes:
        """See :meth:`Files.read`."""
        return await self._transport.send(self._route.read(path, offset, length, user))

    async def read_text(self, path: FilePath, *, encoding: str = "utf-8", user: str | None = None) -> str:
        """See :meth:`Files.read_text`."""
        return (await self.read(path, user=user)).decode(encoding)

    async def open(
        self, path: FilePath, *, offset: int = 0, length: int | None = None, user: str | None = None
    ) -> AsyncFileReader:
        """See :meth:`Files.open`."""
        return AsyncFileReader(await self._transport.open(self._route.read(path, offset, length, user)))

    async def write(
        self,
        path: FilePath,
        content: str | bytes,
        *,
        mode: int | str | None = None,
        owner: str | None = None,
        user: str | None = None,
    ) -> FileInfo:
        """See :meth:`Files.write`."""
        body = content.encode() if isinstance(content, str) else bytes(content)
        return await self._transport.send(self._route.write(path, body, mode, owner, user))

    async def write_stream(
        self,
        path: FilePath,
        source: AsyncUploadSource,
        *,
        mode: int | str | None = None,
        owner: str | None = None,
        user: str | None = None,
    ) -> FileInfo:
        """See :meth:`Files.write_stream`. `source` may be an asynchronous iterator, too."""
        body = upload_of(source, is_async=True)
        return await self._transport.send(self._route.write(path, body, mode, owner, user))

    async def stat(self, path: FilePath, *, user: str | None = None) -> FileInfo:
        """See :meth:`Files.stat`."""
        return await self._transport.send(self._route.stat(path, user))

    async def list(self, path: FilePath, *, limit: int | None = None, user: str | None = None) -> tuple[FileInfo, ...]:
        """See :meth:`Files.list`."""
        listing = self._route.listing(path, limit, user)
        while (call := listing.next_call()) is not None:
            listing.add(await self._transport.send(call))
        return listing.entries()

    async def mkdir(self, path: FilePath, *, mode: int | str | None = None, user: str | None = None) -> FileInfo:
        """See :meth:`Files.mkdir`."""
        return await self._transport.send(self._route.mkdir(path, mode, user))

    async def move(self, path: FilePath, to: FilePath, *, user: str | None = None) -> FileInfo:
        """See :meth:`Files.move`."""
        return await self._transport.send(self._route.move(path, to, user))

    async def remove(self, path: FilePath, *, recursive: bool = False, user: str | None = None) -> None:
        """See :meth:`Files.remove`."""
        await self._transport.send(self._route.remove(path, recursive, user))

    async def download_tar(self, path: FilePath, *, user: str | None = None) -> AsyncFileReader:
        """See :meth:`Files.download_tar`."""
        return AsyncFileReader(await self._transport.open(self._route.tar(path, user)))

    async def upload_tar(self, path: FilePath, source: AsyncUploadSource, *, user: str | None = None) -> UnpackedTar:
        """See :meth:`Files.upload_tar`."""
        return await self._transport.send(self._route.unpack(path, upload_of(source, is_async=True), user))

    def watch(self, path: FilePath, *, recursive: bool = False, user: str | None = None) -> AsyncGenerator[FileEvent]:
        """See :meth:`Files.watch`."""
        return self._transport.stream(self._route.watch(path, recursive, user))


class AsyncFileReader:
    """A file of an instance, opened for reading: an asynchronous iterator of its pieces.

    In an ``async with`` statement it is closed at the end of it.
    """

    def __init__(self, body: AsyncBody) -> None:
        self._body = body
        self._rest = bytearray()

    async def read(self, size: int = -1) -> bytes:
        """At most so many bytes, all that are left where it is negative; none at the end.

        Raises:
            ConnectionLostError: the connection broke before the file's end.
        """
        while size < 0 or len(self._rest) < size:
            piece = await anext(self._body.pieces, b"")
            if not piece:
                break
            self._rest += piece
        end = len(self._rest) if size < 0 else size
        taken = bytes(self._rest[:end])
        del self._rest[:end]
        return taken

    async def close(self) -> None:
        """Closes it. May be called twice."""
        await self._body.close()

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while piece := await self.read(_BUFFER_BYTES):
            yield piece

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()


class _Raw(io.RawIOBase):
    """The body of an answer as a file."""

    def __init__(self, body: Body) -> None:
        super().__init__()
        self._body = body
        self._rest = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: WriteableBuffer, /) -> int:
        into = memoryview(buffer).cast("B")
        while not self._rest:
            piece = next(self._body.pieces, None)
            if piece is None:
                return 0
            self._rest = memoryview(piece)
        count = min(len(into), len(self._rest))
        into[:count] = self._rest[:count]
        self._rest = self._rest[count:]
        return count

    def close(self) -> None:
        self._body.close()
        super().close()


def _buffered(body: Body) -> io.BufferedReader:
    return io.BufferedReader(_Raw(body), _BUFFER_BYTES)

"""Reads what is sent from a file or from something of the caller's, a piece at a time."""

from __future__ import annotations

import asyncio
import errno
import os
import stat
import threading
from collections.abc import AsyncIterable, AsyncIterator, Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

from faas_sdk._core.call import Pieces, Upload
from faas_sdk.options import ArchiveSource, AsyncUploadSource, Reader

PIECE_BYTES = 256 * 1024
"""How much of it is in memory at once."""


def archive_of(source: ArchiveSource) -> bytes | Upload:
    """The body that an archive is sent as.

    Raises:
        OSError: there is no such file, or it cannot be looked at.
        IsADirectoryError: it is a directory.
        TypeError: it is none of what an archive can be.
    """
    if (upload := _upload_of(source, "A directory is not an archive; make a tar of it")) is None:
        raise TypeError(f"an archive is a path, bytes, or an open file, not {type(source).__name__}")
    return upload


def upload_of(source: AsyncUploadSource, *, is_async: bool = False) -> bytes | Upload:
    """The body that a file is sent as: the same, and iterators too.

    Raises:
        OSError: there is no such file, or it cannot be looked at.
        IsADirectoryError: it is a directory.
        TypeError: it is none of what can be sent.
    """
    if (upload := _upload_of(source, "A directory is no file; make a tar of it, for upload_tar")) is not None:
        return upload
    if is_async and isinstance(source, AsyncIterable):
        return Upload(source=Pieces(aiter(source)), size_bytes=None, once=True)
    if isinstance(source, Iterable) and not isinstance(source, str | os.PathLike):
        return Upload(source=Pieces(iter(source)), size_bytes=None, once=True)
    raise TypeError(f"what is sent is a path, bytes, an open file or an iterator, not {type(source).__name__}")


def _upload_of(source: object, directory: str) -> bytes | Upload | None:
    match source:
        case bytes() | bytearray() | memoryview():
            return bytes(source)
        case str() | os.PathLike():
            path = Path(source)
            found = path.stat()
            if stat.S_ISDIR(found.st_mode):
                raise IsADirectoryError(errno.EISDIR, directory, str(path))
            is_file = stat.S_ISREG(found.st_mode)
            return Upload(source=path, size_bytes=found.st_size if is_file else None, once=not is_file)
        case _ if isinstance(source, Reader):
            return Upload(source=source, size_bytes=None, once=True)
    return None


def pieces(body: bytes | Upload | None) -> bytes | Iterator[bytes] | None:
    """The content of a request."""
    return _pieces(body) if isinstance(body, Upload) else body


def async_pieces(body: bytes | Upload | None) -> bytes | AsyncIterator[bytes] | None:
    """The same, read in a thread of its own so that the event loop does not wait for a disk."""
    return _async_pieces(body) if isinstance(body, Upload) else body


def _pieces(upload: Upload) -> Iterator[bytes]:
    if isinstance(upload.source, Pieces):
        if isinstance(upload.source.iterator, AsyncIterator):
            raise TypeError("an asynchronous iterator is for the asyncio client")
        yield from filter(None, map(_checked, upload.source.iterator))
        return
    reading = _Reading(upload.source, upload.size_bytes)
    try:
        while piece := reading.next_piece():
            yield piece
    finally:
        reading.close()


async def _async_pieces(upload: Upload) -> AsyncIterator[bytes]:
    if isinstance(upload.source, Pieces):
        iterator = upload.source.iterator
        async for piece in iterator if isinstance(iterator, AsyncIterator) else _in_a_thread(iterator):
            if checked := _checked(piece):
                yield checked
        return
    reading = _Reading(upload.source, upload.size_bytes)
    try:
        while piece := await asyncio.to_thread(reading.next_piece):
            yield piece
    finally:
        # Also where the call is cancelled just here, or while a piece is being read in its thread.
        await asyncio.shield(asyncio.get_running_loop().run_in_executor(None, reading.close))


async def _in_a_thread(iterator: Iterator[object]) -> AsyncIterator[object]:
    while (piece := await asyncio.to_thread(next, iterator, None)) is not None:
        yield piece


def _checked(piece: object) -> bytes:
    if not isinstance(piece, bytes | bytearray | memoryview):
        raise TypeError(f"the iterator gives {type(piece).__name__}, not bytes")
    return bytes(piece)


class _Reading:
    """One pass over an upload. A file is sent as long as it was when the call began: its length is announced."""

    def __init__(self, source: Path | Reader, size_bytes: int | None) -> None:
        self._source = source
        self._left = size_bytes
        self._file: BinaryIO | None = None
        self._closed = False
        self._lock = threading.Lock()

    def next_piece(self) -> bytes:
        """The next piece, empty at the end and after `close`."""
        with self._lock:
            if self._closed:
                return b""
            piece = self._reader().read(PIECE_BYTES if self._left is None else min(PIECE_BYTES, self._left))
            if not isinstance(piece, bytes):
                raise TypeError(f"its read() gives {type(piece).__name__}, not bytes; open it with mode 'rb'")
            if self._left is not None:
                if not piece and self._left > 0:
                    raise OSError(f"the file is {self._left} bytes shorter than when the call began")
                self._left -= len(piece)
            return piece

    def close(self) -> None:
        """Closes the file, where it was opened here. Waits for a piece that is being read."""
        with self._lock:
            self._closed = True
            if self._file is not None:
                self._file.close()

    def _reader(self) -> Reader:
        if not isinstance(self._source, Path):
            return self._source
        if self._file is None:
            self._file = self._source.open("rb")
        return self._file

"""The gateway's image store: the attribute ``images`` of the two clients. Same verbs, same arguments.

The image ``host`` is not in the store: it is the gateway's machine itself.
"""

from __future__ import annotations

from collections.abc import Callable

from faas_sdk._core.operations import images
from faas_sdk._transport.aio import AsyncTransport
from faas_sdk._transport.blocking import BlockingTransport
from faas_sdk._transport.upload import archive_of
from faas_sdk.options import ArchiveSource
from faas_sdk.types import ImageInfo, ImageProgress

__all__ = ["AsyncImages", "Images"]


class Images:
    """The image store of a :class:`faas_sdk.client.FaaSClient`."""

    def __init__(self, transport: BlockingTransport) -> None:
        self._transport = transport

    def list(self, name: str | None = None, *, limit: int | None = None) -> tuple[ImageInfo, ...]:
        """The images of the store, the latest first, however many pages they take.

        Args:
            name: only the image of this name or id.
            limit: the most images to tell of; all of them when not given.
        """
        listing = images.listing(name, limit)
        while (call := listing.next_call()) is not None:
            listing.add(self._transport.send(call))
        return listing.entries()

    def pull(
        self,
        name: str,
        *,
        on_progress: Callable[[ImageProgress], None] | None = None,
        idempotency_key: str | None = None,
        http_timeout_s: float | None = None,
    ) -> ImageInfo:
        """Fetches an image from its registry, whether or not the store has one of that name.

        Args:
            name: ``[HOST[:PORT]/]PATH[:TAG][@DIGEST]``. Without a host it is one of Docker Hub's, without a tag
                ``latest``.
            on_progress: is called with each step as it comes, in the thread of the call; what it raises ends the call.
            idempotency_key: with it the pull is done once, however often it is sent; not with `on_progress`.
            http_timeout_s: the longest silence of the gateway in seconds; the client's, or 1860.

        Raises:
            ImageUnavailableError: the registry does not have it, does not give it, or cannot be reached.
            APIError: another error of the gateway, before the first step or after it; a subclass for each code.
            ConnectionLostError: the connection broke before the end. The gateway may have the image.
            TransportError: no answer came.
        """
        return self._transport.send(
            images.pull(name, on_progress=on_progress, idempotency_key=idempotency_key, http_timeout_s=http_timeout_s)
        )

    def import_archive(
        self,
        archive: ArchiveSource,
        name: str | None = None,
        *,
        on_progress: Callable[[ImageProgress], None] | None = None,
        http_timeout_s: float | None = None,
    ) -> tuple[ImageInfo, ...]:
        """Adds the images of an archive: an OCI layout as a tar or what ``docker save`` writes, also with gzip or zstd.

        Args:
            archive: a path (``str`` or ``os.PathLike``), a file opened with mode ``"rb"`` (or anything else with
                ``read``), or the archive's bytes. A file is read piece by piece while it is sent. An open one is read
                from where it stands, is not closed, and is sent once: such a call is never tried again.
            name: the name that the image gets, in place of those that the archive has.
            on_progress: as for :meth:`pull`; the first step comes when the archive has been sent.
            http_timeout_s: as for :meth:`pull`.

        Raises:
            OSError: the file cannot be read; :class:`IsADirectoryError` for a directory.
            TypeError: it is none of these.
            InvalidRequestError: it is not an archive of images, or of none for the gateway's processor.
            PayloadTooLargeError: it is larger than all images may be on the gateway.
            APIError: another error of the gateway; a subclass for each code.
            TransportError: no answer came.
        """
        body = archive_of(archive)
        return self._transport.send(
            images.import_archive(body, name=name, on_progress=on_progress, http_timeout_s=http_timeout_s)
        )

    def remove(self, name: str) -> None:
        """Removes a name, and the image with it when it was its last one; given an id, the image with all its names.

        Raises:
            NotFoundError: there is none.
            ConflictError: a sandbox uses it.
        """
        self._transport.send(images.remove(name))


class AsyncImages:
    """The image store of a :class:`faas_sdk.client.AsyncFaaSClient`."""

    def __init__(self, transport: AsyncTransport) -> None:
        self._transport = transport

    async def list(self, name: str | None = None, *, limit: int | None = None) -> tuple[ImageInfo, ...]:
        """See :meth:`Images.list`."""
        listing = images.listing(name, limit)
        while (call := listing.next_call()) is not None:
            listing.add(await self._transport.send(call))
        return listing.entries()

    async def pull(
        self,
        name: str,
        *,
        on_progress: Callable[[ImageProgress], None] | None = None,
        idempotency_key: str | None = None,
        http_timeout_s: float | None = None,
    ) -> ImageInfo:
        """See :meth:`Images.pull`. ``on_progress`` is called in the event loop and is no coroutine function."""
        return await self._transport.send(
            images.pull(name, on_progress=on_progress, idempotency_key=idempotency_key, http_timeout_s=http_timeout_s)
        )

    async def import_archive(
        self,
        archive: ArchiveSource,
        name: str | None = None,
        *,
        on_progress: Callable[[ImageProgress], None] | None = None,
        http_timeout_s: float | None = None,
    ) -> tuple[ImageInfo, ...]:
        """See :meth:`Images.import_archive`. The archive is read in a thread; ``on_progress`` as for :meth:`pull`."""
        body = archive_of(archive)
        return await self._transport.send(
            images.import_archive(body, name=name, on_progress=on_progress, http_timeout_s=http_timeout_s)
        )

    async def remove(self, name: str) -> None:
        """See :meth:`Images.remove`."""
        await self._transport.send(images.remove(name))

"""Gateways on one data directory, one after the other, and the instances that outlive each of them."""

from __future__ import annotations

from collections.abc import Callable

from faas_sdk import FaaSClient, RetryPolicy

import leftovers
from gateway import Gateway

ONCE = RetryPolicy(max_retries=0)


class Succession:
    """The gateway that runs now, and a client of it."""

    def __init__(self, start: Callable[..., Gateway], *arguments: str) -> None:
        self._start = start
        self._arguments = arguments
        self._past: list[Gateway] = []
        self.gateway = start(None, *arguments)
        self.client = FaaSClient(self.gateway.url, retry=ONCE)

    def next(self, end: Callable[[Gateway], object] = Gateway.kill) -> FaaSClient:
        """Ends the gateway, by SIGKILL where nothing else is said, and starts the next; a client of that one."""
        if self.gateway.process.poll() is None:
            end(self.gateway)
        self.client.close()
        # It is there already where the one after it could not be started.
        if self.gateway not in self._past:
            self._past.append(self.gateway)
        data_dir = self._past[0].data_dir
        self.gateway = self._start(data_dir, *self._arguments)
        self.client = FaaSClient(self.gateway.url, retry=ONCE)
        return self.client

    def errors(self) -> list[str]:
        """What the gateways so far logged as errors."""
        logs = [gateway.log for gateway in [*self._past, self.gateway]]
        lines = [line for log in logs for line in log.read_text(errors="replace").splitlines()]
        return [line for line in lines if " ERROR " in line]

    def close(self) -> None:
        """Deletes all instances; asserts that nothing is left of them, and then of the gateways."""
        if self.gateway.process.poll() is not None:
            self.next()
        nothing_is_left(self.client)
        self.client.close()
        self.gateway.stop_and_check()
        for gateway in self._past:
            gateway.remove()


def nothing_is_left(client: FaaSClient) -> None:
    """Deletes all instances of a gateway, and asserts that nothing of them is left."""

    def there() -> list[str]:
        for instance in client.instances.list():
            instance.delete()
        return [repr(instance) for instance in client.instances.list()]

    left = leftovers.eventually(there)
    assert left == [], left
    leaks = leftovers.eventually(lambda: [str(leak) for leak in client.leaks()])
    assert leaks == [], leaks

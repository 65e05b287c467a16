"""A steady load of a server, from threads of this process."""

from __future__ import annotations

import http.client
import threading
from collections import Counter
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit

from tests.conftest import until


class Load:
    """Clients that ask again and again, until the test stops them or the server tells them to go.

    Half of them keep their connection, as proxies do; the others have a fresh one for each request.

    Args:
        url: What they ask for.
        expected: The answer.
        clients: How many there are.
        come_back: Whether those whom the server tells to go come again: it was one process of several that goes.
    """

    def __init__(
        self, url: str, expected: bytes = b"Hello, World!", *, clients: int = 4, come_back: bool = False
    ) -> None:
        parts = urlsplit(url)
        assert parts.hostname is not None
        self._address = (parts.hostname, parts.port)
        self._target = f"{parts.path}?{parts.query}" if parts.query else parts.path
        self._expected = expected
        self._come_back = come_back
        self._stopped = threading.Event()
        self._lock = threading.Lock()
        self.answers = 0
        self.wrong: list[str] = []
        """Answers that are not as they should be."""
        self.broken: Counter[int] = Counter()
        """By client: requests that got no answer, or half of one."""
        self.refused = 0
        """Clients that found nobody who listens. They have gone."""
        self.told_to_go = 0
        """Answers that say so."""
        self._threads = [threading.Thread(target=self._ask, args=(n,), daemon=True) for n in range(clients)]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        self.goes_on(2 * len(self._threads))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def stop(self) -> None:
        """Lets each client end the request that it has begun."""
        self._stopped.set()
        self.join()

    def join(self) -> None:
        """Waits until all clients have gone."""
        for thread in self._threads:
            thread.join(30)
            assert not thread.is_alive()

    def goes_on(self, answers: int = 50) -> None:
        """Waits for more answers."""
        enough = self.answers + answers
        until(lambda: self.answers >= enough or not any(thread.is_alive() for thread in self._threads))
        assert self.answers >= enough, (self.answers, self.wrong, self.broken)

    def _ask(self, number: int) -> None:
        keeps = number % 2 == 0
        connection: http.client.HTTPConnection | None = None
        while not self._stopped.is_set():
            if connection is None:
                connection = http.client.HTTPConnection(*self._address, timeout=20)
                try:
                    connection.connect()
                except ConnectionRefusedError:
                    with self._lock:
                        self.refused += 1
                    return
            try:
                connection.request("GET", self._target)
                response = connection.getresponse()
                body = response.read()
            except (OSError, http.client.HTTPException):
                with self._lock:
                    self.broken[number] += 1
                connection.close()
                connection = None
                continue
            goes = response.getheader("connection") == "close"
            with self._lock:
                self.answers += 1
                self.told_to_go += goes
                if (response.status, body) != (200, self._expected):
                    self.wrong.append(f"{response.status} {body!r}")
            if goes or not keeps:
                connection.close()
                connection = None
            if goes and not self._come_back:
                return
        if connection is not None:
            connection.close()

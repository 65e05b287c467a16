"""A component as an adapter of `requests`: its sessions call it instead of the network.

python examples/requests_adapter.py COMPONENT
"""

import io
import sys
from typing import Any

import requests
from requests.adapters import BaseAdapter
from requests.structures import CaseInsensitiveDict

import wasgi


class Stream(io.RawIOBase):
    """The body of an answer as the file that `requests` reads."""

    def __init__(self, response: wasgi.Response) -> None:
        self.response = response
        self.chunks = iter(response)
        self.rest = b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        self.rest = self.rest or next(self.chunks, b"")
        taken, self.rest = self.rest[: len(buffer)], self.rest[len(buffer) :]
        buffer[: len(taken)] = taken
        return len(taken)

    def close(self) -> None:
        self.response.close()
        super().close()


class Adapter(BaseAdapter):
    """Answers the requests of a session."""

    def __init__(self, app: wasgi.App) -> None:
        super().__init__()
        self.app = app

    def send(self, request: requests.PreparedRequest, *args: Any, **options: Any) -> requests.Response:
        assert request.method is not None
        assert request.url is not None
        asked = wasgi.Request(request.method, request.url, headers=request.headers, body=request.body)
        try:
            answer = self.app.handle(asked)
        except TimeoutError as error:
            raise requests.ReadTimeout(error, request=request) from error
        except wasgi.WasgiError as error:
            raise requests.ConnectionError(error, request=request) from error
        response = requests.Response()
        response.status_code = answer.status
        response.headers = CaseInsensitiveDict(answer.headers)
        response.raw = Stream(answer)
        response.request = request
        response.url = request.url
        return response

    def close(self) -> None:
        pass


if __name__ == "__main__":
    with requests.Session() as session:
        session.mount("http://plugin.local", Adapter(wasgi.App(sys.argv[1])))
        print(session.get("http://plugin.local/").text)
        # prints: Hello, World!

"""A component below a path of a FastAPI application, with who asks handed on to it.

python examples/mount.py COMPONENT
"""

import sys
from typing import Any

from fastapi import FastAPI
from fastapi.testclient import TestClient

import wasgi

USERS = {"Bearer ada": "ada"}


def authenticate(scope: Any, request: wasgi.Request) -> wasgi.Response | None:
    """Lets known users through, and tells the guest who they are."""
    user = USERS.get(request.headers.get("authorization", ""))
    if user is None:
        return wasgi.Response(401, headers={"www-authenticate": "Bearer"})
    del request.headers["authorization"]  # the guest has no need of it
    request.headers["x-user"] = user
    return None


api = FastAPI()
api.mount("/plugins/demo", wasgi.App(sys.argv[1], on_request=authenticate))

if __name__ == "__main__":
    client = TestClient(api)
    print(client.get("/plugins/demo/").status_code)
    # prints: 401
    print(client.get("/plugins/demo/", headers={"authorization": "Bearer ada"}).text)
    # prints: Hello, World!

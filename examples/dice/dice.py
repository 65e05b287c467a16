"""A component in Python: rolls dice, and says in OpenAPI how it is asked."""

import json
import random
from urllib.parse import parse_qsl, urlsplit

from componentize_py_types import Ok
from wit_world import exports
from wit_world.imports import random as wasi_random
from wit_world.imports.wasi_http_types import (
    Fields,
    IncomingRequest,
    Method_Get,
    OutgoingBody,
    OutgoingResponse,
    ResponseOutparam,
)

LIMITS = {"count": (1, 100, 1), "sides": (2, 1000, 6)}  # from, to, unless it is said
PROBLEM = {"application/json": {"schema": {"type": "object", "required": ["problem"]}}}
OPENAPI = {
    "openapi": "3.1.0",
    "info": {"title": "Dice", "version": "1"},
    "paths": {
        "/roll": {
            "get": {
                "parameters": [
                    {
                        "name": name,
                        "in": "query",
                        "schema": {"type": "integer", "minimum": low, "maximum": high, "default": default},
                    }
                    for name, (low, high, default) in LIMITS.items()
                ],
                "responses": {
                    "200": {
                        "description": "What was rolled",
                        "content": {
                            "application/json": {
                                "schema": {
                                    "type": "object",
                                    "required": ["rolls", "sum"],
                                    "additionalProperties": False,
                                    "properties": {
                                        "rolls": {
                                            "type": "array",
                                            "minItems": 1,
                                            "maxItems": 100,
                                            "items": {"type": "integer", "minimum": 1, "maximum": 1000},
                                        },
                                        "sum": {"type": "integer"},
                                    },
                                }
                            }
                        },
                    },
                    "400": {"description": "No such dice", "content": PROBLEM},
                },
            }
        }
    },
}


class IncomingHandler(exports.IncomingHandler):
    def handle(self, request: IncomingRequest, response_out: ResponseOutparam) -> None:
        url = urlsplit(request.path_with_query() or "/")
        allowed = []
        if url.path not in ("/roll", "/openapi.json"):
            status, answer = 404, {"problem": "there are /roll and /openapi.json"}
        elif not isinstance(request.method(), Method_Get):
            status, answer, allowed = 405, {"problem": "it is asked by GET"}, [("allow", b"GET")]
        elif url.path == "/openapi.json":
            status, answer = 200, OPENAPI
        else:
            status, answer = roll(url.query)
        response = OutgoingResponse(Fields.from_list([("content-type", b"application/json"), *allowed]))
        response.set_status_code(status)
        body = response.body()
        ResponseOutparam.set(response_out, Ok(response))
        with body.write() as stream:
            stream.blocking_write_and_flush(json.dumps(answer).encode())
        OutgoingBody.finish(body, None)


def roll(query: str) -> tuple[int, dict[str, object]]:
    wanted = {name: default for name, (_, _, default) in LIMITS.items()}
    for name, value in parse_qsl(query, keep_blank_values=True):
        if name in wanted:
            low, high, _ = LIMITS[name]
            if not (value.isascii() and value.isdigit() and len(value) <= 4 and low <= int(value) <= high):
                return 400, {"problem": f"{name} is from {low} to {high}"}
            wanted[name] = int(value)
    # an instance is a snapshot, its generator's state included: so it is seeded anew
    dice = random.Random(wasi_random.get_random_bytes(16))
    rolls = [dice.randint(1, wanted["sides"]) for _ in range(wanted["count"])]
    return 200, {"rolls": rolls, "sum": sum(rolls)}

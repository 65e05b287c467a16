"""A small `wasgi.Server` for processes of these tests, where the package has none: the commands are under test here."""

from __future__ import annotations

import http.server
import os
import signal
import socket
import threading
from typing import Any

import wasgi


class Server:
    def __init__(self, app: Any, *, bind: Any = "127.0.0.1:8000", health: Any = None, **options: Any) -> None:
        self.app = app
        self.binds = [bind] if isinstance(bind, str) else list(bind)
        self.options = options
        self.servers: list[http.server.ThreadingHTTPServer] = []
        self.urls: tuple[str, ...] = ()

    def bind(self) -> None:
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                if self.path == "/pid":
                    self.answer(200, str(os.getpid()).encode())
                    return
                response = outer.find(self.path).handle(wasgi.Request("GET", f"http://stand.in{self.path}"))
                self.answer(response.status, response.read())

            def answer(self, status: int, body: bytes) -> None:
                self.send_response(status)
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None: ...

        for text in self.binds:
            server = http.server.ThreadingHTTPServer(("", 0), Handler, bind_and_activate=False)
            server.daemon_threads = True
            if text.startswith("fd:"):
                server.socket = socket.socket(fileno=os.dup(int(text[3:])))
                server.server_address = server.socket.getsockname()
            else:
                host, _, port = text.rpartition(":")
                server.server_address = (host, int(port))
                server.server_bind()
                server.server_activate()
            self.servers.append(server)
        self.urls = tuple(f"http://127.0.0.1:{one.server_address[1]}/" for one in self.servers)

    def find(self, path: str) -> Any:
        if isinstance(self.app, wasgi.App):
            return self.app
        return next(app for prefix, app in self.app.items() if path.startswith(prefix))

    def serve(self) -> None:
        done = threading.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: done.set())
        for one in self.servers:
            threading.Thread(target=one.serve_forever, args=(0.01,), daemon=True).start()
        while not done.wait(0.05):
            pass
        for one in self.servers:
            one.shutdown()

    def swap(self, app: Any) -> None:
        self.app = app


if not hasattr(wasgi, "Server"):
    vars(wasgi)["Server"] = Server

"""`wasgi.Network` and HTTP/2: requests share connections, and do not hold one another up."""

from __future__ import annotations

import contextlib
import socket
import threading
from concurrent.futures import ThreadPoolExecutor

import h2.config
import h2.connection
import h2.events
import h2.exceptions
import h2.settings
import pytest

import wasgi
from tests.conftest import AppMaker, get
from tests.peers import Peer, ask

pytestmark = pytest.mark.usefixtures("nothing_is_left")


class Server:
    """Answers `/big` with 8 MiB as far as it is let, `/hold` with nothing yet, and all else at once."""

    def __init__(self, streams: int = 100) -> None:
        self.streams = streams
        self.holds = threading.Event()

    def __call__(self, connection: socket.socket) -> None:
        state = h2.connection.H2Connection(h2.config.H2Configuration(client_side=False))
        # from the first frame on: what is set later would be held against us before we know it
        most = {h2.settings.SettingCodes.MAX_CONCURRENT_STREAMS: self.streams}
        state.local_settings = h2.settings.Settings(client=False, initial_values=most)
        state.initiate_connection()
        connection.sendall(state.data_to_send())
        left: dict[int, int] = {}
        with contextlib.suppress(h2.exceptions.ProtocolError):
            while received := connection.recv(65536):
                for event in state.receive_data(received):
                    if isinstance(event, h2.events.RequestReceived):
                        self.answer(state, event, left)
                    elif isinstance(event, h2.events.StreamReset):
                        left.pop(event.stream_id, None)
                for stream in list(left):
                    self.send(state, stream, left)
                connection.sendall(state.data_to_send())

    def answer(self, state: h2.connection.H2Connection, event: h2.events.RequestReceived, left: dict[int, int]) -> None:
        stream = event.stream_id
        assert stream is not None
        path = dict(event.headers or [])[b":path"]
        if path == b"/hold":
            self.holds.set()
            return
        state.send_headers(stream, [(":status", "200")])
        if path == b"/big":
            left[stream] = 8 << 20
        else:
            state.send_data(stream, b"hello", end_stream=True)

    @staticmethod
    def send(state: h2.connection.H2Connection, stream: int, left: dict[int, int]) -> None:
        while size := min(left[stream], state.local_flow_control_window(stream), 16384):
            left[stream] -= size
            state.send_data(stream, b"x" * size, end_stream=left[stream] == 0)
        if not left[stream]:
            del left[stream]


def test_one_connection_for_many(app: AppMaker) -> None:
    with Peer(Server()) as peer, ThreadPoolExecutor(8) as pool:
        made = app(outgoing=wasgi.Network([peer.url], h2c=True))
        texts = list(pool.map(lambda _: ask(made, peer.url).text, range(50)))
        assert (texts, peer.accepted) == (["hello"] * 50, 1)


def test_a_response_that_nobody_reads_holds_up_no_other(app: AppMaker) -> None:
    with Peer(Server()) as peer:
        made = app(outgoing=wasgi.Network([peer.url], h2c=True, connect_timeout=30))
        with contextlib.ExitStack() as held:
            for _ in range(3):
                held.enter_context(made.handle(get(f"/fetch?url={peer.url}/big")))
            assert ask(made, peer.url).text == "hello"
            assert peer.accepted == 1


def test_it_is_read_whole_all_the_same(app: AppMaker) -> None:
    with Peer(Server()) as peer:
        made = app(outgoing=wasgi.Network([peer.url], h2c=True))
        assert len(ask(made, f"{peer.url}/big").read()) == 8 << 20


def test_where_no_more_streams_are_allowed_there_is_another_connection(app: AppMaker) -> None:
    server = Server(streams=1)
    with Peer(server) as peer, ThreadPoolExecutor(1) as pool:
        made = app(outgoing=wasgi.Network([peer.url], h2c=True, connect_timeout=30))
        assert ask(made, peer.url).text == "hello"  # from now on the peer's settings are known
        held = pool.submit(lambda: made._handle_within(get(f"/fetch?url={peer.url}/hold"), 2.0))
        assert server.holds.wait(30)
        assert ask(made, peer.url).text == "hello"
        assert peer.accepted == 2
        with pytest.raises(TimeoutError):
            held.result()

"""``wasgi serve``: components behind HTTP."""

from __future__ import annotations

import os
import signal
from typing import Any

import click

from wasgi.cli import signals
from wasgi.cli.commands import Argument, Command, Example, Option, is_given, rank, where
from wasgi.cli.effects import refuse_repeated_addresses, warn_of_idle_options
from wasgi.cli.failures import INTERRUPTED, USAGE, Failure
from wasgi.cli.grants import Grants, options, refuse_for_python
from wasgi.cli.settings import Recycling, Settings, TlsFiles
from wasgi.cli.sockets import check_addresses, fill_standard_descriptors, of_systemd, take_all_descriptors
from wasgi.cli.targets import routes
from wasgi.cli.values import Bytes, Count, Mode, Seconds

_WHERE = "Where it listens"
_TLS = "TLS"
_TIMEOUTS = "Timeouts"
_CAPS = "Caps"
_PROXIES = "Behind a proxy"
_LOG = "Log and health"
_LIFE = "Its life"

_SERVER = [
    "header_timeout",
    "body_timeout",
    "idle_timeout",
    "drain_timeout",
    "connections",
    "streams",
    "header_bytes",
    "backlog",
    "reuse_port",
    "trusted",
    "proxy_protocol",
    "threads",
    "access_log",
    "access_format",
    "socket_mode",
]
"""Parameters of the command that are arguments of `wasgi.Server`."""

_PARAMS: list[click.Parameter] = [
    Argument(["targets"], key="targets", nargs=-1, metavar="TARGET..."),
    Option(
        ["--route"],
        section="What is served",
        multiple=True,
        metavar="PATTERN=TARGET",
        help="Serve a component below a path (/api=api.wasm) or for a host (https://shop.local=shop.wasm).",
    ),
    Option(
        ["--static"],
        section="What is served",
        multiple=True,
        metavar="ROUTE=FOLDER",
        help="Serve the files of a folder below a path (/assets=dist).",
    ),
    Option(
        ["--bind"],
        section=_WHERE,
        multiple=True,
        metavar="ADDRESS",
        help="127.0.0.1:8000, [::1]:8000, unix:/run/x.sock or fd:3; as often as you like.",
    ),
    Option(["--host"], section=_WHERE, default="127.0.0.1", metavar="HOST", help="A name or an address to listen at."),
    Option(
        ["--port"], section=_WHERE, type=Count(0, 65535), default=8000, metavar="PORT", help="Its port; 0: a free one."
    ),
    Option(
        ["--fd"],
        section=_WHERE,
        type=Count(),
        multiple=True,
        metavar="N",
        help="An inherited socket that listens. Those of systemd (LISTEN_FDS) are found without it.",
    ),
    Option(
        ["--backlog"],
        section=_WHERE,
        type=Count(1),
        default=1024,
        metavar="N",
        help="Connections that wait for accept.",
    ),
    Option(
        ["--reuse-port"],
        section=_WHERE,
        is_flag=True,
        help="Share addresses with other servers of this user that have this flag, too (SO_REUSEPORT).",
    ),
    Option(
        ["--socket-mode"],
        section=_WHERE,
        type=Mode(),
        metavar="MODE",
        help="The mode of a Unix socket's file, octal (660); without it, the umask says it.",
    ),
    Option(["--tls-certificate"], section=_TLS, metavar="FILE", help="A certificate with its chain, as PEM."),
    Option(["--tls-key"], section=_TLS, metavar="FILE", help="Its key, as PEM."),
    Option(["--tls-client-ca"], section=_TLS, metavar="FILE", help="Who signs the certificates of clients, as PEM."),
    Option(
        ["--tls-client-certificates"],
        section=_TLS,
        type=click.Choice(["required", "optional"]),
        default="required",
        metavar="WHICH",
        help="required or optional, where there is a --tls-client-ca.",
    ),
    Option(
        ["--header-timeout"],
        section=_TIMEOUTS,
        type=Seconds(none=True),
        default="10",
        metavar="SECONDS",
        help="From the connection to the end of the first head, TLS included.",
    ),
    Option(
        ["--body-timeout"],
        section=_TIMEOUTS,
        type=Seconds(none=True),
        default="30",
        metavar="SECONDS",
        help="Between two pieces of a body.",
    ),
    Option(
        ["--idle-timeout"],
        section=_TIMEOUTS,
        type=Seconds(none=True),
        default="75",
        metavar="SECONDS",
        help="Between two requests of a connection.",
    ),
    Option(
        ["--drain-timeout"],
        section=_TIMEOUTS,
        type=Seconds(),
        default="30",
        metavar="SECONDS",
        help="How long requests under way may take when the server is told to stop.",
    ),
    Option(["--connections"], section=_CAPS, type=Count(1), default=10_000, metavar="N", help="Connections at once."),
    Option(
        ["--streams"], section=_CAPS, type=Count(1), default=100, metavar="N", help="Requests of an HTTP/2 connection."
    ),
    Option(
        ["--header-bytes"],
        section=_CAPS,
        type=Bytes(),
        default="64KiB",
        metavar="BYTES",
        help="The head of a request.",
    ),
    Option(
        ["--trusted"],
        section=_PROXIES,
        multiple=True,
        metavar="NETWORK",
        help="Peers whose forwarded headers are believed: 10.0.0.0/8.",
    ),
    Option(
        ["--proxy-protocol"],
        section=_PROXIES,
        is_flag=True,
        help="Each connection begins with a PROXY header, v1 or v2, of a trusted peer.",
    ),
    Option(["--access-log"], section=_LOG, metavar="FILE", help="A line for each request; `-` is stdout."),
    Option(
        ["--access-format"],
        section=_LOG,
        default="combined",
        metavar="FORMAT",
        help="common, combined, json, or a template.",
    ),
    Option(
        ["--request-ids/--no-request-ids"],
        section=_LOG,
        default=True,
        help="Give guests an x-request-id and a traceparent where the client has sent none.",
    ),
    Option(["--health"], section=_LOG, metavar="ADDRESS", help="Where /live and /ready are answered."),
    *options(),
    Option(["--threads"], section=_LIFE, type=Count(1), metavar="N", help="Threads that serve; one a core."),
    Option(
        ["--reload"],
        section=_LIFE,
        is_flag=True,
        help="Load components again when their files change. SIGHUP does so, too.",
    ),
    Option(
        ["--workers"],
        section=_LIFE,
        type=Count(1, 1024),
        metavar="N",
        help="Serve from N processes; one that dies is replaced.",
    ),
    Option(
        ["--worker-lifetime"],
        section=_LIFE,
        type=Seconds(none=True),
        metavar="SECONDS",
        help="Replace a worker that is so old.",
    ),
    Option(
        ["--worker-requests"],
        section=_LIFE,
        type=Count(1, none=True),
        metavar="N",
        help="Replace a worker that has handled so many.",
    ),
    Option(
        ["--worker-memory"],
        section=_LIFE,
        type=Bytes(none=True),
        metavar="BYTES",
        help="Replace a worker that has so much memory.",
    ),
]


def settings_of(ctx: click.Context) -> Settings:
    """What the command line, variables and files say.

    Raises:
        Failure: They contradict one another, or name what is not there.
    """
    values = ctx.params
    routed = [_route(ctx, "route", text, "TARGET") for text in values["route"]]
    static = _static(ctx)
    targets = tuple(values["targets"])
    if not targets and not routed and not static:
        raise Failure("there is nothing to serve", USAGE, hint="wasgi serve hello.wasm")
    table = routes(targets, routed)  # so that what is not there is told first
    python = [target for target in table.values() if target.python is not None]
    if python and len(python) == len(table):
        refuse_for_python(ctx, python[0].text)
    binds = _binds(ctx)
    health = [] if values["health"] is None else [(values["health"], where(ctx, "health"))]
    refuse_repeated_addresses(binds, values["health"])
    check_addresses(dict([*binds, *health]))
    warn_of_idle_options(ctx, [text for text, _ in binds])
    recycling = Recycling(values["worker_lifetime"], values["worker_requests"], values["worker_memory"])
    if recycling.lifetime is not None and recycling.lifetime < 1:
        raise Failure(f"{where(ctx, 'worker_lifetime')} must be a second or more", USAGE)
    if recycling != Recycling() and values["workers"] is None:
        name = next(f"worker_{name}" for name, value in vars(recycling).items() if value is not None)
        raise Failure(f"{where(ctx, name)} needs workers", USAGE, hint="--workers N")
    return Settings(
        targets=targets,
        routes=tuple(routed),
        grants=Grants.of(ctx),
        binds=[text for text, _ in binds],
        health=values["health"],
        origins=dict([*binds, *health]),
        static=static,
        tls=_tls(ctx),
        # the others have their defaults where they are documented
        options={
            "request_ids": values["request_ids"],
            **{name: values[name] for name in _SERVER if is_given(ctx, name)},
        },
        reload=values["reload"],
        workers=values["workers"],
        recycling=recycling,
    )


def _route(ctx: click.Context, name: str, text: str, what: str) -> tuple[str, str]:
    pattern, equals, target = text.partition("=")
    if not (equals and target and (pattern.startswith("/") or "://" in pattern)):
        raise Failure(
            f"{where(ctx, name)}: `{text}` is not PATTERN={what}",
            USAGE,
            hint="a pattern is a path (/api) or an origin (https://shop.local)",
        )
    return pattern, target


def _static(ctx: click.Context) -> dict[str, str]:
    static: dict[str, str] = {}
    for text in ctx.params["static"]:
        route, folder = _route(ctx, "static", text, "FOLDER")
        if route in static:
            raise Failure(f"{where(ctx, 'static')}: `{static[route]}` and `{folder}` are both at {route}", USAGE)
        static[route] = folder
    return static


def _binds(ctx: click.Context) -> list[tuple[str, str]]:
    """Where to listen, and who says so: `--bind` and `--fd`, or `--host` with `--port`; whichever counts more."""
    values = ctx.params
    passed = [(text, "variable `LISTEN_FDS`") for text in of_systemd()]
    several = max(rank(ctx, "bind"), rank(ctx, "fd"))
    single = max(rank(ctx, "host"), rank(ctx, "port"))
    if several == single > 0:
        names = [where(ctx, name) for name in ("bind", "fd", "host", "port") if rank(ctx, name) == single]
        raise Failure(f"{names[0]} and {names[-1]} exclude each other", USAGE, hint="--bind HOST:PORT")
    if several > single:
        binds = [(text, where(ctx, "bind")) for text in values["bind"]]
        return [*passed, *binds, *((f"fd:{number}", where(ctx, "fd")) for number in values["fd"])]
    if passed and not single:
        return passed
    from wasgi.server import joined

    return [*passed, (joined(values["host"], values["port"]), where(ctx, "host"))]


def _tls(ctx: click.Context) -> TlsFiles | None:
    values = ctx.params
    certificate, key, authority = values["tls_certificate"], values["tls_key"], values["tls_client_ca"]
    if certificate is None and key is None:
        if authority is not None:
            raise Failure(f"{where(ctx, 'tls_client_ca')} needs a certificate", USAGE, hint="--tls-certificate FILE")
        return None
    if certificate is None:
        raise Failure(f"{where(ctx, 'tls_key')} needs a certificate", USAGE, hint="--tls-certificate FILE")
    if key is None:
        raise Failure(f"{where(ctx, 'tls_certificate')} needs a key", USAGE, hint="--tls-key FILE")
    return TlsFiles(certificate, key, authority, values["tls_client_certificates"])


@click.pass_context
def _serve(ctx: click.Context, /, **_values: Any) -> int:
    fill_standard_descriptors()
    take_all_descriptors()
    signals.prepare()
    settings = settings_of(ctx)
    if settings.workers is not None:
        from wasgi.cli.workers import supervise

        return supervise(settings)
    return serve(settings)


def serve(settings: Settings) -> int:
    """Serves in this process.

    Raises:
        Failure: Something cannot be used; then nothing was bound.
    """
    import wasgi
    from wasgi.cli.output import tell
    from wasgi.cli.serving import Service, banner

    service = Service(settings)
    server = service.server
    health = [] if server.health is None else [server.health]

    def started() -> None:
        service.hear_signals(lambda: os.kill(os.getpid(), signal.SIGTERM))
        tell(banner(wasgi.__version__, service.lines(), server.urls, settings.binds, health))

    try:
        service.serve(started)
    except KeyboardInterrupt:
        return INTERRUPTED
    return 0


command = Command(
    "serve",
    callback=_serve,
    params=_PARAMS,
    help=(
        "Serve components over HTTP/1.1 and HTTP/2. A TARGET is a .wasm or .wat file; a folder, whose components are "
        "served at /NAME; or module:app, a wasgi.App that Python code makes. SIGTERM and Ctrl-C let requests end; a "
        "second one does not. SIGHUP loads the components again."
    ),
    examples=[
        Example("wasgi serve hello.wasm", "on http://127.0.0.1:8000/"),
        Example("wasgi serve api.wasm --allow https://api.example.com --env TOKEN", "with what the guest needs"),
        Example("wasgi serve --route /api=api.wasm --route https://shop.local=shop.wasm", "several"),
        Example("wasgi serve hello.wasm --bind unix:/run/hello.sock --workers 4", "behind nginx"),
        Example("wasgi serve hello.wasm --reload", "while you build it"),
    ],
)

"""An upstream's exception, as its guest sees it: the error-code that it means.

The table of counterparts is in the documentation of `wasgi.errors`, and in the guide on outgoing requests.
"""

from __future__ import annotations

import logging
import sys

from wasgi import errors
from wasgi._native import context, output

# The exceptions of httpx2 and httpx, by name. None: a mistake of the client's user, which the guest need not know.
_OF_HTTPX: dict[str, type[errors.ErrorCode] | None] = {
    "CloseError": errors.ConnectionTerminated,
    "ConnectError": errors.DestinationUnavailable,  # unless its cause says more
    "ConnectTimeout": errors.ConnectionTimeout,
    "CookieConflict": None,
    "DecodingError": errors.HttpResponseContentCoding,
    "HTTPError": None,
    "HTTPStatusError": None,
    "InvalidURL": errors.HttpRequestUriInvalid,
    "LocalProtocolError": errors.HttpProtocolError,
    "NetworkError": errors.ConnectionTerminated,
    "PoolTimeout": errors.ConnectionLimitReached,
    "ProtocolError": errors.HttpProtocolError,
    "ProxyError": errors.DestinationUnavailable,
    "ReadError": errors.ConnectionTerminated,
    "ReadTimeout": errors.ConnectionReadTimeout,
    "RemoteProtocolError": errors.HttpProtocolError,
    "RequestError": None,
    "RequestNotRead": None,
    "ResponseNotRead": None,
    "SSEError": None,
    "StreamClosed": None,
    "StreamConsumed": None,
    "StreamError": None,
    "TimeoutException": errors.ConnectionTimeout,
    "TooManyRedirects": None,
    "TransportError": errors.DestinationUnavailable,
    "UnsupportedProtocol": errors.HttpRequestUriInvalid,
    "WriteError": errors.ConnectionTerminated,
    "WriteTimeout": errors.ConnectionWriteTimeout,
}


def counterpart(exc: BaseException) -> errors.ErrorCode | None:
    """The equivalent error-code of an exception of Python's or of a client library; None if there is none."""
    if (code := _of_python(exc)) is not None:
        return code
    cls = next((cls for cls in type(exc).__mro__ if cls.__module__.partition(".")[0] in ("httpx", "httpx2")), None)
    leaf = _OF_HTTPX.get(cls.__name__) if cls is not None else None
    if leaf is None:
        return None
    # the general exceptions have the operating system's among their causes, which is more exact
    cause, seen = exc.__cause__ or exc.__context__, {id(exc)}
    is_general = leaf in (errors.DestinationUnavailable, errors.ConnectionTerminated)
    while is_general and cause is not None and id(cause) not in seen:
        if (code := _of_python(cause)) is not None:
            return code
        seen.add(id(cause))
        cause = cause.__cause__ or cause.__context__
    return leaf()


def _of_python(exc: BaseException) -> errors.ErrorCode | None:
    # Whoever raised an exception of these modules has imported them.
    ssl, socket = sys.modules.get("ssl"), sys.modules.get("socket")
    if ssl is not None and isinstance(exc, ssl.SSLCertVerificationError):
        return errors.TlsCertificateError()
    if ssl is not None and isinstance(exc, ssl.SSLError):
        return errors.TlsProtocolError()
    if socket is not None and isinstance(exc, socket.gaierror):
        return errors.DnsError(rcode=exc.strerror)
    if isinstance(exc, ConnectionRefusedError):
        return errors.ConnectionRefused()
    if isinstance(exc, ConnectionError):
        return errors.ConnectionTerminated()
    if isinstance(exc, TimeoutError):
        return errors.ConnectionTimeout()
    return None


def observe(exc: BaseException) -> None:
    """Tells the pytest plug-in of an upstream's exception."""
    for observer in tuple(errors._observers):
        observer(exc)


def _is_cancellation(exc: BaseException) -> bool:
    """Whether it is asyncio's. If asyncio was not imported, nobody has raised it."""
    asyncio = sys.modules.get("asyncio")
    return asyncio is not None and isinstance(exc, asyncio.CancelledError)


def code_for_guest(exc: BaseException) -> errors.ErrorCode:
    """The error-code that the guest gets for an upstream's exception. Logs each exception that is not an error-code."""
    if isinstance(exc, errors.ErrorCode):
        return exc
    observe(exc)
    code = counterpart(exc)
    log = logging.getLogger("wasgi.outgoing")
    extra = context.log_extra()
    if _is_cancellation(exc):
        # whoever cancelled it knows: the guest, its caller, or the end of the process
        log.debug("an upstream was cancelled; its guest is told `internal-error`", extra=extra)
        return errors.InternalError(type(exc).__name__)
    if code is None:
        output.say(log, logging.ERROR, "an upstream failed; its guest is told `internal-error`", extra, exc)
        # the type only: the message may contain secrets of the host
        return errors.InternalError(type(exc).__name__)
    log.info("an upstream failed; its guest is told `%s`", code.code, exc_info=exc, extra=extra)
    return code

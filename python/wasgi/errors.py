"""The tree of exceptions.

::

    WasgiError
    ├── ComponentError
    │   ├── InvalidComponentError (ValueError)
    │   ├── MissingImportError                  .missing
    │   ├── ComponentLimitError                 .name .limit .found
    │   └── UnsupportedComponentError
    ├── GuestError
    │   ├── TrapError                           .backtrace .stderr
    │   ├── GuestExitError                      .code
    │   ├── NoResponseError
    │   ├── GuestTimeoutError (TimeoutError)    .limit
    │   ├── MemoryLimitError (MemoryError)      .limit
    │   ├── TableLimitError (MemoryError)       .limit
    │   ├── InstanceLimitError                  .limit
    │   ├── HandleLimitError (MemoryError)      .limit
    │   ├── FieldsLimitError (MemoryError)      .limit
    │   └── FuelExhaustedError                  .limit
    ├── OverloadedError
    ├── AppClosedError (RuntimeError)
    ├── BodyError                               .received
    └── ErrorCode                               .code
        └── one class for each of wasi:http's 39 cases, with its payload as attributes

An `ErrorCode` travels both ways. If a guest responds with an error-code, `App.handle` raises it. If an upstream raises
one, the guest gets exactly that code. Other exceptions of an upstream reach the guest as the error-code that
means the same (``TimeoutError`` as ``connection-timeout``, ``ConnectionRefusedError`` as ``connection-refused``), or
else as ``internal-error`` with the exception's type only; those are logged with their traceback to the logger
``wasgi.outgoing``.

What an error of the host's came from is its ``__cause__``, link by link: for a request that Python sends through a
`Network`, say, the failure of the connection, which is an ``OSError`` if the operating system gave it a number.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    import asyncio
    import weakref


class WasgiError(Exception):
    """The base class of this package's exceptions.

    Attributes:
        exchange: The number of the exchange that it ended, as in `Report.exchange` and log records; None if there was
            none.
    """

    exchange: int | None = None


class ComponentError(WasgiError):
    """A component that cannot be loaded, or cannot be run."""


class InvalidComponentError(ComponentError, ValueError):
    """The source is not a component, or not a valid one; the message says what it is instead."""


class MissingImportError(ComponentError):
    """The component imports what is not provided; `App` raises this.

    Attributes:
        missing: The imports, each with its version (``"wasi:keyvalue/store@0.2.0"``).
    """

    def __init__(self, message: str, *, missing: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.missing = list(missing)


class UnsupportedComponentError(ComponentError):
    """A valid component that cannot be run.

    `Component` raises this for a feature that the engine does not have, and for pre-releases of WASI 0.3; `App` for an
    import of another type than the one provided; `App.handle` if the component exports no HTTP handler.
    """


class ComponentLimitError(ComponentError):
    """The component costs more at load than `ComponentLimits` allow.

    Attributes:
        name: The limit's name (``"instances"``).
        limit: Its value.
        found: The number that was found; None for a timeout, and for a count without end.
    """

    def __init__(self, message: str, *, name: str = "", limit: float = 0, found: int | None = None) -> None:
        super().__init__(message)
        self.name = name
        self.limit = limit
        self.found = found


class GuestError(WasgiError):
    """The guest ended without a response."""


class TrapError(GuestError):
    """The guest trapped.

    Attributes:
        backtrace: Its frames, innermost first, by name where the component has names.
        stderr: The last lines that it wrote to stderr.
        culprit: The number of the exchange whose guest has ended the instance, if that was another one that shared it
            (`wasgi.Reuse`): then the message says what happened to that one.
    """

    def __init__(
        self,
        message: str,
        *,
        backtrace: Sequence[str] = (),
        stderr: Sequence[str] = (),
        culprit: int | None = None,
    ) -> None:
        super().__init__(message)
        self.backtrace = list(backtrace)
        self.stderr = list(stderr)
        self.culprit = culprit


class GuestExitError(GuestError):
    """The guest called ``wasi:cli/exit``.

    Attributes:
        code: Its exit code.
    """

    def __init__(self, message: str, *, code: int = 0) -> None:
        super().__init__(message)
        self.code = code


class NoResponseError(GuestError):
    """The guest returned without setting a response."""


class _LimitedError(GuestError):
    """The guest exceeded one of its `Limits`.

    Attributes:
        limit: Its value.
    """

    def __init__(self, message: str, *, limit: float = 0) -> None:
        super().__init__(message)
        self.limit = limit


class GuestTimeoutError(_LimitedError, TimeoutError):
    """The guest timed out (`Limits.timeout`).

    Attributes:
        limit: Seconds.
    """


class MemoryLimitError(_LimitedError, MemoryError):
    """The guest was refused memory by `Limits.memory`, and ended. Its trap is the cause, if there was one.

    Attributes:
        limit: Bytes.
    """


class TableLimitError(_LimitedError, MemoryError):
    """The guest was refused a larger table by `Limits.table_elements`, and ended.

    Attributes:
        limit: Elements.
    """


class InstanceLimitError(_LimitedError):
    """An instance of the component has more core instances than `Limits.instances` allows.

    Attributes:
        limit: Core instances.
    """


class HandleLimitError(_LimitedError, MemoryError):
    """The guest held as many handles as `Limits.handles` allows, and asked for one more.

    Attributes:
        limit: Handles.
    """


class FieldsLimitError(_LimitedError, MemoryError):
    """The guest put more into one set of fields than `Limits.fields` allows.

    Attributes:
        limit: Bytes.
    """


class FuelExhaustedError(_LimitedError):
    """The guest has used up its fuel (`Limits.fuel`).

    Attributes:
        limit: Units of fuel.
    """


class OverloadedError(WasgiError):
    """The limit of concurrent exchanges was reached, and the queue was full or timed out."""


class AppClosedError(WasgiError, RuntimeError):
    """The app was closed before the exchange, or before it had ended."""


class BodyError(WasgiError):
    """A body that failed midway, or was consumed twice. The cause of the failure is its ``__cause__``, where known.

    Attributes:
        received: How many bytes of it had been read.
    """

    def __init__(self, message: str, *, received: int = 0) -> None:
        super().__init__(message)
        self.received = received


class ErrorCode(WasgiError):
    """wasi:http's ``error-code`` (`wasi:http/types`): why a request failed.

    Raise the class of its case: ``raise wasgi.errors.ConnectionRefused``.

    Attributes:
        code: The case's name in the WIT, like ``"DNS-timeout"``.
    """

    code: ClassVar[str] = ""

    def __init__(self, *given: object) -> None:
        if given or self.code not in ERROR_CODES:
            raise TypeError(_no_code(type(self), given))
        super().__init__(self.code)

    def __str__(self) -> str:
        return self.code

    def _payload(self) -> tuple[object, ...]:
        return ()

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and other._payload() == self._payload()

    def __hash__(self) -> int:
        return hash((self.code, self._payload()))

    def __reduce__(self) -> tuple[type[ErrorCode], tuple[object, ...]]:
        return type(self), self._payload()


def _no_code(kind: type[ErrorCode], given: tuple[object, ...]) -> str:
    """Why an instance of the class would not be an error-code; with a hint, if the right class can be guessed."""
    name = kind.__name__
    if kind.code in ERROR_CODES:
        return f"`{name}` takes no arguments: a guest is told its code and no more"
    wanted = str(given[0]).lower().replace("_", "-") if given else ""
    meant = next((code for code in ERROR_CODES if code.lower() == wanted), "connection-refused")
    why = "is the class of all codes" if kind is ErrorCode else f"has no `code` of wasi:http: {kind.code!r}"
    hint = f"`raise wasgi.errors.{ERROR_CODES[meant].__name__}`"
    return f"`{name}` {why}; hint: {hint}; `wasgi.errors.ERROR_CODES` has each"


class _Sized(ErrorCode):
    """A size.

    Attributes:
        size: Bytes, if known.
    """

    def __init__(self, size: int | None = None) -> None:
        super().__init__()
        self.size = size

    def _payload(self) -> tuple[object, ...]:
        return (self.size,)

    def __str__(self) -> str:
        return self.code if self.size is None else f"{self.code}: {self.size} bytes"


class _Detailed(ErrorCode):
    """Some text.

    Attributes:
        detail: The coding, or what happened, if known.
    """

    def __init__(self, detail: str | None = None) -> None:
        super().__init__()
        self.detail = detail

    def _payload(self) -> tuple[object, ...]:
        return (self.detail,)

    def __str__(self) -> str:
        return self.code if self.detail is None else f"{self.code}: {self.detail}"


class _Field(ErrorCode):
    """A field.

    Attributes:
        field_name: The field, if known.
        field_size: Its size in bytes, if known.
    """

    def __init__(self, field_name: str | None = None, field_size: int | None = None) -> None:
        super().__init__()
        self.field_name = field_name
        self.field_size = field_size

    def _payload(self) -> tuple[object, ...]:
        return (self.field_name, self.field_size)

    def __str__(self) -> str:
        return self.code if self.field_name is None else f"{self.code}: field `{self.field_name}`"


class DnsTimeout(ErrorCode, TimeoutError):
    """Name resolution timed out."""

    code = "DNS-timeout"


class DnsError(ErrorCode, OSError):
    """Name resolution failed.

    Attributes:
        rcode: The DNS response code, like ``"NXDOMAIN"``, if known.
        info_code: The extended DNS error (RFC 8914), if known.
    """

    code = "DNS-error"

    def __init__(self, rcode: str | None = None, info_code: int | None = None) -> None:
        super().__init__()
        self.rcode = rcode
        self.info_code = info_code

    def _payload(self) -> tuple[object, ...]:
        return (self.rcode, self.info_code)

    def __str__(self) -> str:
        return self.code if self.rcode is None else f"{self.code}: {self.rcode}"


class DestinationNotFound(ErrorCode):
    """The destination does not exist."""

    code = "destination-not-found"


class DestinationUnavailable(ErrorCode):
    """The destination is not available."""

    code = "destination-unavailable"


class DestinationIpProhibited(ErrorCode, PermissionError):
    """A policy forbids the destination's address."""

    code = "destination-IP-prohibited"


class DestinationIpUnroutable(ErrorCode):
    """There is no route to the destination's address."""

    code = "destination-IP-unroutable"


class ConnectionRefused(ErrorCode, ConnectionRefusedError):
    """The destination refused the connection."""

    code = "connection-refused"


class ConnectionTerminated(ErrorCode, ConnectionResetError):
    """The connection was closed or reset."""

    code = "connection-terminated"


class ConnectionTimeout(ErrorCode, TimeoutError):
    """Connecting timed out."""

    code = "connection-timeout"


class ConnectionReadTimeout(ErrorCode, TimeoutError):
    """Reading timed out."""

    code = "connection-read-timeout"


class ConnectionWriteTimeout(ErrorCode, TimeoutError):
    """Writing timed out."""

    code = "connection-write-timeout"


class ConnectionLimitReached(ErrorCode):
    """No more connections are allowed."""

    code = "connection-limit-reached"


class TlsProtocolError(ErrorCode, OSError):
    """The peer does not speak TLS as it should."""

    code = "TLS-protocol-error"


class TlsCertificateError(ErrorCode, OSError):
    """The peer's certificate is not accepted."""

    code = "TLS-certificate-error"


class TlsAlertReceived(ErrorCode, OSError):
    """The peer sent a TLS alert.

    Attributes:
        alert_id: The alert's number (RFC 8446, 6), if known.
        alert_message: Its description, if known.
    """

    code = "TLS-alert-received"

    def __init__(self, alert_id: int | None = None, alert_message: str | None = None) -> None:
        super().__init__()
        self.alert_id = alert_id
        self.alert_message = alert_message

    def _payload(self) -> tuple[object, ...]:
        return (self.alert_id, self.alert_message)

    def __str__(self) -> str:
        return self.code if self.alert_message is None else f"{self.code}: {self.alert_message}"


class HttpRequestDenied(ErrorCode, PermissionError):
    """The request is not allowed."""

    code = "HTTP-request-denied"


class HttpRequestLengthRequired(ErrorCode):
    """The request must say its length."""

    code = "HTTP-request-length-required"


class HttpRequestBodySize(_Sized):
    """The request's body is too large, or not as long as its content-length says."""

    code = "HTTP-request-body-size"


class HttpRequestMethodInvalid(ErrorCode):
    """The request's method is not valid."""

    code = "HTTP-request-method-invalid"


class HttpRequestUriInvalid(ErrorCode):
    """The request's URI is not valid."""

    code = "HTTP-request-URI-invalid"


class HttpRequestUriTooLong(ErrorCode):
    """The request's URI is too long."""

    code = "HTTP-request-URI-too-long"


class HttpRequestHeaderSectionSize(_Sized):
    """The request's headers are too large together."""

    code = "HTTP-request-header-section-size"


class HttpRequestHeaderSize(_Field):
    """A header of the request is too large."""

    code = "HTTP-request-header-size"


class HttpRequestTrailerSectionSize(_Sized):
    """The request's trailers are too large together."""

    code = "HTTP-request-trailer-section-size"


class HttpRequestTrailerSize(_Field):
    """A trailer of the request is too large."""

    code = "HTTP-request-trailer-size"


class HttpResponseIncomplete(ErrorCode):
    """The response ended too early."""

    code = "HTTP-response-incomplete"


class HttpResponseHeaderSectionSize(_Sized):
    """The response's headers are too large together."""

    code = "HTTP-response-header-section-size"


class HttpResponseHeaderSize(_Field):
    """A header of the response is too large."""

    code = "HTTP-response-header-size"


class HttpResponseBodySize(_Sized):
    """The response's body is too large, or not as long as its content-length says."""

    code = "HTTP-response-body-size"


class HttpResponseTrailerSectionSize(_Sized):
    """The response's trailers are too large together."""

    code = "HTTP-response-trailer-section-size"


class HttpResponseTrailerSize(_Field):
    """A trailer of the response is too large."""

    code = "HTTP-response-trailer-size"


class HttpResponseTransferCoding(_Detailed):
    """The response has an unknown transfer coding, named by ``detail``."""

    code = "HTTP-response-transfer-coding"


class HttpResponseContentCoding(_Detailed):
    """The response has an unknown content coding, named by ``detail``."""

    code = "HTTP-response-content-coding"


class HttpResponseTimeout(ErrorCode, TimeoutError):
    """The response timed out."""

    code = "HTTP-response-timeout"


class HttpUpgradeFailed(ErrorCode):
    """The protocol could not be switched."""

    code = "HTTP-upgrade-failed"


class HttpProtocolError(ErrorCode):
    """The peer does not speak HTTP as it should."""

    code = "HTTP-protocol-error"


class LoopDetected(ErrorCode):
    """The request came back to a component that it has passed."""

    code = "loop-detected"


class ConfigurationError(ErrorCode):
    """The host is not set up for the request."""

    code = "configuration-error"


class InternalError(_Detailed):
    """Anything else; ``detail`` may say what."""

    code = "internal-error"


ERROR_CODES: dict[str, type[ErrorCode]] = {
    leaf.code: leaf
    for leaf in list(globals().values())
    if isinstance(leaf, type) and issubclass(leaf, ErrorCode) and leaf.code
}
"""The class of each error-code, by its name in the WIT, in the order of the WIT."""


# Shared state of upstreams and the pytest plug-in. It is here because this module stays loaded: `pytester` unloads what
# was imported during a run, and would leave two copies of any other module's state.

_observers: list[Callable[[BaseException], None]] = []
"""Called with each exception of an upstream that is not an error-code: the failures of a test's own code."""

_finishing: dict[int, weakref.ref[asyncio.Task[None]]] = {}
"""The tasks of ASGI applications that have sent their response and not ended: they may fail yet."""


__all__ = sorted(
    ["ERROR_CODES"]
    + [
        name
        for name, value in list(globals().items())
        if isinstance(value, type) and issubclass(value, WasgiError) and not name.startswith("_")
    ]
)

"""What `wasgi serve` was told, as plain values: workers get them from their parent."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from wasgi.cli.grants import Grants


@dataclass(frozen=True)
class TlsFiles:
    """The arguments of `wasgi.Tls`."""

    certificate: str
    key: str
    client_ca: str | None = None
    client_certificates: Literal["required", "optional"] = "required"


@dataclass(frozen=True)
class Recycling:
    """When a worker is replaced; each worker adds some percent of its own, so that they do not all go at once."""

    lifetime: float | None = None
    requests: int | None = None
    memory: int | None = None


@dataclass(frozen=True)
class Settings:
    """A server."""

    targets: Sequence[str]
    routes: Sequence[tuple[str, str]]
    grants: Grants
    binds: Sequence[str]
    health: str | None = None
    origins: Mapping[str, str] = field(default_factory=dict)
    """Where the user has said each of these addresses: an option, a variable, the key of a file."""
    static: Mapping[str, str] = field(default_factory=dict)
    """Folders, by the route that they are served at."""
    tls: TlsFiles | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    """Further keyword arguments of `wasgi.Server`, as the user gave them."""
    reload: bool = False
    workers: int | None = None
    """Processes instead of this one."""
    recycling: Recycling = Recycling()

    @property
    def addresses(self) -> Sequence[str]:
        """All of them."""
        return [*self.binds, *([] if self.health is None else [self.health])]


@dataclass(frozen=True)
class Orders:
    """What a worker gets from its parent, on its stdin."""

    settings: Settings
    parent: int
    """The process that started it."""
    reports: int
    """The descriptor to which it reports."""

"""Options of `wasgi serve` that have no effect as they are combined: each is told, for its user expects one."""

from __future__ import annotations

from collections.abc import Sequence

import click

from wasgi.cli.commands import is_given, where
from wasgi.cli.failures import USAGE, Failure
from wasgi.cli.output import warn


def warn_of_idle_options(ctx: click.Context, binds: Sequence[str]) -> None:
    """Warns of each that lacks another one."""
    values = ctx.params
    for name, missing in (
        ("access_format", None if values["access_log"] else "--access-log FILE"),
        ("tls_client_certificates", None if values["tls_client_ca"] else "--tls-client-ca FILE"),
        ("socket_mode", None if any(one.startswith("unix:") for one in binds) else "--bind unix:PATH"),
    ):
        if missing is not None and is_given(ctx, name):
            warn(f"{where(ctx, name)} has no effect; hint: {missing}")
    if values["proxy_protocol"] and not values["trusted"]:
        who = where(ctx, "proxy_protocol")
        warn(f"{who} has every client refused, for nobody is trusted to send that header; hint: --trusted NETWORK")


def refuse_repeated_addresses(binds: Sequence[tuple[str, str]], health: str | None) -> None:
    """Looks for addresses that would be bound twice. Port 0 is another one each time.

    Args:
        binds: Addresses, and who says so.
        health: That of the health, if there is one.

    Raises:
        Failure: There is one.
    """
    seen: set[str] = set()
    for text, origin in binds:
        if text in seen:
            raise Failure(f"{origin}: `{text}` is given twice", USAGE)
        if not text.endswith(":0"):
            seen.add(text)
    if health in seen:
        raise Failure(
            f"`{health}` is where requests are served, and cannot have the health", USAGE, hint="another port"
        )

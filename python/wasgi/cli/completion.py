"""``wasgi completion``: a script for the shell."""

from __future__ import annotations

import click

from wasgi.cli.commands import Command, Example
from wasgi.cli.failures import FAILED, Failure

_SHELLS = ("bash", "zsh", "fish")


def completion(shell: str) -> None:
    """Prints the script that makes a shell complete commands and options."""
    from click.shell_completion import get_completion_class

    kind = get_completion_class(shell)
    if kind is None:
        raise Failure(f"click has no completion for {shell}", FAILED)
    # the script only names the command; the command completes itself when it is called
    print(kind(click.Command("wasgi"), {}, "wasgi", "_WASGI_COMPLETE").source())


command = Command(
    "completion",
    callback=completion,
    help="Print a script that completes commands and options in your shell.",
    params=[click.Argument(["shell"], type=click.Choice(_SHELLS))],
    examples=[
        Example('eval "$(wasgi completion bash)"', "in ~/.bashrc (or zsh in ~/.zshrc)"),
        Example("wasgi completion fish > ~/.config/fish/completions/wasgi.fish", "for fish"),
    ],
)

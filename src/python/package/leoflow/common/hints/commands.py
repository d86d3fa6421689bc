"""Writes the commands of `leoflow` that hints name."""

from __future__ import annotations

_program = "leoflow"


def use_home(option: str) -> None:
    """Adds the option that chooses this process's home, such as `--instance staging`, to all later commands."""
    global _program
    _program = f"leoflow {option}"


def command(arguments: str) -> str:
    """Returns a command that acts on the home whose code runs; `arguments` are quoted for a shell."""
    return f"{_program} {arguments}"

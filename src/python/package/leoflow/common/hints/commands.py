"""Writes the commands of `leoflow` that hints name, and finds the home to which this package belongs."""

from __future__ import annotations

import os

_program = "leoflow"
# The folder of this package: `<home>/python/leoflow-<hash>`, unless it is in the sources of Leoflow.
_package = os.path.abspath(os.path.join(__file__, *[os.pardir] * 4))


def home() -> str | None:
    """Returns the home that contains this package, for code in processes that Leoflow did not start; None in the
    sources of Leoflow."""
    folder, name = os.path.split(_package)
    return os.path.dirname(folder) if name.startswith("leoflow-") and os.path.basename(folder) == "python" else None


def use_home(option: str) -> None:
    """Adds the option that chooses this process's home, such as `--instance staging`, to all later commands."""
    global _program
    _program = f"leoflow {option}"


def command(arguments: str) -> str:
    """Returns a command that acts on the home whose code runs; `arguments` are quoted for a shell."""
    return f"{_program} {arguments}"

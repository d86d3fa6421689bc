"""Stubs of the small package's `airflow`, for type checkers and completion: they do not see its names, which are
resolved on access."""

from __future__ import annotations

from leoflow.names import MODULES


def texts() -> dict[str, str]:
    """Returns the text of each module's stub, by the folder of the module below `airflow`."""
    return {"/".join(module.split(".")[1:]): text(module) for module in MODULES}


def text(module):
    """Returns a stub that imports each name of the module, and each module in it."""
    names = MODULES[module]
    lines = [definition(name, target) for name, target in sorted(names.items())]
    inner = {other[len(module) + 1:].partition(".")[0] for other in MODULES if other.startswith(f"{module}.")}
    lines += [f"from {module} import {name} as {name}" for name in sorted(inner - names.keys())]
    return "\n".join(["__version__: str", *lines, ""])


def definition(name, target):
    if target.endswith(":"):
        folder, _, whole = f"leoflow.{target.rstrip(':')}".rpartition(".")
        return f"from {folder} import {whole} as {name}"
    return f"from leoflow.{target} import {name} as {name}"

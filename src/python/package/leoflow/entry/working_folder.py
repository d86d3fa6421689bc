"""Sets the working directory of Python processes."""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def enter(options: dict[str, Any]) -> None:
    """Changes to the first folder of `options["work_in"]` that exists, usually the project's, so that relative paths in
    a DAG file refer to files of the project."""
    for folder in options.get("work_in") or []:
        try:
            os.chdir(folder)
            break
        except OSError:
            pass

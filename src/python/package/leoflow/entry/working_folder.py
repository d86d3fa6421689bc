"""Where a process of ours works."""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def enter(options: dict[str, Any]) -> None:
    """The first folder that is there: the project, so that what lies beside the DAG is found by its name."""
    for folder in options.get("work_in") or []:
        try:
            os.chdir(folder)
            break
        except OSError:
            pass

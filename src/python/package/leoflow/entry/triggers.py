"""The process that waits in the place of deferred tasks."""

from __future__ import annotations

from leoflow.entry import dotenv
from leoflow.sdk import triggers

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def main(options: dict[str, Any]) -> None:
    dotenv.load(options["work_in"])
    dotenv.own_python_first()
    triggers.main(options)

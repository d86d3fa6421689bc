"""The process that waits in the place of deferred tasks."""

from __future__ import annotations

from leoflow.common import real_sdk
from leoflow.entry import dotenv

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def main(options: dict[str, Any]) -> None:
    dotenv.load(options["work_in"])
    dotenv.own_python_first()
    if real_sdk.is_used():
        from leoflow.sdk.triggers import main as wait
    else:
        from leoflow.running.deferral import wait
    wait(options)

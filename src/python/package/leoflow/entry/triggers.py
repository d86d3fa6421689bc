"""The process that runs the triggers of deferred tasks."""

from __future__ import annotations

from leoflow.airflow_2.install import install_if
from leoflow.common import real_sdk
from leoflow.common.settings import image_folder
from leoflow.entry.workspace import Workspace, prepare
from leoflow.running import loading

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def main(options: dict[str, Any]) -> None:
    loading.begin()
    # Sets up environment and module search path as for a task, before any module that reads them is imported.
    prepare(support=options.get("support"))
    workspace = Workspace(options["roots"])
    workspace.enter()
    workspace.install()
    image_folder.show_if(options.get("settings"))
    install_if(options.get("settings"))
    if real_sdk.is_active():
        from leoflow.sdk.triggers import main as wait
    else:
        from leoflow.running.deferral import wait
    wait(options)

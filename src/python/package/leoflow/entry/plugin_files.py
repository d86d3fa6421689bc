"""Loads the plugins of a project's `plugins` folder for the small package; Airflow's SDK loads them itself."""

from __future__ import annotations

import os
import sys

from leoflow.authoring import plugins
from leoflow.common import local_modules
from leoflow.common.reports import describe
from leoflow.entry.workspace import read_source

TYPE_CHECKING = False
if TYPE_CHECKING:
    from leoflow.entry.workspace import Workspace


def load(workspace: Workspace) -> None:
    """Runs the files of the folder that define plugins; those that fail are noted and left out, as in Airflow. Call it
    after the DAG file, which may import them."""
    for path in files(workspace):
        try:
            module = next((loaded for loaded in list(sys.modules.values()) if getattr(loaded, "__file__", None) == path), None)
            for value in list(vars(module or workspace.run(path)).values()):
                if is_plugin(value):
                    plugins.register(value)
        except Exception as error:
            workspace.plugin_problems.append(f"{path}: the plugin cannot be loaded: {describe(error)}")


def files(workspace):
    """Returns the files in the order of their names: those of the stored version, if there is one."""
    if workspace.stored:
        sources = {path: text for folder in local_modules.plugins_folders(workspace.roots)
                   for path, text in workspace.stored.items() if path.startswith(folder + os.sep)}
    else:
        folder = next((folder for folder in local_modules.plugins_folders(workspace.roots) if os.path.isdir(folder)), "")
        paths = [os.path.join(parent, name) for parent, _, names in os.walk(folder) for name in names if name.endswith(".py")]
        sources = {path: read_source(path) for path in paths}
    return sorted(path for path, text in sources.items() if "AirflowPlugin" in text)


def is_plugin(value):
    return isinstance(value, type) and issubclass(value, plugins.AirflowPlugin) and value is not plugins.AirflowPlugin

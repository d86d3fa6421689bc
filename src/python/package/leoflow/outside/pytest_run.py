"""`leoflow test`: runs pytest with a project's variables and import folders, and with `pytest_plugin`."""

from __future__ import annotations

import json
import os
import sys

from leoflow.common.hints.commands import command
from leoflow.common.settings import image_folder
from leoflow.entry.workspace import Workspace
from leoflow.outside import startup

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

PLUGIN = "leoflow.outside.pytest_plugin"
# The DAG files of the project, as JSON; workers of pytest-xdist inherit it.
FILES = "LEOFLOW_TEST_FILES"
# The first version with the hooks that the plugin uses.
OLDEST = (7, 0)


def main(options: dict[str, Any]) -> None:
    if "airflow_home" in options:
        startup.use_airflow(options["airflow_home"])
    elif options.get("support"):
        sys.path.append(options["support"])
    settings = options["settings"] or {}
    image_folder.show_if(settings)
    for warning in image_folder.warnings():
        sys.stderr.write(f"warning: {warning}\n")
    workspace = Workspace(options["roots"])
    workspace.enter(is_outside=True)
    workspace.extend_path()
    if settings.get("airflow_2"):
        startup.translate_airflow_2()
    if options["pytest"]:
        sys.path.append(options["pytest"])
    try:
        import pytest
    except ImportError as error:
        sys.exit(f"error: pytest cannot be imported: {error}\n  list a newer one: {command('add pytest')}")
    if pytest.version_tuple[:2] < OLDEST:
        sys.exit(f"error: the project has pytest {pytest.__version__}, and `leoflow test` needs {OLDEST[0]}.{OLDEST[1]} or newer\n"
                 f"  change its requirement: {command('add')} 'pytest>=7'")
    os.environ[FILES] = json.dumps(options["files"])
    if sys.pycache_prefix:
        # For the workers of pytest-xdist, too.
        os.environ["PYTHONPYCACHEPREFIX"] = sys.pycache_prefix
    sys.exit(pytest.main(["-p", PLUGIN, *options["arguments"]]))

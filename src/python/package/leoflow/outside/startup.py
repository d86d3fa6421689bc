"""Runs at each start of the Python of a project's `.venv`, which `leoflow env link` makes: sets the variables and
import folders that the project's tasks have."""

from __future__ import annotations

import os
import site
import sys

from leoflow.common import real_sdk
from leoflow.entry.workspace import Workspace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

DATABASE = "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"
SECRETS = "AIRFLOW__SECRETS__BACKEND"


def enter(options: dict[str, Any]) -> None:
    package = options["package"]
    sys.path.remove(package)
    for folder in options["environment"]:
        site.addsitedir(folder)
    own_folders = [package]
    if options["project_airflow_home"]:
        use_airflow(options["project_airflow_home"])
    else:
        own_folders.insert(0, os.path.join(package, "small"))
        if options["support"]:
            sys.path.append(options["support"])
    workspace = Workspace(options["roots"])
    workspace.enter(is_outside=True)
    workspace.extend_path()
    sys.path[:0] = own_folders
    sys.path.append(options["types"])
    if options["airflow_2"]:
        sys.meta_path.insert(0, TranslationOnImport())


def use_airflow(home):
    """Configures Airflow's own SDK, with a database for its `dag.test()` and with the stored Variables and Connections
    of Leoflow."""
    database, before = f"sqlite:///{home}/airflow.db", os.environ.get(DATABASE, "")
    real_sdk.activate(home)
    del os.environ["_AIRFLOW_PROCESS_CONTEXT"]
    os.environ.setdefault(SECRETS, "leoflow.outside.secrets.ServerSecrets")
    if before.startswith(f"{database}."):
        # This is the command that creates the database, under another name.
        os.environ[DATABASE] = before
    else:
        os.environ[DATABASE] = database
        sys.meta_path.insert(0, DatabaseOnDemand())


class TranslationOnImport:
    """Translates what Airflow 3 removed once `airflow` is imported, which takes seconds with Airflow's own SDK."""

    def find_spec(self, name, path=None, target=None):
        if name != "airflow":
            return None
        import importlib.util

        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        execute = spec.loader.exec_module

        def exec_module(module):
            execute(module)
            from leoflow.airflow_2.install import install

            install()

        spec.loader.exec_module = exec_module
        return spec


class DatabaseOnDemand:
    """Creates the database when the module of runs is imported, which `dag.test()` uses and few DAG files do: creating
    it takes seconds."""

    def find_spec(self, name, path=None, target=None):
        if name == "airflow.models.dagrun":
            from leoflow.entry import shell

            sys.meta_path.remove(self)
            shell.use_database(real_sdk.home())
        return None

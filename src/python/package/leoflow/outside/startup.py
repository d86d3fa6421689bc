"""Runs at each start of the Python of a project's `.venv`, which `leoflow env link` makes: sets the variables and
import folders that the project's tasks have."""

from __future__ import annotations

import functools
import inspect
import os
import site
import sys
from datetime import datetime, timezone

from leoflow.common import real_sdk
from leoflow.entry.workspace import Workspace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

DATABASE = "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"
SECRETS = "AIRFLOW__SECRETS__BACKEND"
# Arguments of `DAG.test()` that only Airflow's own has.
OWN_ARGUMENTS = ("run_after", "conn_file_path", "variable_file_path", "use_executor")


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
        translate_airflow_2()


def use_airflow(home):
    """Configures Airflow's own SDK, with a database for its `dag.test()` and with the stored Variables and Connections
    of Leoflow."""
    database, before = f"sqlite:///{home}/airflow.db", os.environ.get(DATABASE, "")
    real_sdk.activate(home)
    del os.environ["_AIRFLOW_PROCESS_CONTEXT"]
    os.environ.setdefault(SECRETS, "leoflow.outside.secrets.ServerSecrets")
    sys.meta_path.insert(0, OnImport("airflow.sdk.definitions.dag", replace_test))
    if before.startswith(f"{database}."):
        # This is the command that creates the database, under another name.
        os.environ[DATABASE] = before
    else:
        os.environ[DATABASE] = database
        sys.meta_path.insert(0, DatabaseOnDemand())


class OnImport:
    """Calls a function with a module once that is imported, which takes seconds for modules of Airflow's own SDK."""

    def __init__(self, name, function):
        self.name, self.function = name, function

    def find_spec(self, name, path=None, target=None):
        if name != self.name:
            return None
        import importlib.util

        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        execute = spec.loader.exec_module

        def exec_module(module):
            execute(module)
            self.function(module)

        spec.loader.exec_module = exec_module
        return spec


def translate_airflow_2() -> None:
    """Translates what Airflow 3 removed once `airflow` is imported."""

    def install(_):
        from leoflow.airflow_2.install import install

        install()

    sys.meta_path.insert(0, OnImport("airflow", install))


def replace_test(module):
    """Replaces `DAG.test()` in the module that defines it: Airflow's own needs seconds for each run, because it starts its API
    in the process, with a database. It still runs what Leoflow's lacks: some arguments, and tasks that read asset events."""
    airflows_own = module.DAG.test
    signature = inspect.signature(airflows_own)

    @functools.wraps(airflows_own)
    def test(*args, **kwargs):
        given = signature.bind(*args, **kwargs).arguments
        dag = given.pop("self")
        if any(given.get(name) for name in OWN_ARGUMENTS) or any(task.inlets for task in dag.tasks):
            return airflows_own(*args, **kwargs)
        from leoflow.outside import airflow_dag_test

        # From Airflow 3.1 on, None is a run without a logical date.
        if "logical_date" not in given and signature.parameters["logical_date"].default is not None:
            given["logical_date"] = datetime.now(timezone.utc)
        return airflow_dag_test.run(dag, given.get("logical_date"), given.get("run_conf"), given.get("mark_success_pattern"))

    module.DAG.test = test


class DatabaseOnDemand:
    """Creates the database when the module of runs is imported, which `dag.test()` uses and few DAG files do: creating
    it takes seconds."""

    def find_spec(self, name, path=None, target=None):
        if name == "airflow.models.dagrun":
            from leoflow.entry import shell

            sys.meta_path.remove(self)
            shell.use_database(real_sdk.home())
        return None

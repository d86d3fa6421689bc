"""Apache Airflow's own SDK, in a project whose environment has it: then it is what DAG files import, and our own package
stands back. The variables that it reads are set here, before anything of it is imported."""

from __future__ import annotations

import os

from leoflow.common import local_modules

_used = False


def is_used() -> bool:
    return _used


def use(home: str) -> None:
    """`home` is where it keeps what it writes. What the user's own Airflow reads from its home is none of a project's."""
    global _used
    _used = True
    os.environ["AIRFLOW_HOME"] = home
    os.environ["AIRFLOW_CONFIG"] = os.path.join(home, "airflow.cfg")
    # There is no database, and no server; whoever wants one is told so by Airflow.
    os.environ["AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"] = f"sqlite:///{home}/there-is-none.db"
    os.environ["_AIRFLOW_PROCESS_CONTEXT"] = "client"
    for name, value in {
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__LOGGING__COLORED_CONSOLE_LOG": "False",
        "AIRFLOW__LOGGING__BASE_LOG_FOLDER": os.path.join(home, "logs"),
    }.items():
        os.environ.setdefault(name, value)


def enter_project(roots: list[str]) -> None:
    """The folders of its plugins and its DAGs are the project's, where it does not say otherwise itself."""
    os.environ.setdefault("AIRFLOW__CORE__DAGS_FOLDER", roots[0])
    folders = [os.path.join(root, "plugins") for root in local_modules.without_dags(roots)]
    plugins = next((folder for folder in folders if os.path.isdir(folder)), folders[0])
    os.environ.setdefault("AIRFLOW__CORE__PLUGINS_FOLDER", plugins)



"""Settings for Apache Airflow's own SDK, which DAG files import instead of the small package if the project's
environment contains the SDK. They must be set before any module of the SDK is imported."""

from __future__ import annotations

import os

from leoflow.common import local_modules

# Airflow's folder of this process, below Leoflow's home; empty while the SDK is not active.
_home = ""
# True if the environment had settings of Airflow before those that `activate` sets.
_has_settings = False


def is_active() -> bool:
    return bool(_home)


def has_settings() -> bool:
    """True if the SDK is active and the environment of this process has settings of Airflow other than Leoflow's own."""
    return _has_settings


def home() -> str:
    """Returns the folder for files that Airflow writes. `AIRFLOW_HOME` is the project's folder while its code runs."""
    return _home


def activate(home: str) -> None:
    """Switches this process to Airflow's SDK. `home` becomes AIRFLOW_HOME, so that the user's own Airflow home does not
    affect projects."""
    global _home, _has_settings
    _home = home
    _has_settings = any(name.startswith("AIRFLOW__") and name != "AIRFLOW__API__BASE_URL" for name in os.environ)
    os.environ["AIRFLOW_HOME"] = home
    os.environ["AIRFLOW_CONFIG"] = os.path.join(home, "airflow.cfg")
    # There is no Airflow database or server; code that needs one gets Airflow's error.
    os.environ["AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"] = no_database(home)
    os.environ["_AIRFLOW_PROCESS_CONTEXT"] = "client"
    for name, value in {
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__LOGGING__COLORED_CONSOLE_LOG": "False",
        "AIRFLOW__LOGGING__BASE_LOG_FOLDER": os.path.join(home, "logs"),
    }.items():
        os.environ.setdefault(name, value)


def no_database(home: str) -> str:
    return f"sqlite:///{home}/there-is-none.db"


def enter_project(roots: list[str]) -> None:
    """Sets Airflow's folders of DAGs and plugins to the project's, unless the project sets them itself."""
    os.environ.setdefault("AIRFLOW__CORE__DAGS_FOLDER", roots[0])
    folders = local_modules.plugins_folders(roots)
    plugins = next((folder for folder in folders if os.path.isdir(folder)), folders[0])
    os.environ.setdefault("AIRFLOW__CORE__PLUGINS_FOLDER", plugins)

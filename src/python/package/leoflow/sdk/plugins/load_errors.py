"""Loads the plugins of the project and of its packages to name those that cannot be loaded, which Airflow leaves out."""

from __future__ import annotations

from leoflow.common.reports import describe
from leoflow.sdk import dag_file


def find() -> list[str]:
    """Returns the plugins that cannot be loaded, with reasons."""
    try:
        dag_file.enter_project()
        return [f"{place}: the plugin cannot be loaded: {reason}" for place, reason in import_errors().items()]
    except Exception as error:
        return [f"the plugins cannot be loaded: {describe(error)}"]


def import_errors():
    from airflow import plugins_manager

    if hasattr(plugins_manager, "get_import_errors"):
        return plugins_manager.get_import_errors()
    # Airflow before 3.2.
    plugins_manager.ensure_plugins_loaded()
    return plugins_manager.import_errors

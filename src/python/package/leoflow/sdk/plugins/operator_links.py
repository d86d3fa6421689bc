"""Links of operators to other pages. Airflow's task runner pushes an operator's own links at the end of a try; its web server
computes those that plugins add, which here the task pushes too."""

from __future__ import annotations

import json

from leoflow.sdk.plugins import mentions

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def keys(task: Any) -> dict[str, str]:
    """Returns the keys of the XComs with the links, by the links' names."""
    own = task.operator_extra_links
    # That of a mapped task may be the property of its operator class.
    links = own.__get__(task) if isinstance(own, property) else own
    added_by_name, added = of_plugins(task)
    links = [*added, *links, *added_by_name]
    return {link.name: link.xcom_key for link in links}


def of_plugins(task):
    """Returns the links that plugins of the project add: those for this operator, and those for all."""
    if not mentions.in_project("operator_extra_links"):
        return [], []
    from airflow import plugins_manager

    if not hasattr(plugins_manager, "get_operator_extra_links"):
        # Airflow before 3.2.
        plugins_manager.initialize_extra_operators_links_plugins()
        for_operators, for_all = plugins_manager.operator_extra_links, plugins_manager.global_operator_extra_links
    else:
        for_operators, for_all = plugins_manager.get_operator_extra_links(), plugins_manager.get_global_operator_extra_links()
    return [link for link in for_operators or () if any(kind.__name__ == task.task_type for kind in link.operators)], for_all or ()


def push_of_plugins(ti: Any, supervisor: Any, log: Any) -> None:
    """Pushes the links that plugins add to the task's operator."""
    for link in (link for links in of_plugins(ti.task) for link in links):
        try:
            supervisor.xcoms.push(link.xcom_key, json.dumps(link.get_link(ti.task, ti_key=ti)))
        except Exception:
            log.exception("Failed to push an xcom for task operator extra link", link_name=link.name, xcom_key=link.xcom_key)

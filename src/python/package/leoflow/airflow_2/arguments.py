"""Arguments of Airflow 2 for DAGs and operators."""

from __future__ import annotations

import functools
import importlib
from datetime import timedelta

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

# Arguments with another name in Airflow 3.
DAG_RENAMED = {"schedule_interval": "schedule", "timetable": "schedule", "concurrency": "max_active_tasks", "fail_stop": "fail_fast"}
OPERATOR_RENAMED = {"task_concurrency": "max_active_tis_per_dag", "xcom_push": "do_xcom_push"}
# Arguments without meaning in Airflow 3, which has another UI, no SLAs, and always passes the context.
DAG_REMOVED = frozenset(("default_view", "full_filepath", "orientation", "sla_miss_callback"))
OPERATOR_REMOVED = frozenset(("provide_context", "sla"))
TRIGGER_RULES = {"dummy": "always", "none_failed_or_skipped": "none_failed_min_one_success"}
# Names in the survey of a repository.
TRANSLATED = {*DAG_RENAMED, *OPERATOR_RENAMED, *DAG_REMOVED, *OPERATOR_REMOVED}
# The schedule of a DAG of Airflow 2 that has none.
DEFAULT_SCHEDULE = timedelta(days=1)


def install() -> None:
    from airflow.sdk import BaseOperator

    for kind in dag_classes():
        wrap(kind, of_dag)
    wrap(BaseOperator, of_operator)
    for rule in trigger_rule_classes():
        for old, new in TRIGGER_RULES.items():
            setattr(rule, old.upper(), rule(new))


def dag_classes():
    """In Airflow 3.0, `airflow.DAG` is a class of its own below that of the SDK."""
    import airflow
    from airflow.sdk import DAG

    return {DAG, airflow.DAG}


def trigger_rule_classes():
    """The SDK and the rest of Airflow have a class each; its module depends on the version."""
    for module in ("airflow.sdk", "airflow.task.trigger_rule", "airflow.utils.trigger_rule"):
        try:
            yield importlib.import_module(module).TriggerRule
        except (ImportError, AttributeError):
            continue
        if module == "airflow.task.trigger_rule":
            return


def wrap(kind: type, translate: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    original = kind.__init__

    @functools.wraps(original)
    def __init__(self, *args, **kwargs):
        original(self, *args, **translate(kwargs))

    kind.__init__ = __init__


def of_dag(arguments: dict[str, Any]) -> dict[str, Any]:
    translated = renamed(arguments, DAG_RENAMED, DAG_REMOVED)
    translated.setdefault("schedule", DEFAULT_SCHEDULE)
    return translated


def of_operator(arguments: dict[str, Any]) -> dict[str, Any]:
    return renamed(arguments, OPERATOR_RENAMED, OPERATOR_REMOVED)


def renamed(arguments, names, removed):
    # A name of Airflow 3 takes precedence.
    translated = {names.get(name, name): value for name, value in arguments.items() if name in names}
    translated.update((name, value) for name, value in arguments.items() if name not in names and name not in removed)
    if translated.get("default_args"):
        translated["default_args"] = of_operator(translated["default_args"])
    rule = translated.get("trigger_rule")
    if isinstance(rule, str):
        translated["trigger_rule"] = TRIGGER_RULES.get(rule, rule)
    return translated

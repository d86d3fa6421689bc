"""Arguments of Airflow 2 for DAGs and operators."""

from __future__ import annotations

import functools
import importlib
from datetime import timedelta

from leoflow.common import real_sdk

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
# The arguments after `dag_id` that files pass by position.
DAG_POSITIONS = ("description", "schedule_interval")
# The schedule of a DAG of Airflow 2 that has none.
DEFAULT_SCHEDULE = timedelta(days=1)


def install() -> None:
    from airflow.sdk import BaseOperator

    for dag_class in dag_classes():
        wrap(dag_class, "__init__", translate_dag_arguments, DAG_POSITIONS)
    wrap(BaseOperator, "__init__", translate_operator_arguments)
    if real_sdk.is_active():
        from airflow.sdk.bases.decorator import _TaskDecorator
        from airflow.sdk.bases.operator import _PartialDescriptor

        wrap_partial(_PartialDescriptor)
        wrap_decorator(_TaskDecorator, "kwargs", "__attrs_post_init__")
    else:
        from leoflow.authoring.operators.taskflow import TaskFunction

        wrap(type(BaseOperator), "partial", translate_operator_arguments)
        wrap_decorator(TaskFunction, "arguments", "__init__")
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


def wrap(owner: type, name: str, translate: Callable[[dict[str, Any]], dict[str, Any]], positions: tuple[str, ...] = ()) -> None:
    """Makes a method translate its keyword arguments. `positions` are the names of positional arguments after the first;
    the method itself refuses others."""
    original = getattr(owner, name)

    @functools.wraps(original)
    def translated(self, *args, **kwargs):
        named = dict(zip(positions, args[1:], strict=False))
        return original(self, *args[:1], *args[1 + len(named):], **translate({**named, **kwargs}))

    setattr(owner, name, translated)


def wrap_partial(descriptor: type) -> None:
    original = descriptor.__get__

    def get(self, instance, owner=None):
        partial = original(self, instance, owner)
        return lambda **kwargs: partial(**translate_operator_arguments(kwargs))

    descriptor.__get__ = get


def wrap_decorator(task_class: type, attribute: str, method: str) -> None:
    """Translates the arguments of `@task(…)`, which are also those of its mapped tasks."""
    original = getattr(task_class, method)

    @functools.wraps(original)
    def translated(self, *args, **kwargs):
        original(self, *args, **kwargs)
        setattr(self, attribute, translate_operator_arguments(getattr(self, attribute)))

    setattr(task_class, method, translated)


def translate_dag_arguments(arguments: dict[str, Any]) -> dict[str, Any]:
    translated = renamed(arguments, DAG_RENAMED, DAG_REMOVED)
    translated.setdefault("schedule", DEFAULT_SCHEDULE)
    return translated


def translate_operator_arguments(arguments: dict[str, Any]) -> dict[str, Any]:
    return renamed(arguments, OPERATOR_RENAMED, OPERATOR_REMOVED)


def renamed(arguments, names, removed):
    # A name of Airflow 3 takes precedence.
    translated = {names.get(name, name): value for name, value in arguments.items() if name in names}
    translated.update((name, value) for name, value in arguments.items() if name not in names and name not in removed)
    if translated.get("default_args"):
        # The old names stay: operators of the user may have arguments of these names.
        translated["default_args"] = {**translated["default_args"], **translate_operator_arguments(translated["default_args"])}
    rule = translated.get("trigger_rule")
    if isinstance(rule, str):
        translated["trigger_rule"] = TRIGGER_RULES.get(rule, rule)
    return translated

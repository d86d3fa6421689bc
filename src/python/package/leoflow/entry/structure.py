"""Creates the structure of a DAG from objects of the small package. `sdk/structure.py` does the same for Airflow's
SDK."""

from __future__ import annotations

import math
import re

from leoflow.authoring import plugins
from leoflow.authoring.assets.definitions import Asset, AssetAlias, AssetNameRef, AssetUriRef
from leoflow.authoring.dag.task_group import MappedTaskGroup
from leoflow.authoring.operators import priority
from leoflow.common import structure
from leoflow.common.dates import iso
from leoflow.common.structure import unless_default

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from leoflow.authoring.dag.dag import DAG


def dag_structure(dag: DAG, deterministic: bool) -> dict[str, Any]:
    """Returns the structure of a DAG. `deterministic` is True if its file defines the same DAG each time it runs."""
    condition = dag.timetable.asset_condition
    rare = {
        "asset_condition": None if condition is None else condition.to_structure(),
        "groups": [group_structure(group) for group in dag.group_ids.values()],
        "edge_labels": [[*ends, label] for ends, label in dag.edge_labels.items()],
        "task_failure_callbacks": any(structure.has_failure_callbacks(task, expanded(task)) for task in dag.tasks),
    }
    tasks = [task_structure(task, deterministic) for task in dag.ordered()]
    return structure.dag_structure(dag, dag.timetable, {"params": dag.params.to_structure()}, rare, tasks)


def group_structure(group):
    return structure.group_structure(group, *mapped_over(group.expand_input if isinstance(group, MappedTaskGroup) else None))


def mapped_over(expand_input):
    """Returns the length expression of a mapped task or group, and the tasks on which it depends."""
    if expand_input is None:
        return None, None
    return expand_input.length(), [operator.task_id for operator in expand_input.operators()]


def expanded(task):
    return getattr(task.expand_input, "kwargs", None) if task.is_mapped else ()


def task_structure(task, deterministic):
    length, sources = mapped_over(task.expand_input if task.is_mapped else None)
    return structure.task_structure(task, priority.total(task), {
        "trigger_rule": unless_default("all_success", task.trigger_rule),
        "retry_backoff": task.retry_exponential_backoff or None,
        "weight_rule": unless_default("downstream", task.weight_rule),
        "start_date": iso(task.start_date),
        "end_date": iso(task.end_date),
        "decides": task.skips_downstream,
        "reschedules": getattr(task, "reschedule", False),
        "length": length,
        "sources": sources,
        "mapped": task.is_mapped,
        "is_nothing": structure.is_nothing(task, task.inherits_from_empty_operator),
        "waits": sensor_wait(task) if deterministic else None,
        "inlets": [inlet.to_structure() for inlet in task.inlets if is_asset(inlet)],
        "outlets": [outlet.to_structure() for outlet in task.outlets if is_asset(outlet)],
        "params": own_params(task),
        "env": getattr(task, "leoflow_env", None),
        "extra_links": {link.name: link.xcom_key for link in plugins.links_of(task)},
    })


# Methods that decide how a sensor waits. The scheduler can wait in its place only if no class outside of this package
# overrides one of them.
WAITING = ("execute", "poke", "due", "known_wait", "_dates", "_count", "pre_execute", "post_execute", "render_template_fields")


# Names that suggest that a file computes a value that differs each time it runs.
NONDETERMINISTIC = re.compile(
    r"\b(?:now|today|utcnow|tomorrow|yesterday|days_ago|time_ns|localtime|gmtime|monotonic|random|uuid\w*|stat|getmtime)\b"
    r"|\btime\.time\b|\bimport\s+time\b|\bfrom\s+time\s+import\b"
)


def is_deterministic(sources):
    """True if no source contains a name that suggests a different result each time it runs."""
    return not any(NONDETERMINISTIC.search(text) for text in sources)


def sensor_wait(task):
    """Returns the condition of a sensor if the scheduler can check it, so that no process runs until the condition is
    met; else None."""
    kind = type(task)
    if task.is_mapped or not getattr(kind, "is_sensor", False):
        return None
    functions = [getattr(kind, name, None) for name in WAITING]
    if any(getattr(function, "__module__", "leoflow").partition(".")[0] != "leoflow" for function in functions if function is not None):
        return None
    # Only the process of the sensor can enforce execution_timeout.
    if task.execution_timeout is not None and not task.reschedule:
        return None
    # Hooks that run before the wait need the process.
    if task.on_execute_callback or getattr(task, "_pre_execute_hook", None) or not math.isfinite(task.timeout + task.poke_interval):
        return None
    condition = task.known_wait()
    # True if the task has nothing to do after the wait, so that it needs no process at all.
    is_all = not (
        task.on_success_callback or getattr(task, "_post_execute_hook", None) or task.outlets or task.inlets
    )
    # A process that starts after the wait may run on another day and would wait for that day's time.
    if condition is None or not is_all and condition["kind"] in ("time", "weekday"):
        return None
    return {"until": condition, "timeout": task.timeout, "is_all": is_all}


def is_asset(value):
    return isinstance(value, (Asset, AssetAlias, AssetNameRef, AssetUriRef))


def own_params(task):
    from leoflow.authoring.dag.params import Param

    return {name: (param if isinstance(param, Param) else Param(param)).to_structure() for name, param in task.own_params.items()}

"""What the scheduler is told of a DAG of our own package. `sdk/structure.py` makes the same from Airflow's own SDK."""

from __future__ import annotations

import math
import re

from leoflow.authoring import priority
from leoflow.authoring.assets import Asset, AssetAlias, AssetNameRef, AssetUriRef
from leoflow.authoring.task_group import MappedTaskGroup
from leoflow.common import structure
from leoflow.common.structure import iso, other_than

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from leoflow.authoring.dag import DAG


def of_dag(dag: DAG, steady: bool) -> dict[str, Any]:
    """`steady` is whether its file gives the same DAG whenever it is run."""
    condition = dag.timetable.asset_condition
    rare = {
        "asset_condition": None if condition is None else condition.described(),
        "groups": [of_group(group) for group in dag.group_ids.values()],
        "edge_labels": [[*ends, label] for ends, label in dag.edge_labels.items()],
    }
    tasks = [of_task(task, steady) for task in dag.ordered()]
    return structure.of_dag(dag, dag.timetable, {"params": dag.params.described()}, rare, tasks)


def of_group(group):
    return structure.of_group(group, *mapped_over(group.expand_input if isinstance(group, MappedTaskGroup) else None))


def mapped_over(expand_input):
    """How many elements there are, and the tasks that say so."""
    if expand_input is None:
        return None, None
    return expand_input.length(), [one.task_id for one in expand_input.operators()]


def of_task(task, steady):
    length, sources = mapped_over(task.expand_input if task.is_mapped else None)
    return structure.of_task(task, priority.total(task), {
        "trigger_rule": other_than("all_success", task.trigger_rule),
        "retry_backoff": task.retry_exponential_backoff or None,
        "weight_rule": other_than("downstream", task.weight_rule),
        "start_date": iso(task.start_date),
        "end_date": iso(task.end_date),
        "decides": task.skips_downstream,
        "reschedules": getattr(task, "reschedule", False),
        "length": length,
        "sources": sources,
        "mapped": task.is_mapped,
        "is_nothing": structure.is_nothing(task, task.inherits_from_empty_operator),
        "waits": wait(task) if steady else None,
        "inlets": [one.described() for one in task.inlets if is_asset(one)],
        "outlets": [one.described() for one in task.outlets if is_asset(one)],
        "params": own_params(task),
        "env": getattr(task, "leoflow_env", None),
    })


# What decides how a sensor waits: of our own classes it is known.
WAITING = ("execute", "poke", "due", "known_wait", "_dates", "_count", "pre_execute", "post_execute", "render_template_fields")


# What a file may work out a time from that is another one whenever it is run.
UNSTEADY = re.compile(
    r"\b(?:now|today|utcnow|tomorrow|yesterday|days_ago|time_ns|localtime|gmtime|monotonic|random|uuid\w*|stat|getmtime)\b"
    r"|\btime\.time\b|\bimport\s+time\b|\bfrom\s+time\s+import\b"
)


def is_steady(sources):
    """Whether files give the same whenever they are run, as far as their texts tell."""
    return not any(UNSTEADY.search(text) for text in sources)


def wait(task):
    """What a sensor waits for that the scheduler knows, or finds by itself: nothing runs until then."""
    kind = type(task)
    if task.is_mapped or not getattr(kind, "is_sensor", False):
        return None
    functions = [getattr(kind, name, None) for name in WAITING]
    if any(getattr(one, "__module__", "leoflow").partition(".")[0] != "leoflow" for one in functions if one is not None):
        return None
    # It is measured by the process that waits, and by that alone.
    if task.execution_timeout is not None and not task.reschedule:
        return None
    # What comes before the wait is its process's.
    if task.on_execute_callback or getattr(task, "_pre_execute_hook", None) or not math.isfinite(task.timeout + task.poke_interval):
        return None
    until = task.known_wait()
    is_all = not (
        task.on_success_callback or getattr(task, "_post_execute_hook", None) or task.outlets or task.inlets
    )
    # A process that begins later, on another day, would wait for that day's.
    if until is None or not is_all and until["kind"] in ("time", "weekday"):
        return None
    return {"until": until, "timeout": task.timeout, "is_all": is_all}


def is_asset(one):
    return isinstance(one, (Asset, AssetAlias, AssetNameRef, AssetUriRef))


def own_params(task):
    from leoflow.authoring.params import Param

    return {name: (one if isinstance(one, Param) else Param(one)).described() for name, one in task.own_params.items()}

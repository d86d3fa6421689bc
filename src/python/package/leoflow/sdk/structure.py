"""Creates the structure of a DAG from objects of Airflow's SDK. `entry/structure.py` does the same for the small
package."""

from __future__ import annotations

import enum

from leoflow.common import structure, topology
from leoflow.common.dates import iso
from leoflow.common.structure import unless_default
from leoflow.sdk import older_versions
from leoflow.sdk.definitions import deadlines, timetables
from leoflow.sdk.definitions.weights import rule_of, weight
from leoflow.sdk.plugins import operator_links

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from airflow.sdk import DAG


def plain(value):
    return value.value if isinstance(value, enum.Enum) else value


def dag_structure(dag: DAG) -> dict[str, Any]:
    condition = getattr(dag.timetable, "asset_condition", None)
    own = {"params": {name: param_structure(dag.params.get_param(name)) for name in dag.params}}
    rare = {
        "asset_condition": condition_structure(condition) if is_condition(condition) else None,
        "run_for_each_asset_event": not getattr(dag.timetable, "batch_asset_events", True),
        "deadlines": [deadlines.alert_structure(alert) for alert in deadlines.alerts(dag)],
        "groups": [group_structure(group) for name, group in groups(dag).items() if name is not None],
        "edge_labels": [[upstream_id, downstream_id, edge["label"]] for upstream_id, edges in dag.edge_info.items()
                        for downstream_id, edge in edges.items() if edge.get("label")],
        "task_failure_callbacks": any(structure.has_failure_callbacks(task, expanded(task)) for task in dag.tasks),
    }
    tasks = [task_structure(task, dag) for task in topology.ordered(dag.task_dict)]
    return structure.dag_structure(dag, timetables.convert(dag.timetable), own, rare, tasks)


def groups(dag):
    groups_by_id = getattr(dag, "task_group_dict", None)
    return dag.task_group.get_task_group_dict() if groups_by_id is None else groups_by_id


def param_structure(param):
    fields = {"schema": dict(param.schema), "description": param.description}
    return fields if is_unset(param.value) else {**fields, "value": param.value}


def is_unset(value):
    """True for Airflow's NOTSET. Compares by class name, because a copy of NOTSET is another object."""
    return type(value).__name__ in ("ArgNotSet", "NotSetType", "_ArgNotSet")


def group_structure(group):
    fields = structure.group_structure(group, *mapped_over(expand_input_of(group)))
    return {**fields, "loop": loop_structure(group)} if is_loop(group) else fields


def is_loop(group: Any) -> bool:
    # A mapped task has a weak reference to its group, whose type is another.
    return group.__class__.__name__ == "LoopTaskGroup"


def loop_structure(group):
    terminal, gate = (group.dag.get_task(task_id) for task_id in (group.terminal_task_id, group.gate_task_id))
    return structure.non_empty({
        "max_iterations": group.max_iterations, "gate": gate.task_id, "terminal": terminal.task_id,
        "is_terminal_mapped": terminal.get_needs_expansion(), "has_condition": group.has_until, "doc": gate.doc_md,
    })


def loop_of(task: Any) -> str | None:
    """Returns the id of the loop that contains a task."""
    group = task.task_group
    while group is not None and not is_loop(group):
        group = group.parent_group
    return group and group.group_id


def expanded(task):
    value = expand_input_of(task).value if getattr(task, "is_mapped", False) else ()
    return value if isinstance(value, (dict, tuple)) else None


def task_structure(task, dag):
    is_mapped = bool(getattr(task, "is_mapped", False))
    length, sources = mapped_over(expand_input_of(task) if is_mapped else None)
    rule = rule_of(task)
    return structure.task_structure(task, weight(task, rule, dag), {
        "trigger_rule": unless_default("all_success", plain(task.trigger_rule)),
        "retry_backoff": backoff(task.retry_exponential_backoff),
        "weight_rule": unless_default("downstream", rule),
        # The SDK copies the DAG's dates to its tasks. Dates equal to the DAG's are stored only with the DAG.
        "start_date": iso(unless_default(dag.start_date, task.start_date)),
        "end_date": iso(unless_default(dag.end_date, task.end_date)),
        "decides": skips_downstream(task),
        "reschedules": reschedules(task),
        "length": length,
        "sources": sources,
        "mapped": is_mapped,
        "loop": loop_of(task),
        "is_nothing": structure.is_nothing(task, argument(task, "inherits_from_empty_operator", False)),
        "inlets": [asset_structure(inlet) for inlet in task.inlets if is_asset(inlet)],
        "outlets": [asset_structure(outlet) for outlet in task.outlets if is_asset(outlet)],
        "params": own_params(task),
        "env": dag.__dict__.get("leoflow_env", {}).get(task.task_id),
        "extra_links": operator_links.keys(task),
    })


def backoff(value):
    """Returns the factor of exponential backoff, or None. Before Airflow 3.1 the argument is a boolean."""
    return None if not value else 2.0 if value is True else float(value)


def argument(task, name, default):
    """Returns an attribute of a task; for a mapped task, the argument or the class attribute of its operator."""
    if getattr(task, "is_mapped", False):
        value = task.partial_kwargs.get(name)
        value = getattr(task.operator_class, name, default) if value is None else value
        # A property has no value on the class.
        return default if isinstance(value, property) else value
    return getattr(task, name, default)


def skips_downstream(task):
    return bool(argument(task, "inherits_from_skipmixin", False) or argument(task, "_can_skip_downstream", False))


def reschedules(task):
    """True for a sensor in mode `reschedule`."""
    kind = task.operator_class if getattr(task, "is_mapped", False) else type(task)
    if not hasattr(kind, "poke"):
        return False
    return getattr(task, "reschedule", False) is True or argument(task, "mode", None) == "reschedule"


def own_params(task):
    """Returns the params of the task without those that it inherits from the DAG."""
    from airflow.sdk.definitions.param import Param

    own_params_by_name = {}
    dag_params = task.dag.params
    params = task.params or {}
    for name in params:
        param = params.get_param(name) if hasattr(params, "get_param") else params[name]
        param = param if isinstance(param, Param) else Param(param)
        if name in dag_params and param_structure(dag_params.get_param(name)) == param_structure(param):
            continue
        own_params_by_name[name] = param_structure(param)
    return own_params_by_name


# --- mapped inputs


def expand_input_of(node: Any) -> Any:
    """Returns the input of a mapped task or group, else None."""
    if hasattr(node, "_get_specified_expand_input"):
        return node._get_specified_expand_input()
    return getattr(node, "_expand_input", None)


def mapped_over(expand_input):
    return (None, None) if expand_input is None else (length(expand_input), sources(expand_input))


def length(expand_input: Any) -> Any:
    """Returns an expression from which the scheduler computes the number of elements."""
    mapped_value = expand_input.value
    if expand_input.EXPAND_INPUT_TYPE == "dict-of-lists":
        return {"product": [length_of(item) for item in mapped_value.values()]}
    return length_of(mapped_value)


def length_of(value):
    kind = type(value).__name__
    if kind == "PlainXComArg":
        return {"task": value.operator.task_id}
    if kind == "MapXComArg":
        return length_of(value.arg)
    if kind == "ZipXComArg":
        return {"shortest" if is_unset(value.fillvalue) else "longest": [length_of(arg) for arg in value.args]}
    if kind == "ConcatXComArg":
        return {"sum": [length_of(arg) for arg in value.args]}
    if kind == "SchedulerDictOfListsExpandInput" or hasattr(value, "EXPAND_INPUT_TYPE"):
        return length(value)
    return len(value)


def sources(expand_input):
    # A dict keeps the order and drops duplicates.
    task_ids = {}
    for operator, _ in expand_input.iter_references():
        task_ids[operator.task_id] = None
    return list(task_ids)


# --- assets


# Classes of Airflow's SDK. Airflow's core has counterparts with the prefix `Serialized`, which its timetables contain.
ASSETS = ("Asset", "AssetAlias", "AssetNameRef", "AssetUriRef")
CONDITIONS = {"AssetAll": "all", "AssetAny": "any"}


def asset_kind(value: Any) -> str | None:
    """Returns the SDK's name of the class of an asset, a reference or a condition; None for any other value."""
    for kind in type(value).__mro__:
        name = kind.__name__.removeprefix("Serialized")
        if kind.__module__.partition(".")[0] == "airflow" and (name in ASSETS or name in CONDITIONS):
            return name
    return None


def is_asset(value: Any) -> bool:
    return asset_kind(value) in ASSETS


def is_condition(value):
    return is_asset(value) or bool(getattr(value, "objects", None))


def asset_structure(value: Any) -> dict[str, Any]:
    kind = asset_kind(value)
    if kind == "Asset":
        fields = {"name": value.name, "uri": value.uri, "group": value.group, "extra": dict(value.extra)}
        if getattr(value, "watchers", None):
            fields["watchers"] = [watcher_structure(watcher) for watcher in value.watchers]
        return {"asset": fields}
    if kind == "AssetAlias":
        return {"alias": value.name, "group": value.group}
    return {"name": value.name} if kind == "AssetNameRef" else {"uri": value.uri}


def watcher_structure(watcher):
    trigger = watcher.trigger
    classpath, kwargs = (trigger["classpath"], trigger["kwargs"]) if isinstance(trigger, dict) else trigger.serialize()
    return {"name": watcher.name, "classpath": classpath, "kwargs": older_versions.encode(kwargs)}


def condition_structure(condition):
    name = CONDITIONS.get(asset_kind(condition))
    if name is None:
        return asset_structure(condition)
    return {name: [condition_structure(part) for part in condition.objects]}

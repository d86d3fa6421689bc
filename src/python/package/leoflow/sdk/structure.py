"""Our structure of a DAG, from the objects of Airflow's own SDK. `entry/structure.py` makes the same from our own package's."""

from __future__ import annotations

import enum

from leoflow.common import structure, topology
from leoflow.common.structure import iso, other_than
from leoflow.sdk import older_versions, timetables
from leoflow.sdk.weights import rule_of, weight

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from airflow.sdk import DAG


def plain(value):
    return value.value if isinstance(value, enum.Enum) else value


def of_dag(dag: DAG) -> dict[str, Any]:
    condition = getattr(dag.timetable, "asset_condition", None)
    own = {"params": {name: of_param(dag.params.get_param(name)) for name in dag.params}}
    rare = {
        "asset_condition": of_condition(condition) if is_condition(condition) else None,
        "groups": [of_group(group) for name, group in groups(dag).items() if name is not None],
        "edge_labels": [[one, other, about["label"]] for one, others in dag.edge_info.items()
                        for other, about in others.items() if about.get("label")],
    }
    tasks = [of_task(task, dag) for task in topology.ordered(dag.task_dict)]
    return structure.of_dag(dag, timetables.of(dag.timetable), own, rare, tasks)


def groups(dag):
    found = getattr(dag, "task_group_dict", None)
    return dag.task_group.get_task_group_dict() if found is None else found


def of_param(param):
    whole = {"schema": dict(param.schema), "description": param.description}
    return whole if is_unset(param.value) else {**whole, "value": param.value}


def is_unset(value):
    """A copy of what stands for nothing is another object."""
    return type(value).__name__ in ("ArgNotSet", "NotSetType", "_ArgNotSet")


def of_group(group):
    return structure.of_group(group, *mapped_over(expand_input_of(group)))


def of_task(task, dag):
    is_mapped = bool(getattr(task, "is_mapped", False))
    length, sources = mapped_over(expand_input_of(task) if is_mapped else None)
    rule = rule_of(task)
    return structure.of_task(task, weight(task, rule, dag), {
        "trigger_rule": other_than("all_success", plain(task.trigger_rule)),
        "retry_backoff": backoff(task.retry_exponential_backoff),
        "weight_rule": other_than("downstream", rule),
        # The SDK gives a task the dates of its DAG, which count for it all the same.
        "start_date": iso(other_than(dag.start_date, task.start_date)),
        "end_date": iso(other_than(dag.end_date, task.end_date)),
        "decides": skips_downstream(task),
        "reschedules": reschedules(task),
        "length": length,
        "sources": sources,
        "mapped": is_mapped,
        "is_nothing": structure.is_nothing(task, argument(task, "inherits_from_empty_operator", False)),
        "inlets": [of_asset(one) for one in task.inlets if is_asset(one)],
        "outlets": [of_asset(one) for one in task.outlets if is_asset(one)],
        "params": own_params(task),
        "env": dag.__dict__.get("leoflow_env", {}).get(task.task_id),
    })


def backoff(value):
    """From 3.1 on it is a number: what each delay is multiplied with."""
    return None if not value else 2.0 if value is True else float(value)


def argument(task, name, otherwise):
    """What a task's operator was given, or has, also where it is mapped."""
    if getattr(task, "is_mapped", False):
        found = task.partial_kwargs.get(name)
        found = getattr(task.operator_class, name, otherwise) if found is None else found
        # What an instance works out, its class does not know.
        return otherwise if isinstance(found, property) else found
    return getattr(task, name, otherwise)


def skips_downstream(task):
    return bool(argument(task, "inherits_from_skipmixin", False) or argument(task, "_can_skip_downstream", False))


def reschedules(task):
    """Of a sensor that is no process between two looks."""
    kind = task.operator_class if getattr(task, "is_mapped", False) else type(task)
    if not hasattr(kind, "poke"):
        return False
    return getattr(task, "reschedule", False) is True or argument(task, "mode", None) == "reschedule"


def own_params(task):
    """Those of the task itself: its DAG's are in the DAG."""
    from airflow.sdk.definitions.param import Param

    found = {}
    of_the_dag = task.dag.params
    params = task.params or {}
    for name in params:
        one = params.get_param(name) if hasattr(params, "get_param") else params[name]
        one = one if isinstance(one, Param) else Param(one)
        if name in of_the_dag and of_param(of_the_dag.get_param(name)) == of_param(one):
            continue
        found[name] = of_param(one)
    return found


# --- what something is mapped over


def expand_input_of(one: Any) -> Any:
    """Of a mapped task or a mapped group; None for others."""
    if hasattr(one, "_get_specified_expand_input"):
        return one._get_specified_expand_input()
    return getattr(one, "_expand_input", None)


def mapped_over(expand_input):
    return (None, None) if expand_input is None else (length(expand_input), sources(expand_input))


def length(expand_input: Any) -> Any:
    """How many elements there are, in words that the scheduler understands."""
    given = expand_input.value
    if expand_input.EXPAND_INPUT_TYPE == "dict-of-lists":
        return {"product": [length_of(one) for one in given.values()]}
    return length_of(given)


def length_of(one):
    kind = type(one).__name__
    if kind == "PlainXComArg":
        return {"task": one.operator.task_id}
    if kind == "MapXComArg":
        return length_of(one.arg)
    if kind == "ZipXComArg":
        return {"shortest" if is_unset(one.fillvalue) else "longest": [length_of(arg) for arg in one.args]}
    if kind == "ConcatXComArg":
        return {"sum": [length_of(arg) for arg in one.args]}
    if kind == "SchedulerDictOfListsExpandInput" or hasattr(one, "EXPAND_INPUT_TYPE"):
        return length(one)
    return len(one)


def sources(expand_input):
    found = {}
    for operator, _ in expand_input.iter_references():
        found[operator.task_id] = None
    return list(found)


# --- assets


def kinds():
    from airflow.sdk.definitions import asset

    return asset


def is_asset(one: Any) -> bool:
    asset = kinds()
    return isinstance(one, (asset.Asset, asset.AssetAlias, asset.AssetNameRef, asset.AssetUriRef))


def is_condition(one):
    return is_asset(one) or bool(getattr(one, "objects", None))


def of_asset(one: Any) -> dict[str, Any]:
    asset = kinds()
    if isinstance(one, asset.Asset):
        told = {"name": one.name, "uri": one.uri, "group": one.group, "extra": dict(one.extra)}
        if getattr(one, "watchers", None):
            told["watchers"] = [of_watcher(watcher) for watcher in one.watchers]
        return {"asset": told}
    if isinstance(one, asset.AssetAlias):
        return {"alias": one.name, "group": one.group}
    return {"name": one.name} if isinstance(one, asset.AssetNameRef) else {"uri": one.uri}


def of_watcher(one):
    classpath, kwargs = one.trigger.serialize()
    return {"name": one.name, "classpath": classpath, "kwargs": older_versions.encode(kwargs)}


def of_condition(one):
    asset = kinds()
    if isinstance(one, (asset.AssetAll, asset.AssetAny)):
        what = "all" if isinstance(one, asset.AssetAll) else "any"
        return {what: [of_condition(part) for part in one.objects]}
    return of_asset(one)

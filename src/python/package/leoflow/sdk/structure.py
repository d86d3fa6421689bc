"""Our structure of a DAG, from the objects of Airflow's own SDK. `entry/structure.py` makes the same from our own package's:
a test compares them."""

from __future__ import annotations

import enum

from leoflow.common import topology
from leoflow.common.dates import zone_name
from leoflow.sdk import timetables
from leoflow.sdk.refusals import rule_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from airflow.sdk import DAG


def iso(value):
    return None if value is None else value.isoformat()


def given(pairs):
    """Without what is nothing."""
    return {name: value for name, value in pairs.items() if value not in (None, False, [], {})}


def seconds(value):
    return None if value is None else value.total_seconds()


def plain(value):
    return value.value if isinstance(value, enum.Enum) else value


def of_dag(dag: DAG) -> dict[str, Any]:
    timetable = timetables.of(dag.timetable)
    condition = getattr(dag.timetable, "asset_condition", None)
    return {
        "dag_id": dag.dag_id,
        "description": dag.description,
        "doc_md": dag.doc_md,
        "schedule": shown_schedule(dag, timetable),
        "start_date": iso(dag.start_date),
        "end_date": iso(dag.end_date),
        "catchup": dag.catchup,
        "tags": sorted(dag.tags),
        "params": {name: of_param(dag.params.get_param(name)) for name in dag.params},
        "owners": sorted({task.owner for task in dag.tasks}),
        "max_active_runs": dag.max_active_runs,
        "max_active_tasks": dag.max_active_tasks,
        "is_paused_upon_creation": dag.is_paused_upon_creation,
        "timetable": timetable.described(),
        "timetable_summary": str(timetable.summary),
        "timetable_description": timetable.description,
        "timezone": zone_name(dag.timezone),
        "earliest": iso(earliest(dag)),
        "latest": iso(latest(dag)),
        **given({
            "dag_display_name": dag.dag_display_name if dag.dag_display_name != dag.dag_id else None,
            "dagrun_timeout": seconds(dag.dagrun_timeout),
            "fail_fast": dag.fail_fast,
            "max_consecutive_failed_dag_runs": dag.max_consecutive_failed_dag_runs,
            "on_success_callback": bool(dag.on_success_callback),
            "on_failure_callback": bool(dag.on_failure_callback),
            "asset_condition": of_condition(condition) if is_condition(condition) else None,
            "groups": [of_group(group) for name, group in groups(dag).items() if name is not None],
            "edge_labels": [[one, other, about["label"]] for one, others in dag.edge_info.items()
                            for other, about in others.items() if about.get("label")],
        }),
        "tasks": [of_task(task, dag) for task in topology.ordered(dag.task_dict)],
    }


def shown_schedule(dag, timetable):
    """As people wrote it, where that is a text."""
    if type(dag.timetable).__name__ == "NullTimetable":
        return None
    return dag.schedule if isinstance(dag.schedule, str) else str(timetable.summary)


def earliest(dag):
    dates = [one for one in [dag.start_date, *(task.start_date for task in dag.tasks)] if one is not None]
    return min(dates) if dates else None


def latest(dag):
    ends = [task.end_date for task in dag.tasks]
    if ends and all(one is not None for one in ends):
        return max([*ends, *([dag.end_date] if dag.end_date is not None else [])])
    return dag.end_date


def groups(dag):
    found = getattr(dag, "task_group_dict", None)
    return dag.task_group.get_task_group_dict() if found is None else found


def of_param(param):
    whole = {"schema": dict(param.schema), "description": param.description}
    return {**whole, "value": param.value} if param.has_value or param.value is None else whole


def of_group(group):
    parent = group.parent_group
    mapped = expand_input_of(group)
    return {"group_id": group.group_id, "parent": None if parent is None or parent.is_root else parent.group_id, **given({
        "tooltip": group.tooltip,
        "display_name": group.group_display_name,
        "length": None if mapped is None else length(mapped),
        "sources": None if mapped is None else sources(mapped),
    })}


def of_task(task, dag):
    is_mapped = bool(getattr(task, "is_mapped", False))
    group = task.task_group
    mapped = expand_input_of(task) if is_mapped else None
    rule = rule_of(task)
    return {
        "task_id": task.task_id,
        "operator": task.task_type,
        "operator_name": task.operator_name or task.task_type,
        "upstream": sorted(task.upstream_task_ids),
        "retries": task.retries,
        "retry_delay": seconds(task.retry_delay),
        "execution_timeout": seconds(task.execution_timeout),
        "owner": task.owner,
        "doc_md": task.doc_md,
        **given({
            "trigger_rule": plain(task.trigger_rule) if plain(task.trigger_rule) != "all_success" else None,
            "retry_backoff": backoff(task.retry_exponential_backoff),
            "max_retry_delay": seconds(task.max_retry_delay),
            "depends_on_past": task.depends_on_past,
            "wait_for_downstream": task.wait_for_downstream,
            "ignore_first_depends_on_past": task.ignore_first_depends_on_past,
            "pool": task.pool if task.pool != "default_pool" else None,
            "pool_slots": task.pool_slots if task.pool_slots != 1 else None,
            "own_weight": task.priority_weight if task.priority_weight != 1 else None,
            "weight_rule": rule if rule != "downstream" else None,
            "max_active_tis_per_dag": task.max_active_tis_per_dag,
            "max_active_tis_per_dagrun": task.max_active_tis_per_dagrun,
            # The SDK gives a task the dates of its DAG, which count for it all the same.
            "start_date": iso(task.start_date) if task.start_date != dag.start_date else None,
            "end_date": iso(task.end_date) if task.end_date != dag.end_date else None,
            "is_setup": task.is_setup,
            "is_teardown": task.is_teardown,
            "on_failure_fail_dagrun": task.on_failure_fail_dagrun,
            "decides": skips_downstream(task),
            "reschedules": reschedules(task),
            "group": None if group is None or group.is_root else group.group_id,
            "length": None if mapped is None else length(mapped),
            "sources": None if mapped is None else sources(mapped),
            "mapped": is_mapped,
            "is_nothing": is_nothing(task),
            "inlets": [of_asset(one) for one in task.inlets if is_asset(one)],
            "outlets": [of_asset(one) for one in task.outlets if is_asset(one)],
            "template_fields": list(task.template_fields),
            "params": own_params(task),
            "display_name": task.task_display_name if task.task_display_name != task.task_id else None,
            "env": dag.__dict__.get("leoflow_env", {}).get(task.task_id),
        }),
        "weight": weight(task, rule, dag),
    }


def backoff(value):
    """From 3.1 on it is a number: what each delay is multiplied with."""
    return None if not value else 2.0 if value is True else float(value)


def weight(task, rule, dag):
    """The weight that the scheduler compares."""
    own = task.priority_weight
    if rule == "absolute":
        return own
    relatives = task.get_flat_relative_ids(upstream=rule == "upstream")
    return max(-(2**31), min(own + sum(dag.task_dict[one].priority_weight for one in relatives), 2**31 - 1))


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


def is_nothing(task):
    """Whether it ends without ever being a process: Airflow's scheduler ends these itself."""
    return bool(
        argument(task, "inherits_from_empty_operator", False)
        and not task.on_execute_callback
        and not task.on_success_callback
        and not task.outlets
        and not task.inlets
    )


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
        is_filled = type(one.fillvalue).__name__ not in ("ArgNotSet", "NotSetType", "_ArgNotSet")
        return {"longest" if is_filled else "shortest": [length_of(arg) for arg in one.args]}
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
        return {"asset": {"name": one.name, "uri": one.uri, "group": one.group, "extra": dict(one.extra)}}
    if isinstance(one, asset.AssetAlias):
        return {"alias": one.name, "group": one.group}
    return {"name": one.name} if isinstance(one, asset.AssetNameRef) else {"uri": one.uri}


def of_condition(one):
    asset = kinds()
    if isinstance(one, (asset.AssetAll, asset.AssetAny)):
        what = "all" if isinstance(one, asset.AssetAll) else "any"
        return {what: [of_condition(part) for part in one.objects]}
    return of_asset(one)

"""Computes the total weight by which the scheduler orders tasks, with one of Airflow's weight rules or with a custom
strategy. The strategy is called when the DAG is parsed."""

from __future__ import annotations

import importlib

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from airflow.sdk import DAG

STRATEGIES = {
    "_DownstreamPriorityWeightStrategy": "downstream",
    "_UpstreamPriorityWeightStrategy": "upstream",
    "_AbsolutePriorityWeightStrategy": "absolute",
}
RULES = ("downstream", "upstream", "absolute")
MIN_WEIGHT, MAX_WEIGHT = -(2**31), 2**31 - 1


class UnknownWeight(Exception):
    """A strategy that cannot be imported, or that reads attributes that do not exist before the run."""


def rule_of(task: Any) -> str:
    """Returns the name of a weight rule, or the class path of a custom strategy."""
    rule = task.weight_rule
    name = rule if isinstance(rule, str) else getattr(rule, "value", None) or STRATEGIES.get(type(rule).__name__)
    if name is None:
        kind = rule if isinstance(rule, type) else type(rule)
        return f"{kind.__module__}.{kind.__qualname__}"
    return STRATEGIES.get(name.rpartition(".")[2], name)


def weight(task: Any, rule: str, dag: DAG) -> int:
    """Returns the total weight of a task. Raises UnknownWeight."""
    if rule not in RULES:
        return clamp(strategy_of(task).get_weight(FirstTry(task, dag)))
    own_weight = task.priority_weight
    if rule == "absolute":
        return own_weight
    relatives = task.get_flat_relative_ids(upstream=rule == "upstream")
    return clamp(own_weight + sum(dag.task_dict[relative_id].priority_weight for relative_id in relatives))


def clamp(value):
    return max(MIN_WEIGHT, min(int(value), MAX_WEIGHT))


def strategy_of(task):
    rule = task.weight_rule
    if isinstance(rule, str):
        module, _, name = rule.rpartition(".")
        try:
            rule = getattr(importlib.import_module(module), name)
        except (ImportError, AttributeError, ValueError) as error:
            raise UnknownWeight(f"Unknown priority strategy {rule}: {error}") from error
    return rule() if isinstance(rule, type) else rule


class FirstTry:
    """A task instance before its first try, like the one that Airflow passes to a strategy when it creates a run."""

    try_number = 0

    def __init__(self, task, dag):
        self.task = task
        self.task_id = task.task_id
        self.dag_id = dag.dag_id
        if not getattr(task, "is_mapped", False):
            self.map_index = -1

    def __getattr__(self, name):
        raise UnknownWeight(f"it reads ti.{name}, which does not exist before the run")

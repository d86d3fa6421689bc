"""`default_args`: what a DAG or a group gives its operators, filled in at each level of subclasses.

<https://airflow.apache.org/docs/apache-airflow/stable/core-concepts/dags.html#default-arguments>
"""

from __future__ import annotations

import abc
import functools

from leoflow.common import current
from leoflow.common.signatures import VAR_KEYWORD, VAR_POSITIONAL, parameters

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from leoflow.authoring.dag import DAG
    from leoflow.authoring.task_group import TaskGroup


def in_force(dag: DAG | None, group: TaskGroup | None, own: dict[str, Any]) -> dict[str, Any]:
    """The defaults of a task: the DAG's, over them the group's, over them its own. Where no DAG and no group is given, those
    of the block that the task is made in."""
    dag = dag or current.dag()
    group = group or (current.group(dag) if dag else None)
    return {**(dag.default_args if dag else {}), **(group.default_args if group else {}), **own}


def applies_defaults(init):
    """Around an operator's own `__init__`: fills in what `default_args` say, at each level of subclasses."""
    taken = parameters(init)
    names = [name for name, one in taken.items() if name != "self" and one.kind not in (VAR_POSITIONAL, VAR_KEYWORD)]
    own_names = frozenset(names)
    needed = [name for name in names if taken[name].is_required and name != "task_id"]

    @functools.wraps(init)
    def wrapped(self, *args, **given):
        if args:
            raise TypeError("Use keyword arguments when initializing operators")
        is_outermost = not hasattr(self, "_building")
        if is_outermost:
            object.__setattr__(self, "_building", True)
        own = given.get("default_args") or {}
        defaults = in_force(given.get("dag"), given.get("task_group"), own)
        for name, value in defaults.items():
            # The DAG's params are the DAG's; those of a task come with the task.
            if name in own_names and name not in given and name != "params":
                given[name] = value
        if "params" in own and "params" in own_names:
            given["params"] = {**own["params"], **(given.get("params") or {})}
        missing = [name for name in needed if name not in given]
        if missing:
            kind = "argument" if len(missing) == 1 else "arguments"
            raise TypeError(f"missing keyword {kind} {', '.join(map(repr, missing))}")
        given["default_args"] = {**defaults, **own}
        init(self, **given)
        if is_outermost:
            object.__delattr__(self, "_building")
            self.link_arguments()

    wrapped._fills_in = True
    return wrapped


class OperatorMeta(abc.ABCMeta):
    def __new__(meta, name, bases, members, **others):
        init = members.get("__init__")
        if init is not None and not getattr(init, "_fills_in", False):
            members["__init__"] = applies_defaults(init)
        fields = members.get("template_fields")
        if isinstance(fields, str):
            members["template_fields"] = [fields]
        return super().__new__(meta, name, bases, members, **others)

"""`default_args` of DAGs and task groups, applied by each `__init__` in an operator's class hierarchy.

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

    from leoflow.common.graph import Dag, Group


def effective_defaults(dag: Dag | None, group: Group | None, own_defaults: dict[str, Any]) -> dict[str, Any]:
    """Merges the defaults of a task: those of its DAG, its group and its own, in ascending precedence. Without a DAG or
    group argument, the enclosing `with` block determines them."""
    dag = dag or current.dag()
    group = group or (current.group(dag) if dag else None)
    return {**(dag.default_args if dag else {}), **(group.default_args if group else {}), **own_defaults}


def applies_defaults(init):
    """Wraps an operator's `__init__` so that missing arguments are taken from `default_args`."""
    signature = parameters(init)
    names = [name for name, parameter in signature.items() if name != "self" and parameter.kind not in (VAR_POSITIONAL, VAR_KEYWORD)]
    own_names = frozenset(names)
    required = [name for name in names if signature[name].is_required and name != "task_id"]

    @functools.wraps(init)
    def wrapped(self, *args, **kwargs):
        if args:
            raise TypeError("Use keyword arguments when initializing operators")
        is_outermost = not hasattr(self, "_building")
        if is_outermost:
            object.__setattr__(self, "_building", True)
        own_defaults = kwargs.get("default_args") or {}
        defaults = effective_defaults(kwargs.get("dag"), kwargs.get("task_group"), own_defaults)
        for name, value in defaults.items():
            # The task merges `params` of its DAG itself; they are not a default argument.
            if name in own_names and name not in kwargs and name != "params":
                kwargs[name] = value
        if "params" in own_defaults and "params" in own_names:
            kwargs["params"] = {**own_defaults["params"], **(kwargs.get("params") or {})}
        missing = [name for name in required if name not in kwargs]
        if missing:
            kind = "argument" if len(missing) == 1 else "arguments"
            raise TypeError(f"missing keyword {kind} {', '.join(map(repr, missing))}")
        kwargs["default_args"] = {**defaults, **own_defaults}
        init(self, **kwargs)
        if is_outermost:
            object.__delattr__(self, "_building")
            self.link_arguments()

    wrapped._applies_default_args = True
    return wrapped


class OperatorMeta(abc.ABCMeta):
    """Makes every operator class apply `default_args`."""

    def __new__(meta, name, bases, members, **others):
        init = members.get("__init__")
        if init is not None and not getattr(init, "_applies_default_args", False):
            members["__init__"] = applies_defaults(init)
        fields = members.get("template_fields")
        if isinstance(fields, str):
            members["template_fields"] = [fields]
        return super().__new__(meta, name, bases, members, **others)

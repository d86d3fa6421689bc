"""`@task`: a function as a task.

<https://airflow.apache.org/docs/apache-airflow/stable/core-concepts/taskflow.html>
"""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping

from leoflow.authoring.default_args import in_force
from leoflow.authoring.mapping import (
    DictOfLists,
    ListOfDicts,
    MappedOperator,
    check_list_of_dicts,
    check_mappable,
    split_arguments,
)
from leoflow.authoring.operators import PythonOperator
from leoflow.authoring.xcom_arg import XComArg
from leoflow.common import current, signatures
from leoflow.common.current import CONTEXT_KEYS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def returns_mapping(function):
    """Whether the return annotation says dict, which means multiple_outputs."""
    annotation = getattr(function, "__annotations__", {}).get("return")
    if annotation is None:
        return False
    if isinstance(annotation, str):
        try:
            annotation = eval(annotation, getattr(function, "__globals__", {}))
        except Exception:
            # One that cannot be evaluated promises nothing.
            annotation = None
    import typing

    origin = typing.get_origin(annotation) or annotation
    return isinstance(origin, type) and issubclass(origin, Mapping)


class Decorated:
    """What all kinds of function tasks share."""

    def __init__(self, *, python_callable, op_args=(), op_kwargs=None, multiple_outputs=None, dag=None,
                 default_args=None, **others):
        dag = dag or current.dag()
        defaults = in_force(dag, others.get("task_group"), default_args or {})
        kwargs = complete(python_callable, op_args, dict(op_kwargs or {}), defaults)
        check_call(python_callable, op_args, kwargs)
        if multiple_outputs is None:
            multiple_outputs = returns_mapping(python_callable)
        self.set_up(python_callable=python_callable, op_args=list(op_args), op_kwargs=kwargs, dag=dag,
                    multiple_outputs=bool(multiple_outputs), default_args=default_args, **others)
        # An asset that is an argument is read, one that is an element of those too.
        from leoflow.authoring.assets import BaseAsset

        self.inlets += [one for one in [*op_args, *kwargs.values()] if isinstance(one, BaseAsset)]

    def set_up(self, **given):
        super().__init__(**given)


def check_call(function, op_args, op_kwargs):
    """A call that could not work is an error where it is written, not when it runs."""
    takes = signatures.parameters(function)
    offered = {}
    taken = list(takes)[: len(op_args)]
    for name, parameter in takes.items():
        if name in CONTEXT_KEYS:
            if parameter.default not in (None, parameter.empty):
                raise ValueError(f"Context key parameter {name} can't have a default other than None")
            if parameter.kind != signatures.VAR_KEYWORD and name not in taken:
                offered[name] = None
    signatures.check_call(function, op_args, {**offered, **op_kwargs})


def complete(function, op_args, op_kwargs, defaults):
    """What default_args say for the function's own parameters, as in Airflow."""
    parameters = signatures.parameters(function)
    taken = list(parameters)[: len(op_args)]
    for name in parameters:
        if name in defaults and name not in taken and name not in CONTEXT_KEYS:
            op_kwargs.setdefault(name, defaults[name])
    return op_kwargs


class DecoratedPython(Decorated, PythonOperator):
    operator_name = "@task"
    airflow_name = "_PythonDecoratedOperator"


class MappedFunction(MappedOperator):
    """A decorated function, once for each element."""

    def build(self, given):
        own = dict(self.partial_kwargs)
        op_kwargs = {**own.pop("op_kwargs"), **given}
        kept = {**self.defaults(), **self.own_base_kwargs(), **own}
        return self.operator_class(task_id=self.task_id, **{**kept, "op_kwargs": op_kwargs, "op_args": ()})

    def unmapped(self, context, index):
        self.given = given = self.expand_input.resolve(context, index)
        twice = [name for name in given if name in self.partial_kwargs["op_kwargs"]]
        if twice and self.strict:
            raise TypeError(f"mapping already partial argument: {', '.join(twice)}")
        return self.beside_the_dag(given)


def unique_task_id(dag, group, task_id):
    """`f`, then `f__1`, `f__2`: a function used again is another task."""
    full = group.child_id(task_id) if group is not None else task_id
    if dag is None or full not in dag.task_dict:
        return task_id
    base = re.split(r"__\d+$", task_id)[0]
    prefix = group.child_id(base) if group is not None else base
    numbers = [0]
    for one in dag.task_dict:
        match = re.fullmatch(re.escape(prefix) + r"__(\d+)", one)
        numbers += [int(match[1])] if match else []
    return f"{base}__{max(numbers) + 1}"


class TaskFunction:
    """A decorated function: each call is a task and gives what it will return."""

    def __init__(self, operator_class, function, arguments, partial=None, marks=None):
        if not callable(function):
            raise TypeError(f"{function!r} is not a function")
        if isinstance(function, type):
            raise TypeError("@task cannot decorate a class")
        if "self" in signatures.parameters(function):
            raise TypeError("@task does not support methods")
        self.operator_class = operator_class
        self.function = function
        self.arguments = arguments
        self.partial_kwargs = partial
        # What @setup and @teardown say of it.
        self.marks = marks or {}
        functools.update_wrapper(self, function)

    def given(self):
        given = dict(self.arguments)
        dag = given.get("dag") or current.dag()
        group = given.get("task_group") or (current.group(dag) if dag is not None else None)
        given["task_id"] = unique_task_id(dag, group, given.get("task_id") or self.function.__name__)
        docs = ("doc_md", "doc", "doc_yaml", "doc_json", "doc_rst")
        if self.function.__doc__ and not any(given.get(name) for name in docs):
            import inspect

            given["doc_md"] = inspect.cleandoc(self.function.__doc__)
        return given

    def __call__(self, *args, **kwargs):
        if self.partial_kwargs is not None:
            raise TypeError("a task that is partial() is made by expand()")
        made = self.operator_class(python_callable=self.function, op_args=args, op_kwargs=kwargs, **self.given())
        return XComArg(self.marked(made))

    def marked(self, made):
        if self.marks.get("setup"):
            made.as_setup()
        if self.marks.get("teardown"):
            if "trigger_rule" in self.arguments:
                raise ValueError("Trigger rule not configurable for teardown tasks.")
            made.as_teardown(on_failure_fail_dagrun=self.marks.get("on_failure_fail_dagrun", False))
        return made

    def override(self, **arguments):
        return self.copy(arguments={**self.arguments, **arguments})

    def copy(self, **changed):
        kept = {"arguments": self.arguments, "partial": self.partial_kwargs, "marks": self.marks}
        return TaskFunction(self.operator_class, self.function, **{**kept, **changed})

    def check_names(self, method, kwargs):
        parameters = signatures.parameters(self.function)
        for name in kwargs:
            if name in CONTEXT_KEYS:
                raise ValueError(f"cannot call {method}() on task context variable {name!r}")
        if any(one.kind == signatures.VAR_KEYWORD for one in parameters.values()):
            return
        unknown = [name for name in kwargs if name not in parameters]
        if unknown:
            plural = "argument" if len(unknown) == 1 else "arguments"
            raise TypeError(f"{method}() got unexpected keyword {plural} {', '.join(map(repr, unknown))}")

    def partial(self, **kwargs):
        self.check_names("partial", kwargs)
        before = self.partial_kwargs or {}
        twice = [name for name in kwargs if name in before]
        if twice:
            raise TypeError(f"duplicate partial argument: {', '.join(twice)}")
        return self.copy(partial={**before, **kwargs})

    def expand(self, **kwargs):
        if not kwargs:
            raise TypeError("no arguments to expand against")
        self.check_names("expand", kwargs)
        check_mappable("expand()", kwargs)
        twice = [name for name in kwargs if name in (self.partial_kwargs or {})]
        if twice:
            raise TypeError(f"mapping already partial argument: {', '.join(twice)}")
        return self.map_over(DictOfLists(kwargs), strict=False)

    def expand_kwargs(self, kwargs, *, strict=True):
        check_list_of_dicts(kwargs)
        return self.map_over(ListOfDicts(kwargs), strict=strict)

    def map_over(self, expand_input, strict):
        given = self.given()
        given.setdefault("multiple_outputs", returns_mapping(self.function))
        base, own = split_arguments(given)
        # Each instance takes what default_args say for parameters that it is not given.
        own.update(python_callable=self.function, op_kwargs=dict(self.partial_kwargs or {}))
        made = MappedFunction(operator_class=self.operator_class, expand_input=expand_input, partial_kwargs=own,
                              strict=strict, **base)
        return XComArg(self.marked(made))


def check_outputs(value: Any) -> None:
    """What multiple_outputs asks of a result. Raises TypeError."""
    if not isinstance(value, Mapping):
        raise TypeError(f"Returned output was type {type(value)} expected dictionary for multiple_outputs")
    for key in value:
        if not isinstance(key, str):
            raise TypeError(
                f"Returned dictionary keys must be strings when using multiple_outputs, found {key} ({type(key)}) instead"
            )

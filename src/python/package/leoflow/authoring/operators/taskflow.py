"""`@task`: turns a function into a task.

<https://airflow.apache.org/docs/apache-airflow/stable/core-concepts/taskflow.html>
"""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping

from leoflow.authoring.assets.definitions import BaseAsset
from leoflow.authoring.dag.default_args import effective_defaults
from leoflow.authoring.mapping.expand_input import DictOfLists, ListOfDicts, check_list_of_dicts, check_mappable
from leoflow.authoring.mapping.xcom_arg import XComArg
from leoflow.authoring.operators.standard import PythonOperator
from leoflow.common import current, signatures
from leoflow.common.current import CONTEXT_KEYS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def returns_mapping(function):
    """True when the return annotation is a mapping type, which implies multiple_outputs."""
    annotation = getattr(function, "__annotations__", {}).get("return")
    if annotation is None:
        return False
    if isinstance(annotation, str):
        try:
            annotation = eval(annotation, getattr(function, "__globals__", {}))
        except Exception:
            # An annotation that cannot be evaluated is ignored.
            annotation = None
    import typing

    origin = typing.get_origin(annotation) or annotation
    return isinstance(origin, type) and issubclass(origin, Mapping)


class Decorated:
    """Mixin of all operators of `@task`."""

    def __init__(self, *, python_callable, op_args=(), op_kwargs=None, multiple_outputs=None, dag=None,
                 default_args=None, **others):
        dag = dag or current.dag()
        defaults = effective_defaults(dag, others.get("task_group"), default_args or {})
        kwargs = add_default_args(python_callable, op_args, dict(op_kwargs or {}), defaults)
        check_call(python_callable, op_args, kwargs)
        if multiple_outputs is None:
            multiple_outputs = returns_mapping(python_callable)
        self.set_up(python_callable=python_callable, op_args=list(op_args), op_kwargs=kwargs, dag=dag,
                    multiple_outputs=bool(multiple_outputs), default_args=default_args, **others)
        # Assets among the arguments are inlets.
        self.inlets += [argument for argument in [*op_args, *kwargs.values()] if isinstance(argument, BaseAsset)]

    def set_up(self, **arguments):
        super().__init__(**arguments)


def check_call(function, op_args, op_kwargs):
    """Raises an error at parse time for a call that cannot succeed when the task runs."""
    parameters = signatures.parameters(function)
    context_arguments = {}
    positional_names = list(parameters)[: len(op_args)]
    for name, parameter in parameters.items():
        if name in CONTEXT_KEYS:
            if parameter.default not in (None, parameter.empty):
                raise ValueError(f"Context key parameter {name} can't have a default other than None")
            if parameter.kind != signatures.VAR_KEYWORD and name not in positional_names:
                context_arguments[name] = None
    signatures.check_call(function, op_args, {**context_arguments, **op_kwargs})


def add_default_args(function, op_args, op_kwargs, defaults):
    """Adds `default_args` for the function's own parameters to `op_kwargs`, as in Airflow."""
    parameters = signatures.parameters(function)
    positional_names = list(parameters)[: len(op_args)]
    for name in parameters:
        if name in defaults and name not in positional_names and name not in CONTEXT_KEYS:
            op_kwargs.setdefault(name, defaults[name])
    return op_kwargs


class DecoratedPython(Decorated, PythonOperator):
    operator_name = "@task"
    airflow_name = "_PythonDecoratedOperator"


def unique_task_id(dag, group, task_id):
    """Returns an unused task id, because each call of a function creates a task: `f`, then `f__1`, `f__2`."""
    prefixed_id = group.child_id(task_id) if group is not None else task_id
    if dag is None or prefixed_id not in dag.task_dict:
        return task_id
    base = re.split(r"__\d+$", task_id)[0]
    prefix = group.child_id(base) if group is not None else base
    numbers = [0]
    for used_id in dag.task_dict:
        match = re.fullmatch(re.escape(prefix) + r"__(\d+)", used_id)
        numbers += [int(match[1])] if match else []
    return f"{base}__{max(numbers) + 1}"


class TaskFunction:
    """A decorated function: each call creates a task and returns its XComArg."""

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
        # Set by @setup and @teardown.
        self.marks = marks or {}
        functools.update_wrapper(self, function)

    def operator_arguments(self):
        operator_arguments = dict(self.arguments)
        dag = operator_arguments.get("dag") or current.dag()
        group = operator_arguments.get("task_group") or (current.group(dag) if dag is not None else None)
        operator_arguments["task_id"] = unique_task_id(dag, group, operator_arguments.get("task_id") or self.function.__name__)
        docs = ("doc_md", "doc", "doc_yaml", "doc_json", "doc_rst")
        if self.function.__doc__ and not any(operator_arguments.get(name) for name in docs):
            import inspect

            operator_arguments["doc_md"] = inspect.cleandoc(self.function.__doc__)
        return operator_arguments

    def __call__(self, *args, **kwargs):
        if self.partial_kwargs is not None:
            raise TypeError("a task with partial() arguments cannot be called: use expand()")
        operator = self.operator_class(python_callable=self.function, op_args=args, op_kwargs=kwargs, **self.operator_arguments())
        return XComArg(self.marked(operator))

    def marked(self, operator):
        if self.marks.get("setup"):
            operator.as_setup()
        if self.marks.get("teardown"):
            if "trigger_rule" in self.arguments:
                raise ValueError("Trigger rule not configurable for teardown tasks.")
            operator.as_teardown(on_failure_fail_dagrun=self.marks.get("on_failure_fail_dagrun", False))
        return operator

    def override(self, **arguments):
        return self.copy(arguments={**self.arguments, **arguments})

    def copy(self, **changes):
        state = {"arguments": self.arguments, "partial": self.partial_kwargs, "marks": self.marks}
        return TaskFunction(self.operator_class, self.function, **{**state, **changes})

    def check_names(self, method, kwargs):
        parameters = signatures.parameters(self.function)
        for name in kwargs:
            if name in CONTEXT_KEYS:
                raise ValueError(f"cannot call {method}() on task context variable {name!r}")
        if any(parameter.kind == signatures.VAR_KEYWORD for parameter in parameters.values()):
            return
        unknown = [name for name in kwargs if name not in parameters]
        if unknown:
            plural = "argument" if len(unknown) == 1 else "arguments"
            raise TypeError(f"{method}() got unexpected keyword {plural} {', '.join(map(repr, unknown))}")

    def partial(self, **kwargs):
        self.check_names("partial", kwargs)
        earlier = self.partial_kwargs or {}
        duplicates = [name for name in kwargs if name in earlier]
        if duplicates:
            raise TypeError(f"duplicate partial argument: {', '.join(duplicates)}")
        return self.copy(partial={**earlier, **kwargs})

    def expand(self, **kwargs):
        if not kwargs:
            raise TypeError("no arguments to expand against")
        self.check_names("expand", kwargs)
        check_mappable("expand()", kwargs)
        duplicates = [name for name in kwargs if name in (self.partial_kwargs or {})]
        if duplicates:
            raise TypeError(f"mapping already partial argument: {', '.join(duplicates)}")
        return self.map_over(DictOfLists(kwargs), strict=False)

    def expand_kwargs(self, kwargs, *, strict=True):
        check_list_of_dicts(kwargs)
        return self.map_over(ListOfDicts(kwargs), strict=strict)

    def map_over(self, expand_input, strict):
        # Imported here, because few DAG files have mapped tasks.
        from leoflow.authoring.mapping.mapped_operator import MappedFunction, split_arguments

        operator_arguments = self.operator_arguments()
        operator_arguments.setdefault("multiple_outputs", returns_mapping(self.function))
        base, own = split_arguments(operator_arguments)
        # Parameters that are missing here come from default_args, when an instance is created.
        own.update(python_callable=self.function, op_kwargs=dict(self.partial_kwargs or {}))
        operator = MappedFunction(operator_class=self.operator_class, expand_input=expand_input, partial_kwargs=own,
                              strict=strict, **base)
        return XComArg(self.marked(operator))


def check_outputs(value: Any) -> None:
    """Raises TypeError unless the result is a mapping with string keys, as multiple_outputs requires."""
    if not isinstance(value, Mapping):
        raise TypeError(f"Returned output was type {type(value)} expected dictionary for multiple_outputs")
    for key in value:
        if not isinstance(key, str):
            raise TypeError(
                f"Returned dictionary keys must be strings when using multiple_outputs, found {key} ({type(key)}) instead"
            )

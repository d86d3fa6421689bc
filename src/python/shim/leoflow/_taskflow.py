"""`@task`: a function as a task."""

import functools
import inspect
import typing
from collections.abc import Mapping

from . import _active
from ._context import CONTEXT_KEYS
from ._errors import Unsupported
from ._graph import XComArg, unique_task_id
from ._operators import BashOperator, PythonOperator, keyword_arguments


def returns_mapping(function):
    """Whether the return annotation says dict, which means multiple_outputs."""
    annotation = getattr(function, "__annotations__", {}).get("return")
    if isinstance(annotation, str):
        try:
            annotation = eval(annotation, getattr(function, "__globals__", {}))
        except Exception:
            # One that cannot be evaluated promises nothing.
            annotation = None
    origin = typing.get_origin(annotation) or annotation
    return inspect.isclass(origin) and issubclass(origin, Mapping)


class Decorated:
    """What both kinds of function tasks share."""

    def check_call(self):
        """A call that could not work is an error where it is written, not when it runs."""
        signature = inspect.signature(self.python_callable)
        for name, parameter in signature.parameters.items():
            if name in CONTEXT_KEYS and parameter.default not in (None, inspect.Parameter.empty):
                raise ValueError(f"Context key parameter {name} can't have a default other than None")
        offered = {
            name: None
            for name, parameter in signature.parameters.items()
            if name in CONTEXT_KEYS and parameter.kind is not inspect.Parameter.VAR_KEYWORD
        }
        taken = list(signature.parameters)[: len(self.op_args)]
        offered = {name: value for name, value in offered.items() if name not in taken}
        # What default_args say for the function's own parameters, as in Airflow.
        defaults = {**(self.dag.default_args if self.dag else {})}
        for name in signature.parameters:
            if name in defaults and name not in taken and name not in CONTEXT_KEYS:
                self.op_kwargs.setdefault(name, defaults[name])
        signature.bind(*self.op_args, **{**offered, **self.op_kwargs})


class DecoratedPython(Decorated, PythonOperator):
    operator_name = "@task"
    owns = ("multiple_outputs",)

    def __init__(self, *, python_callable, multiple_outputs=None, **others):
        self.multiple_outputs = returns_mapping(python_callable) if multiple_outputs is None else bool(multiple_outputs)
        super().__init__(python_callable=python_callable, **others)
        self.check_call()


class DecoratedBash(Decorated, BashOperator):
    operator_name = "@task.bash"
    template_fields = ("op_args", "op_kwargs", "env", "cwd")

    def __init__(self, *, python_callable, op_args, op_kwargs, multiple_outputs=None, **others):
        if multiple_outputs:
            raise Unsupported("multiple_outputs of @task.bash")
        self.python_callable = python_callable
        self.op_args = list(op_args)
        self.op_kwargs = dict(op_kwargs)
        super().__init__(bash_command="", **others)
        self.check_call()

    def execute(self, context):
        arguments = keyword_arguments(self.python_callable, self.op_args, {**context, **self.op_kwargs}, self.op_kwargs)
        command = self.python_callable(*self.op_args, **arguments)
        if not isinstance(command, str) or not command.strip():
            raise TypeError("The returned value from the TaskFlow callable must be a non-empty string.")
        if "{{" in command or "{%" in command:
            raise Unsupported(f"a Jinja template in the command of task {self.task_id!r}")
        return self.run_command(command, context)


# What Airflow calls these, in its lists of tasks.
DecoratedPython.airflow_name = "_PythonDecoratedOperator"
DecoratedBash.airflow_name = "_BashDecoratedOperator"


class TaskFunction:
    """A decorated function: each call is a task and gives what it will return."""

    def __init__(self, operator, function, arguments):
        if not callable(function):
            raise TypeError(f"{function!r} is not a function")
        if inspect.isclass(function):
            raise TypeError("@task cannot decorate a class")
        self.operator = operator
        self.function = function
        self.arguments = arguments
        functools.update_wrapper(self, function)

    def __call__(self, *args, **kwargs):
        given = dict(self.arguments)
        dag = given.get("dag") or _active.dag()
        given["task_id"] = unique_task_id(dag, given.get("task_id") or self.function.__name__)
        if self.function.__doc__ and "doc_md" not in given:
            given["doc_md"] = inspect.cleandoc(self.function.__doc__)
        made = self.operator(python_callable=self.function, op_args=args, op_kwargs=kwargs, **given)
        return XComArg(made)

    def override(self, **arguments):
        return TaskFunction(self.operator, self.function, {**self.arguments, **arguments})

    def __getattr__(self, name):
        if name in ("expand", "partial", "expand_kwargs"):
            raise Unsupported(f"dynamic task mapping (.{name})")
        raise AttributeError(name)


class Task:
    """`@task`, `@task(…)`, `@task.bash`, `@task.bash(…)`."""

    def __call__(self, function=None, **arguments):
        return decorator(DecoratedPython, function, arguments)

    python = __call__

    def bash(self, function=None, **arguments):
        return decorator(DecoratedBash, function, arguments)

    def __getattr__(self, name):
        raise Unsupported(f"@task.{name}")


def decorator(operator, function, arguments):
    if "python_callable" in arguments:
        raise TypeError("`python_callable` is what @task decorates")
    if function is not None:
        return TaskFunction(operator, function, arguments)
    return lambda decorated: TaskFunction(operator, decorated, arguments)


task = Task()


def check_outputs(value):
    """What multiple_outputs asks of a result. Raises TypeError."""
    if not isinstance(value, dict):
        raise TypeError(f"Returned output was type {type(value)} expected dictionary for multiple_outputs")
    for key in value:
        if not isinstance(key, str):
            raise TypeError(
                f"Returned dictionary keys must be strings when using multiple_outputs, found {key} ({type(key)}) instead"
            )

"""Results of tasks as arguments of other tasks.

<https://airflow.apache.org/docs/apache-airflow/stable/authoring-and-scheduling/dynamic-task-mapping.html>
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from leoflow.authoring.dag import setup_teardown
from leoflow.authoring.dag.edges import Linkable
from leoflow.common.exceptions import AirflowException, XComNotFound

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from leoflow.common.graph import Task

RETURN = "return_value"
_MISSING = object()


class Argument(Linkable):
    """An argument whose value is known only when the task runs."""

    def operators(self):
        raise NotImplementedError

    def root_tasks(self):
        return self.operators()

    def leaf_tasks(self):
        return self.operators()

    def resolve(self, context):
        """Returns the value for the running task."""
        raise NotImplementedError

    def length(self):
        """Returns an expression from which the scheduler computes the number of elements."""
        raise NotImplementedError

    def map(self, f):
        return MapXComArg(self, plain_function(f))

    def zip(self, *others, fillvalue=_MISSING):
        return ZipXComArg([self, *others], fillvalue)

    def concat(self, *others):
        return ConcatXComArg([self, *others])

    def as_setup(self):
        for operator in self.operators():
            operator.as_setup()
        return self

    def as_teardown(self, *, setups=None, on_failure_fail_dagrun=None):
        for operator in self.operators():
            operator.as_teardown(setups=setups, on_failure_fail_dagrun=on_failure_fail_dagrun)
        return self

    def __enter__(self):
        return setup_teardown.enter(self.operators())

    def __exit__(self, *_):
        setup_teardown.leave()

    def __iter__(self):
        raise TypeError(f"{type(self).__name__!r} object is not iterable")


def plain_function(f):
    if not callable(f) or hasattr(f, "operator_class"):
        raise ValueError("map() argument must be a plain function, not a @task operator")
    return f


class XComArg(Argument):
    """The XCom that a task pushes with a key."""

    def __init__(self, operator, key=RETURN):
        self.operator = operator
        self.key = key

    @classmethod
    def iter_xcom_references(cls, value):
        return ((operator, RETURN) for operator in operators_in(value))

    def operators(self):
        return [self.operator]

    def __getitem__(self, key):
        if not isinstance(key, str):
            raise ValueError(f"XComArg only supports str lookup, received {type(key).__name__}")
        return XComArg(self.operator, key)

    def __eq__(self, other):
        return isinstance(other, XComArg) and (self.operator, self.key) == (other.operator, other.key)

    def __hash__(self):
        return hash((id(self.operator), self.key))

    def map(self, f):
        if self.key != RETURN:
            raise ValueError("cannot map against non-return XCom")
        return super().map(f)

    def zip(self, *others, fillvalue=_MISSING):
        if self.key != RETURN:
            raise ValueError("cannot map against non-return XCom")
        return super().zip(*others, fillvalue=fillvalue)

    def concat(self, *others):
        if self.key != RETURN:
            raise ValueError("cannot concatenate non-return XCom")
        return super().concat(*others)

    def length(self):
        return {"task": self.operator.task_id}

    def resolve(self, context):
        ti = context["ti"]
        task_id = self.operator.task_id
        value = ti.pull_relevant(self.operator, self.key)
        if value is not _MISSING:
            return value
        if self.key == RETURN or getattr(self.operator, "multiple_outputs", False):
            return None
        raise XComNotFound(f'XComArg result from {task_id} at {ti.dag_id} with key="{self.key}" is not found!')

    def __str__(self):
        # In an f-string, the argument becomes a template that pulls the XCom.
        task_id, dag_id = self.operator.task_id, self.operator.dag_id
        return f"{{{{ task_instance.xcom_pull(task_ids={task_id!r}, dag_id={dag_id!r}, key={self.key!r}) }}}}"

    def __repr__(self):
        return f"XComArg({self.operator!r})" if self.key == RETURN else f"XComArg({self.operator!r}, {self.key!r})"


def elements(kind, value):
    if isinstance(value, (Sequence, Mapping)) and not isinstance(value, (str, bytes)):
        return value
    raise ValueError(f"XCom {kind} expects sequence or dict, not {type(value).__name__}")


class LazySequence(Sequence):
    """A sequence whose values are computed on access: a function of `map()` that skips or fails then affects only the
    element that is accessed."""

    def __init__(self, length, get):
        self._length = length
        self._get = get

    def __len__(self):
        return self._length

    def __getitem__(self, index):
        if isinstance(index, slice):
            return [self._get(position) for position in range(*index.indices(self._length))]
        if not -self._length <= index < self._length:
            raise IndexError(index)
        return self._get(index % self._length)

    def __eq__(self, other):
        return isinstance(other, Sequence) and len(self) == len(other) and all(a == b for a, b in zip(self, other, strict=True))

    def __repr__(self):
        return f"{type(self).__name__}([{self._length} items])"


class LazyXComSequence(LazySequence):
    """The results of a mapped task's instances, by map index."""

    def __init__(self, values):
        super().__init__(len(values), values.__getitem__)

    def __repr__(self):
        # Airflow's text for a sequence that is not evaluated yet.
        return "LazyXComSequence(<unevaluated length>)"


class MapXComArg(Argument):
    def __init__(self, arg, function):
        self.arg = arg
        self.functions = [function]
        if isinstance(arg, MapXComArg):
            self.arg, self.functions = arg.arg, [*arg.functions, function]

    def operators(self):
        return self.arg.operators()

    def length(self):
        return self.arg.length()

    def resolve(self, context):
        values = elements("map", self.arg.resolve(context))

        def get(index):
            element = values[index]
            for function in self.functions:
                element = function(element)
            return element

        return LazySequence(len(values), get)


class SeveralArgs(Argument):
    def __init__(self, args):
        self.args = args

    def operators(self):
        return unique(operator for arg in self.args for operator in arg.operators())


class ZipXComArg(SeveralArgs):
    def __init__(self, args, fillvalue):
        super().__init__(args)
        self.fillvalue = fillvalue

    def length(self):
        return {"longest" if self.fillvalue is not _MISSING else "shortest": [arg.length() for arg in self.args]}

    def resolve(self, context):
        columns = [elements("zip", arg.resolve(context)) for arg in self.args]
        lengths = [len(column) for column in columns]
        length = min(lengths) if self.fillvalue is _MISSING else max(lengths)
        return LazySequence(length, lambda index: tuple(column[index] if index < len(column) else self.fillvalue for column in columns))


class ConcatXComArg(SeveralArgs):
    def length(self):
        return {"sum": [arg.length() for arg in self.args]}

    def concat(self, *others):
        return ConcatXComArg([*self.args, *others])

    def resolve(self, context):
        parts = [elements("concat", arg.resolve(context)) for arg in self.args]
        parts = [list(part) if isinstance(part, Mapping) else part for part in parts]

        def get(index):
            for part in parts:
                if index < len(part):
                    return part[index]
                index -= len(part)
            raise IndexError(index)

        return LazySequence(sum(map(len, parts)), get)


class MappedArgument(Argument):
    """A parameter of a mapped task group's function. Its value is one element of the group's input."""

    def __init__(self, expand_input, key):
        self.expand_input = expand_input
        self.key = key

    def operators(self):
        return self.expand_input.operators()

    def resolve(self, context):
        return self.expand_input.resolve(context, context["ti"].group_map_index(self.expand_input))[self.key]


class DagParam(Argument):
    """A parameter of a `@dag` function. Its value is the param of the same name."""

    def __init__(self, dag, name, default=_MISSING):
        self.dag = dag
        self.name = name
        if default is not _MISSING:
            dag.params[name] = default

    def operators(self):
        return []

    def resolve(self, context):
        params = context["params"]
        if self.name not in params:
            raise AirflowException(f"No value could be resolved for parameter {self.name}")
        return params[self.name]


def unique(operators):
    distinct = []
    for operator in operators:
        if operator not in distinct:
            distinct.append(operator)
    return distinct


def operators_in(value: Any, seen: set[int] | None = None) -> Iterator[Task]:
    """Yields the operators whose results occur in a value, at any depth."""
    if isinstance(value, Argument):
        yield from value.operators()
    elif isinstance(value, dict):
        for key, item in value.items():
            yield from operators_in(key)
            yield from operators_in(item)
    elif isinstance(value, (list, tuple, set, frozenset)):
        for item in value:
            yield from operators_in(item)
    elif hasattr(value, "template_fields") and not isinstance(value, type) and not isinstance(value, Linkable):
        for field in value.template_fields:
            yield from operators_in(getattr(value, field, None))


def resolve(value: Any, context: Mapping[str, Any]) -> Any:
    """Replaces the arguments in a value by their results."""
    if isinstance(value, Argument):
        return value.resolve(context)
    if isinstance(value, dict):
        return {resolve(key, context): resolve(item, context) for key, item in value.items()}
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value)(*(resolve(item, context) for item in value))
    if type(value) in (list, tuple, set):
        return type(value)(resolve(item, context) for item in value)
    return value


def concrete(value: Any) -> Any:
    """Converts a lazy sequence to a list."""
    return list(value) if isinstance(value, LazySequence) else value

"""What a task will have returned, as an argument for another.

<https://airflow.apache.org/docs/apache-airflow/stable/authoring-and-scheduling/dynamic-task-mapping.html>
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from leoflow.authoring.edges import Linkable
from leoflow.common.exceptions import XComNotFound

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from leoflow.authoring.abstract_operator import AbstractOperator
    from leoflow.running.context import Context

RETURN = "return_value"
_MISSING = object()


class Argument(Linkable):
    """Anything that is known only when the task runs."""

    def operators(self):
        raise NotImplementedError

    def tops(self):
        return self.operators()

    def bottoms(self):
        return self.operators()

    def resolve(self, context):
        """The value, for the task that runs."""
        raise NotImplementedError

    def length(self):
        """How many elements it will have, in words that the scheduler understands."""
        raise NotImplementedError

    def map(self, f):
        return MapXComArg(self, plain_function(f))

    def zip(self, *others, fillvalue=_MISSING):
        return ZipXComArg([self, *others], fillvalue)

    def concat(self, *others):
        return ConcatXComArg([self, *others])

    def as_setup(self):
        for one in self.operators():
            one.as_setup()
        return self

    def as_teardown(self, *, setups=None, on_failure_fail_dagrun=None):
        for one in self.operators():
            one.as_teardown(setups=setups, on_failure_fail_dagrun=on_failure_fail_dagrun)
        return self

    def __enter__(self):
        from leoflow.authoring import setup_teardown

        return setup_teardown.enter(self.operators())

    def __exit__(self, *_):
        from leoflow.authoring import setup_teardown

        setup_teardown.leave()

    def __iter__(self):
        raise TypeError(f"{type(self).__name__!r} object is not iterable")


def plain_function(f):
    if not callable(f) or hasattr(f, "operator_class"):
        raise ValueError("map() argument must be a plain function, not a @task operator")
    return f


class XComArg(Argument):
    """Of one task, under one key."""

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
        found = ti.pull_relevant(self.operator, self.key)
        if found is not _MISSING:
            return found
        if self.key == RETURN or getattr(self.operator, "multiple_outputs", False):
            return None
        raise XComNotFound(f'XComArg result from {task_id} at {ti.dag_id} with key="{self.key}" is not found!')

    def __str__(self):
        # In an f-string it is a template.
        task_id, dag_id = self.operator.task_id, self.operator.dag_id
        return f"{{{{ task_instance.xcom_pull(task_ids={task_id!r}, dag_id={dag_id!r}, key={self.key!r}) }}}}"

    def __repr__(self):
        return f"XComArg({self.operator!r})" if self.key == RETURN else f"XComArg({self.operator!r}, {self.key!r})"


def elements(kind, value):
    if isinstance(value, (Sequence, Mapping)) and not isinstance(value, (str, bytes)):
        return value
    raise ValueError(f"XCom {kind} expects sequence or dict, not {type(value).__name__}")


class Lazy(Sequence):
    """Values that are computed when they are looked at: a function that skips or fails does so for
    the element that is asked for."""

    def __init__(self, length, get):
        self._length = length
        self._get = get

    def __len__(self):
        return self._length

    def __getitem__(self, at):
        if isinstance(at, slice):
            return [self._get(one) for one in range(*at.indices(self._length))]
        if not -self._length <= at < self._length:
            raise IndexError(at)
        return self._get(at % self._length)

    def __eq__(self, other):
        return isinstance(other, Sequence) and len(self) == len(other) and all(a == b for a, b in zip(self, other, strict=True))

    def __repr__(self):
        return f"{type(self).__name__}([{self._length} items])"


class LazyXComSequence(Lazy):
    """What the instances of a mapped task returned, by map index."""

    def __init__(self, values):
        super().__init__(len(values), values.__getitem__)

    def __repr__(self):
        # As Airflow shows it, which has not looked yet.
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

        def get(at):
            one = values[at]
            for function in self.functions:
                one = function(one)
            return one

        return Lazy(len(values), get)


class ZipXComArg(Argument):
    def __init__(self, args, fillvalue):
        self.args = args
        self.fillvalue = fillvalue

    def operators(self):
        return unique(operator for one in self.args for operator in one.operators())

    def length(self):
        return {"longest" if self.fillvalue is not _MISSING else "shortest": [one.length() for one in self.args]}

    def resolve(self, context):
        columns = [elements("zip", one.resolve(context)) for one in self.args]
        lengths = [len(one) for one in columns]
        length = min(lengths) if self.fillvalue is _MISSING else max(lengths)
        return Lazy(length, lambda at: tuple(one[at] if at < len(one) else self.fillvalue for one in columns))


class ConcatXComArg(Argument):
    def __init__(self, args):
        self.args = args

    def operators(self):
        return unique(operator for one in self.args for operator in one.operators())

    def length(self):
        return {"sum": [one.length() for one in self.args]}

    def concat(self, *others):
        return ConcatXComArg([*self.args, *others])

    def resolve(self, context):
        parts = [elements("concat", one.resolve(context)) for one in self.args]
        parts = [list(one) if isinstance(one, Mapping) else one for one in parts]

        def get(at):
            for part in parts:
                if at < len(part):
                    return part[at]
                at -= len(part)
            raise IndexError(at)

        return Lazy(sum(map(len, parts)), get)


class MappedArgument(Argument):
    """A parameter of a mapped task group's function: one element of what the group is mapped over."""

    def __init__(self, expand_input, key):
        self.expand_input = expand_input
        self.key = key

    def operators(self):
        return self.expand_input.operators()

    def resolve(self, context):
        return self.expand_input.resolve(context, context["ti"].group_map_index(self.expand_input))[self.key]


class DagParam(Argument):
    """A parameter of a `@dag` function: its value is the param of that name."""

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
            from leoflow.common.exceptions import AirflowException

            raise AirflowException(f"No value could be resolved for parameter {self.name}")
        return params[self.name]


def unique(operators):
    found = []
    for one in operators:
        if one not in found:
            found.append(one)
    return found


def operators_in(value: Any, seen: set[int] | None = None) -> Iterator[AbstractOperator]:
    """Whoever's result is somewhere in a value."""
    if isinstance(value, Argument):
        yield from value.operators()
    elif isinstance(value, dict):
        for key, one in value.items():
            yield from operators_in(key)
            yield from operators_in(one)
    elif isinstance(value, (list, tuple, set, frozenset)):
        for one in value:
            yield from operators_in(one)
    elif hasattr(value, "template_fields") and not isinstance(value, type) and not isinstance(value, Linkable):
        for field in value.template_fields:
            yield from operators_in(getattr(value, field, None))


def resolve(value: Any, context: Context) -> Any:
    """The value with results in the place of arguments."""
    if isinstance(value, Argument):
        return value.resolve(context)
    if isinstance(value, dict):
        return {resolve(key, context): resolve(one, context) for key, one in value.items()}
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value)(*(resolve(one, context) for one in value))
    if type(value) in (list, tuple, set):
        return type(value)(resolve(one, context) for one in value)
    return value


def concrete(value: Any) -> Any:
    """A list in the place of what looks like one."""
    return list(value) if isinstance(value, Lazy) else value

"""Dynamic task mapping: one task instance for each element.

<https://airflow.apache.org/docs/apache-airflow/stable/authoring-and-scheduling/dynamic-task-mapping.html>
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from leoflow.authoring.abstract_operator import BASE_ARGUMENTS, AbstractOperator
from leoflow.authoring.default_args import in_force
from leoflow.authoring.xcom_arg import RETURN, Argument, MappedArgument, XComArg, operators_in
from leoflow.common.exceptions import AirflowException, Unsupported
from leoflow.common.signatures import parameters

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any



def is_literal(value):
    return isinstance(value, (Sequence, Mapping)) and not isinstance(value, (str, bytes))


def check_mappable(where: str, kwargs: dict[str, Any]) -> None:
    for name, value in kwargs.items():
        if isinstance(value, XComArg) and value.key != RETURN:
            raise ValueError(f"cannot map over XCom with custom key {value.key!r} from {value.operator}")
        if not isinstance(value, Argument) and not is_literal(value):
            raise ValueError(f"{where} got an unexpected type {type(value).__name__!r} for keyword argument {name}")


def check_list_of_dicts(kwargs: Any) -> None:
    if isinstance(kwargs, Argument):
        return
    if not isinstance(kwargs, Sequence) or isinstance(kwargs, (str, bytes)):
        raise TypeError(f"expected XComArg or list[dict], not {type(kwargs).__name__}")
    for one in kwargs:
        if not isinstance(one, (Mapping, Argument)):
            raise TypeError(f"expected XComArg or list[dict], not list[{type(one).__name__}]")


def refuse_nested(expand_input: DictOfLists | ListOfDicts) -> None:
    if any(isinstance(one, MappedArgument) for one in expand_input.values()):
        raise ValueError("Nested Mapped TaskGroups are not yet supported")


class DictOfLists:
    """`expand(a=…, b=…)`: every combination, the last varying fastest."""

    def __init__(self, kwargs):
        self.kwargs = kwargs

    def values(self):
        return list(self.kwargs.values())

    def operators(self):
        return list(dict.fromkeys(operators_in(list(self.kwargs.values()))))

    def length(self):
        return {"product": [length_of(one) for one in self.kwargs.values()]}

    def resolve(self, context, index):
        whole = {
            name: one.resolve(context) if isinstance(one, Argument) else one for name, one in self.kwargs.items()
        }
        found = {}
        for name in reversed(list(whole)):
            values = whole[name]
            at = index % max(len(values), 1)
            index //= max(len(values), 1)
            found[name] = list(values.items())[at] if isinstance(values, Mapping) else values[at]
        return {name: deep(found[name], context) for name in whole}


class ListOfDicts:
    """`expand_kwargs([{…}, {…}])`."""

    def __init__(self, given):
        self.given = given

    def values(self):
        return [self.given]

    def operators(self):
        return list(dict.fromkeys(operators_in(self.given)))

    def length(self):
        return length_of(self.given)

    def resolve(self, context, index):
        values = self.given.resolve(context) if isinstance(self.given, Argument) else self.given
        if isinstance(values, (str, bytes)) or not isinstance(values, Sequence):
            raise ValueError(f"expand_kwargs() expects a list[dict], not {type(values).__name__}")
        one = values[index]
        one = one.resolve(context) if isinstance(one, Argument) else one
        if not isinstance(one, Mapping):
            raise ValueError(f"expand_kwargs() expects a list[dict], not list[{type(one).__name__}]")
        for name in one:
            if not isinstance(name, str):
                raise ValueError(f"expand_kwargs() input dict keys must all be str, but {name!r} is of type {type(name).__name__}")
        return {name: deep(value, context) for name, value in one.items()}


def deep(value, context):
    from leoflow.authoring.xcom_arg import resolve

    return resolve(value, context)


def length_of(value):
    return value.length() if isinstance(value, Argument) else len(value)


class OperatorPartial:
    """`Operator.partial(…)`, waiting for what it is expanded over."""

    def __init__(self, operator_class, given):
        self.operator_class = operator_class
        self.given = {name: value for name, value in given.items() if value is not None or name not in ("dag", "task_group", "params")}
        self.check_names("partial", given)

    def check_names(self, method, kwargs):
        accepted = accepted_by(self.operator_class)
        unknown = [name for name in kwargs if name not in accepted]
        if unknown:
            plural = "argument" if len(unknown) == 1 else "arguments"
            names = ", ".join(map(repr, unknown))
            raise TypeError(f"{self.operator_class.__name__}.{method}() got an unexpected keyword {plural} {names}")

    def expand(self, **kwargs):
        if not kwargs:
            raise TypeError("no arguments to expand against")
        self.check_names("expand", kwargs)
        check_mappable(f"{self.operator_class.__name__}.expand()", kwargs)
        taken = [name for name in kwargs if name in self.given or name in BASE_ARGUMENTS]
        if taken:
            plural = "argument" if len(taken) == 1 else "arguments"
            raise TypeError(f"unmappable or already specified {plural}: {', '.join(taken)}")
        return self.make(DictOfLists(kwargs), strict=True)

    def expand_kwargs(self, kwargs, *, strict=True):
        check_list_of_dicts(kwargs)
        return self.make(ListOfDicts(kwargs), strict=strict)

    def make(self, expand_input, strict):
        base, own = split_arguments(self.given)
        return MappedOperator(operator_class=self.operator_class, expand_input=expand_input, partial_kwargs=own,
                              strict=strict, **base)


def split_arguments(given: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Those that every operator takes, which the mapped task takes too, and the others."""
    base = {name: value for name, value in given.items() if name in BASE_ARGUMENTS or name == "default_args"}
    return base, {name: value for name, value in given.items() if name not in base}


def accepted_by(operator_class):
    names = set()
    for base in operator_class.__mro__:
        init = base.__dict__.get("__init__")
        if init is None or base is object:
            continue
        names.update(parameters(init))
    return names - {"self"}


class MappedOperator(AbstractOperator):
    """A task of which there is one instance for each element; it knows them when it runs."""

    is_mapped = True

    def __init__(self, *, operator_class, expand_input, partial_kwargs, strict, output_keys=None, **base):
        self.operator_class = operator_class
        self.expand_input = expand_input
        self.partial_kwargs = partial_kwargs
        self.strict = strict
        self.base_kwargs = base
        super().__init__(**base)
        # Those of the operator's own arguments among them.
        self.default_args_used = in_force(self.dag or base.get("dag"), self.task_group, base.get("default_args") or {})
        if self.trigger_rule == "always" and expand_input.operators():
            raise ValueError(
                "Task-generated mapping within a task using 'expand' is not allowed with trigger rule 'always'."
            )
        if self.task_group is not None and next(self.task_group.mapped_ancestors(), None) is not None:
            raise Unsupported("operator expansion in an expanded task group (nor is it by Airflow)")

    @property
    def task_type(self):
        return getattr(self.operator_class, "airflow_name", self.operator_class.__name__)

    @property
    def operator_name(self):
        return self.operator_class.operator_name

    @property
    def skips_downstream(self):
        return self.operator_class.skips_downstream

    @property
    def template_fields(self):
        return self.operator_class.template_fields

    @property
    def inherits_from_empty_operator(self):
        return self.operator_class.inherits_from_empty_operator

    def link_arguments(self, fields=None):
        from leoflow.authoring.edges import connect

        for operator in list(self.expand_input.operators()) + list(operators_in(self.partial_kwargs)):
            if operator is not self:
                connect(operator, self)

    def unmapped(self, context, index):
        """The task for one element, beside the DAG and not in it."""
        self.given = given = self.expand_input.resolve(context, index)
        own = dict(self.partial_kwargs)
        for name in given:
            if self.strict and (name in own or name in BASE_ARGUMENTS and name in self.base_kwargs):
                raise TypeError(f"unmappable or already specified argument: {name}")
        return self.beside_the_dag({**own, **given})

    def beside_the_dag(self, given):
        """The task, which knows its DAG and its group and is in neither."""
        from leoflow.common import current

        current.unmap(self)
        try:
            return self.settle(self.build(given))
        finally:
            current.unmap(None)

    def own_base_kwargs(self):
        return {name: value for name, value in self.base_kwargs.items() if name not in ("dag", "task_group", "task_id")}

    def defaults(self):
        accepted = accepted_by(self.operator_class) | BASE_ARGUMENTS
        return {name: value for name, value in self.default_args_used.items() if name in accepted and name != "params"}

    def build(self, given):
        return self.operator_class(task_id=self.task_id, **{**self.defaults(), **self.own_base_kwargs(), **given})

    def settle(self, task):
        """As the instance of this task: what the graph says of it is said of the task too."""
        for name in ("dag", "task_group", "upstream_task_ids", "downstream_task_ids", "is_setup", "is_teardown",
                     "on_failure_fail_dagrun", "trigger_rule"):
            object.__setattr__(task, name, getattr(self, name))
        return task

    def execute(self, context):
        raise AirflowException("a mapped task runs as its instances")

    def __repr__(self):
        return f"<Mapped({self.task_type}): {self.task_id}>"

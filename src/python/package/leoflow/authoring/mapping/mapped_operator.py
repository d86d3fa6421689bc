"""Dynamic task mapping: one task instance per element.

<https://airflow.apache.org/docs/apache-airflow/stable/authoring-and-scheduling/dynamic-task-mapping.html>
"""

from __future__ import annotations

from leoflow.authoring.dag.default_args import effective_defaults
from leoflow.authoring.dag.edges import connect
from leoflow.authoring.mapping.expand_input import DictOfLists, ListOfDicts, check_list_of_dicts, check_mappable
from leoflow.authoring.mapping.xcom_arg import operators_in
from leoflow.authoring.operators.abstract_operator import BASE_ARGUMENTS, AbstractOperator
from leoflow.common import current
from leoflow.common.exceptions import AirflowException, Unsupported
from leoflow.common.signatures import Parameter, parameters

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


# The arguments of which a mapped task takes the defaults of its operator class.
INHERITED = BASE_ARGUMENTS - {"task_id", "dag", "task_group"}
# Those of which None is a value, although another one is the default.
MAY_BE_NONE = ("execution_timeout", "retries")
# Attributes of the operator class that a mapped task has, too.
OF_CLASS = ("operator_name", "skips_downstream", "template_fields", "template_ext", "template_fields_renderers",
            "operator_extra_links", "ui_color", "ui_fgcolor", "shallow_copy_attrs", "inherits_from_empty_operator",
            "start_from_trigger", "start_trigger_args")


class OperatorPartial:
    """`Operator.partial(…)`: an operator's fixed arguments, before `expand()`."""

    def __init__(self, operator_class, fixed_kwargs):
        self.operator_class = operator_class
        self.fixed_kwargs = {
            name: value for name, value in fixed_kwargs.items()
            if value is not None or name not in ("dag", "task_group", "params")
        }
        self.check_names("partial", fixed_kwargs)

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
        unmappable = [name for name in kwargs if name in self.fixed_kwargs or name in BASE_ARGUMENTS]
        if unmappable:
            plural = "argument" if len(unmappable) == 1 else "arguments"
            raise TypeError(f"unmappable or already specified {plural}: {', '.join(unmappable)}")
        return self.make(DictOfLists(kwargs), strict=True)

    def expand_kwargs(self, kwargs, *, strict=True):
        check_list_of_dicts(kwargs)
        return self.make(ListOfDicts(kwargs), strict=strict)

    def make(self, expand_input, strict):
        base, own = split_arguments(self.fixed_kwargs)
        return MappedOperator(operator_class=self.operator_class, expand_input=expand_input, partial_kwargs=own,
                              strict=strict, **base)


def split_arguments(arguments: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Splits arguments into those that every operator accepts, which the mapped task itself uses, and those of the
    operator class."""
    base = {name: value for name, value in arguments.items() if name in BASE_ARGUMENTS or name == "default_args"}
    return base, {name: value for name, value in arguments.items() if name not in base}


def accepted_by(operator_class):
    """Returns the argument names that an operator class and its bases accept."""
    names = set()
    for base in operator_class.__mro__:
        init = base.__dict__.get("__init__")
        if init is None or base is object:
            continue
        names.update(parameters(init))
    return names - {"self"}


def own_defaults(operator_class):
    """Returns the defaults that a class and its bases have in their signatures for arguments of every operator, as
    Airflow's `_get_operator_defaults`; the nearest class takes precedence."""
    defaults = {}
    for base in reversed(operator_class.__mro__[: operator_class.__mro__.index(AbstractOperator)]):
        init = base.__dict__.get("__init__")
        signature = parameters(init) if init is not None else {}
        defaults.update({name: signature[name].default for name in INHERITED & signature.keys()
                         if signature[name].default is not Parameter.empty})
    # Any other None means that the class itself chooses a value.
    return {name: value for name, value in defaults.items() if value is not None or name in MAY_BE_NONE}


class MappedOperator(AbstractOperator):
    """A task with one instance per element; the elements are resolved when it runs."""

    is_mapped = True

    def __init__(self, *, operator_class, expand_input, partial_kwargs, strict, **base):
        self.operator_class = operator_class
        self._set(**{name: getattr(operator_class, name) for name in OF_CLASS})
        self.expand_input = expand_input
        self.partial_kwargs = partial_kwargs
        self.strict = strict
        self.base_kwargs = base
        # All default_args, because the operator class may accept arguments that this class does not.
        self.default_args_used = effective_defaults(base.get("dag"), base.get("task_group"), base.get("default_args") or {})
        own = {name: value for name, value in own_defaults(operator_class).items() if name not in self.default_args_used}
        super().__init__(**{**own, **base})
        if self.trigger_rule == "always" and expand_input.operators():
            raise ValueError(
                "Task-generated mapping within a task using 'expand' is not allowed with trigger rule 'always'."
            )
        if self.task_group is not None and next(self.task_group.mapped_ancestors(), None) is not None:
            raise Unsupported("operator expansion in an expanded task group (which Airflow does not support either)")

    @property
    def task_type(self):
        return getattr(self.operator_class, "airflow_name", self.operator_class.__name__)

    def link_arguments(self, fields=None):
        for operator in list(self.expand_input.operators()) + list(operators_in(self.partial_kwargs)):
            if operator is not self:
                connect(operator, self)

    def unmapped(self, context, index):
        """Creates the task of one element, without adding it to the DAG."""
        self.element_kwargs = element_kwargs = self.expand_input.resolve(context, index)
        fixed_kwargs = dict(self.partial_kwargs)
        for name in element_kwargs:
            if self.strict and (name in fixed_kwargs or name in BASE_ARGUMENTS and name in self.base_kwargs):
                raise TypeError(f"unmappable or already specified argument: {name}")
        return self.create_outside_dag({**fixed_kwargs, **element_kwargs})

    def create_outside_dag(self, kwargs):
        """Creates the task of one element with references to its DAG and group, but does not add the task to them."""
        current.unmap(self)
        try:
            return self.copy_graph_position(self.build(kwargs))
        finally:
            current.unmap(None)

    def own_base_kwargs(self):
        return {name: value for name, value in self.base_kwargs.items() if name not in ("dag", "task_group", "task_id")}

    def defaults(self):
        accepted = accepted_by(self.operator_class) | BASE_ARGUMENTS
        return {name: value for name, value in self.default_args_used.items() if name in accepted and name != "params"}

    def build(self, kwargs):
        return self.operator_class(task_id=self.task_id, **{**self.defaults(), **self.own_base_kwargs(), **kwargs})

    def copy_graph_position(self, task):
        """Copies this task's place in the graph to an instance of it."""
        for name in ("dag", "task_group", "upstream_task_ids", "downstream_task_ids", "is_setup", "is_teardown",
                     "on_failure_fail_dagrun", "trigger_rule"):
            object.__setattr__(task, name, getattr(self, name))
        return task

    def execute(self, context):
        raise AirflowException("a mapped task cannot be executed itself: its instances are")

    def __repr__(self):
        return f"<Mapped({self.task_type}): {self.task_id}>"


class MappedFunction(MappedOperator):
    """A mapped task of a function with the decorator `@task`."""

    def build(self, element_kwargs):
        fixed_kwargs = dict(self.partial_kwargs)
        op_kwargs = {**fixed_kwargs.pop("op_kwargs"), **element_kwargs}
        base_kwargs = {**self.defaults(), **self.own_base_kwargs(), **fixed_kwargs}
        return self.operator_class(task_id=self.task_id, **{**base_kwargs, "op_kwargs": op_kwargs, "op_args": ()})

    def unmapped(self, context, index):
        self.element_kwargs = element_kwargs = self.expand_input.resolve(context, index)
        duplicates = [name for name in element_kwargs if name in self.partial_kwargs["op_kwargs"]]
        if duplicates and self.strict:
            raise TypeError(f"mapping already partial argument: {', '.join(duplicates)}")
        return self.create_outside_dag(element_kwargs)

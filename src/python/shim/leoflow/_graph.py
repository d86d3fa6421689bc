"""Operators and the arrows between them."""

import inspect
import re
from datetime import timedelta

from . import _active
from ._errors import AirflowException, DuplicateTaskIdFound, Unsupported, user_line

KEY = re.compile(r"[\w.-]+")
LONGEST_KEY = 250


def check_key(kind, key):
    if not isinstance(key, str):
        raise TypeError(f"The {kind} has to be a string and is {type(key).__name__}:{key}")
    if len(key) > LONGEST_KEY:
        raise AirflowException(f"The {kind} has to be less than {LONGEST_KEY} characters, not {len(key)}")
    if not KEY.fullmatch(key) or not key.strip("."):
        raise AirflowException(
            f"The {kind} {key!r} has to be made of letters, digits, dashes, dots and underscores, "
            "and of more than dots"
        )


class Linkable:
    """What `>>` and `<<` work on: an operator, or the value that it returns."""

    def operators(self):
        raise NotImplementedError

    def set_downstream(self, other, edge_modifier=None):
        refuse_label(edge_modifier)
        for one in flatten(other):
            for up in self.operators():
                for down in one.operators():
                    connect(up, down)

    def set_upstream(self, other, edge_modifier=None):
        refuse_label(edge_modifier)
        for one in flatten(other):
            for up in one.operators():
                for down in self.operators():
                    connect(up, down)

    def __rshift__(self, other):
        self.set_downstream(other)
        return other

    def __lshift__(self, other):
        self.set_upstream(other)
        return other

    # A list on the left has no operator of its own for this.
    def __rrshift__(self, other):
        self.set_upstream(other)
        return self

    def __rlshift__(self, other):
        self.set_downstream(other)
        return self


def refuse_label(edge_modifier):
    if edge_modifier is not None:
        raise Unsupported("a label on an edge")


def flatten(other):
    found = list(other) if isinstance(other, (list, tuple, set)) else [other]
    for one in found:
        if isinstance(one, (list, tuple, set)):
            yield from flatten(one)
        elif isinstance(one, Linkable):
            yield one
        else:
            raise AirflowException(f"Relationships can only be set between Operators; received {type(one).__name__}")


def connect(up, down):
    if up.dag is None and down.dag is None:
        raise AirflowException(
            f"Tried to create relationships between tasks that don't have Dags yet: {up.task_id}, {down.task_id}"
        )
    if up.dag is None:
        down.dag.add_task(up)
    elif down.dag is None:
        up.dag.add_task(down)
    if up.dag is not down.dag:
        raise AirflowException(f"{up.task_id!r} and {down.task_id!r} belong to two Dags")
    up.downstream_task_ids.add(down.task_id)
    down.upstream_task_ids.add(up.task_id)


def chain(*tasks):
    """Each before the next; two lists side by side are joined one to one."""
    for left, right in zip(tasks, tasks[1:]):
        many = isinstance(left, (list, tuple)), isinstance(right, (list, tuple))
        if many == (True, True):
            if len(left) != len(right):
                raise AirflowException(
                    f"Chain not supported for different length Iterable. Got {len(left)} and {len(right)}."
                )
            for up, down in zip(left, right):
                up.set_downstream(down)
        elif many[0]:
            right.set_upstream(left)
        else:
            left.set_downstream(right)


# Arguments of every operator that may be given as long as they change nothing.
NEUTRAL = {
    "depends_on_past": (False,),
    "wait_for_downstream": (False,),
    "ignore_first_depends_on_past": (True, False),
    "wait_for_past_depends_before_skipping": (False,),
    "email": None,
    "email_on_failure": None,
    "email_on_retry": None,
    "retry_exponential_backoff": (False, 0),
    "max_retry_delay": (None,),
    "trigger_rule": ("all_success",),
    "pool": (None, "default_pool"),
    "pool_slots": (1,),
    "queue": (None, "default"),
    "priority_weight": (1,),
    "weight_rule": ("downstream",),
    "sla": (None,),
    "start_date": None,
    "end_date": (None,),
    "run_as_user": (None,),
    "do_xcom_push": (True,),
    "resources": (None,),
    "executor": (None,),
    "executor_config": (None, {}),
    "max_active_tis_per_dag": (None,),
    "max_active_tis_per_dagrun": (None,),
    "map_index_template": (None,),
    "task_group": (None,),
    "inlets": (None, []),
    "outlets": (None, []),
    "allow_nested_operators": (True, False),
    "render_template_as_native_obj": (None, False),
    "doc": None,
    "doc_json": None,
    "doc_yaml": None,
    "doc_rst": None,
    "task_display_name": (None,),
    "owner_links": None,
    "on_execute_callback": (None, []),
    "on_failure_callback": (None, []),
    "on_success_callback": (None, []),
    "on_retry_callback": (None, []),
    "on_skipped_callback": (None, []),
    "pre_execute": (None,),
    "post_execute": (None,),
    "multiple_outputs": (False,),
}


def check_neutral(given, what):
    """Refuses what would mean something that is not done. `None` in the table means: never matters."""
    if given.get("email"):
        # Both are on unless they are switched off.
        for name in ("email_on_failure", "email_on_retry"):
            if given.get(name, True):
                raise Unsupported(f"e-mail ({name}={given.get(name, True)!r})")
    for name, value in given.items():
        if name not in NEUTRAL:
            raise TypeError(f"{what} got an unexpected keyword argument {name!r}")
        allowed = NEUTRAL[name]
        if allowed is not None and not any(value == one for one in allowed):
            raise Unsupported(f"{name}={value!r}")


def text_or_none(name, value):
    if value is not None and not isinstance(value, str):
        raise TypeError(f"{name} has to be a text and is a {type(value).__name__}")
    return value


def check_doc(doc_md):
    if text_or_none("doc_md", doc_md) and doc_md.endswith(".md"):
        raise Unsupported(f"doc_md in a file of its own ({doc_md!r})")
    return doc_md


class OnlyNeutral:
    """Setting an attribute later means what giving it as an argument means."""

    def __setattr__(self, name, value):
        allowed = self.neutral.get(name, ())
        if name in self.neutral and allowed is not None and not any(value == one for one in allowed):
            # An operator that has such an attribute of its own knows what it means.
            if not hasattr(type(self), "owns") or name not in type(self).owns:
                raise Unsupported(f"{name}={value!r}")
        super().__setattr__(name, value)


def seconds(name, value):
    """A delay as Airflow takes it: a timedelta, or a number of seconds."""
    if isinstance(value, (int, float)):
        return value
    if isinstance(value, timedelta):
        return value.total_seconds()
    raise TypeError(f"{name} should be timedelta object but passed type: {type(value)}")


class WithDefaults(type):
    """Fills in what a DAG's `default_args` say, for the arguments that an operator has."""

    def __call__(cls, *args, **given):
        dag = given.get("dag") or _active.dag()
        defaults = {**(dag.default_args if dag else {}), **(given.pop("default_args", None) or {})}
        for name, value in defaults.items():
            if name in cls.accepted():
                given.setdefault(name, value)
        return super().__call__(*args, **given)

    def accepted(cls):
        if "_accepted" not in cls.__dict__:
            names = set(NEUTRAL)
            for base in cls.__mro__[:-1]:
                names.update(inspect.signature(base.__init__).parameters)
            cls._accepted = names - {"self", "others", "dag", "task_id"}
        return cls._accepted


class Operator(OnlyNeutral, Linkable, metaclass=WithDefaults):
    """A task of a DAG."""

    neutral = NEUTRAL
    owns = ()

    # What may hold the results of other tasks.
    template_fields = ()
    operator_name = None

    def __init__(self, *, task_id, dag=None, retries=0, retry_delay=timedelta(seconds=300), execution_timeout=None,
                 doc_md=None, owner="airflow", params=None, **others):
        check_key("task_id", task_id)
        check_neutral(others, type(self).__name__)
        self.task_id = task_id
        self.retries = 0 if retries is None else int(retries)
        if not 0 <= self.retries < 2**30:
            raise AirflowException(f"retries of {task_id!r} cannot be {self.retries}")
        self.retry_delay = timedelta(seconds=seconds("retry_delay", retry_delay))
        if execution_timeout is not None and not isinstance(execution_timeout, timedelta):
            raise ValueError(f"execution_timeout must be timedelta object but passed as type: {type(execution_timeout)}")
        self.execution_timeout = execution_timeout
        self.doc_md = check_doc(doc_md)
        if not isinstance(owner, str):
            raise TypeError(f"owner has to be a text and is a {type(owner).__name__}")
        self.owner = owner
        self.params = dict(params or {})
        self.upstream_task_ids = set()
        self.downstream_task_ids = set()
        self.place = user_line()
        self.dag = None
        dag = dag or _active.dag()
        if dag is not None:
            dag.add_task(self)

    def operators(self):
        return [self]

    @property
    def dag_id(self):
        return self.dag.dag_id if self.dag else None

    @property
    def output(self):
        return XComArg(self)

    def link_arguments(self):
        """Whoever's result is an argument comes first."""
        for field in self.template_fields:
            value = getattr(self, field)
            refuse_template(self, field, value)
            for reference in references(value):
                connect(reference.operator, self)

    def execute(self, context):
        raise NotImplementedError

    def on_kill(self):
        """Called when the task is told to end."""

    def __repr__(self):
        return f"<Task({type(self).__name__}): {self.task_id}>"


def refuse_template(operator, field, value):
    """Airflow would fill in `{{ … }}`; to take it literally would change the meaning."""
    if isinstance(value, str):
        if "{{" in value or "{%" in value or "{#" in value:
            raise Unsupported(f"a Jinja template in {field} of task {operator.task_id!r}", operator.place)
    elif isinstance(value, (list, tuple, set)):
        for one in value:
            refuse_template(operator, field, one)
    elif isinstance(value, dict):
        for one in value.values():
            refuse_template(operator, field, one)


class XComArg(Linkable):
    """What a task will have returned, as an argument for another."""

    def __init__(self, operator, key="return_value"):
        self.operator = operator
        self.key = key

    def operators(self):
        return [self.operator]

    def __getitem__(self, key):
        if not isinstance(key, str):
            raise ValueError(f"XComArg only supports str lookup, received {type(key).__name__}")
        return XComArg(self.operator, key)

    def __iter__(self):
        raise TypeError("'XComArg' object is not iterable")

    def __eq__(self, other):
        return isinstance(other, XComArg) and (self.operator, self.key) == (other.operator, other.key)

    def __hash__(self):
        return hash((id(self.operator), self.key))

    def __getattr__(self, name):
        if name in ("map", "zip", "concat"):
            raise Unsupported(f"XComArg.{name}")
        raise AttributeError(name)

    def __str__(self):
        # What Airflow has here: in an f-string it is a template, and those are refused with their place.
        task_id, dag_id = self.operator.task_id, self.operator.dag_id
        return "{{ task_instance.xcom_pull(task_ids=%r, dag_id=%r, key=%r) }}" % (task_id, dag_id, self.key)

    def __repr__(self):
        return f"XComArg({self.operator!r}, {self.key!r})"


def references(value):
    """Every XComArg in a value, also inside lists and dicts."""
    if isinstance(value, XComArg):
        yield value
    elif isinstance(value, dict):
        for one in value.values():
            yield from references(one)
    elif isinstance(value, (list, tuple, set)):
        for one in value:
            yield from references(one)


def resolve(value, pull):
    """The value with `pull(XComArg)` in the place of each XComArg."""
    if isinstance(value, XComArg):
        return pull(value)
    if isinstance(value, dict):
        return {key: resolve(one, pull) for key, one in value.items()}
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value)(*(resolve(one, pull) for one in value))
    if type(value) in (list, tuple, set):
        return type(value)(resolve(one, pull) for one in value)
    return value


def unique_task_id(dag, task_id):
    """`f`, then `f__1`, `f__2`: a function used again is another task."""
    if dag is None or task_id not in dag.task_dict:
        return task_id
    base = re.sub(r"__\d+$", "", task_id)
    number = dag.last_number.get(base, 0) + 1
    while f"{base}__{number}" in dag.task_dict:
        number += 1
    dag.last_number[base] = number
    return f"{base}__{number}"


def duplicate(task_id):
    return DuplicateTaskIdFound(f"Task id {task_id!r} has already been added to the DAG")

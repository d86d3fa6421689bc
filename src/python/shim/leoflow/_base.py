"""BaseOperator: what every task of a DAG is, the user's own kinds included.

<https://airflow.apache.org/docs/apache-airflow/stable/howto/custom-operator.html>
"""

import abc
import functools
from collections.abc import Collection
from datetime import timedelta

from . import _active, _setups
from ._errors import AirflowException, Unsupported, user_line
from ._graph import Linkable, check_key, connect
from ._params import ParamsDict
from ._priority import check_weight_rule
from ._rules import TriggerRule, check_trigger_rule
from ._signature import VAR_KEYWORD, VAR_POSITIONAL, parameters
from ._time import aware

# As in Airflow's default configuration.
RETRY_DELAY = timedelta(seconds=300)
CALLBACKS = ("on_execute_callback", "on_success_callback", "on_failure_callback", "on_retry_callback", "on_skipped_callback")
# Operator classes say how these are shown; nothing here depends on them.
LOOKS = frozenset({"sla", "email", "email_on_failure", "email_on_retry", "run_as_user", "executor_config", "resources",
                   "doc", "doc_json", "doc_yaml", "doc_rst", "task_display_name", "queue", "executor", "retry_policy",
                   "allow_nested_operators", "logger_name"})
# Of those, what would mean something that is not done.
ONLY = {
    "run_as_user": (None,),
    "executor": (None, "LocalExecutor"),
    "retry_policy": (None,),
    "queue": (None, "default"),
}


def seconds(name, value):
    """A delay as Airflow takes it: a timedelta, or a number of seconds."""
    if isinstance(value, timedelta):
        return value
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return timedelta(seconds=value)
    raise TypeError(f"{name} should be timedelta object but passed type: {type(value)}")


def text_or_none(name, value):
    if value is not None and not isinstance(value, str):
        raise TypeError(f"{name} must be a string and is a {type(value).__name__}")
    return value


def check_doc(doc_md):
    text_or_none("doc_md", doc_md)
    if doc_md and doc_md.endswith(".md") and "\n" not in doc_md:
        import os

        # As in Airflow: a file beside the DAG.
        place = os.path.join(os.path.dirname(user_line()[0]), doc_md)
        try:
            with open(place, encoding="utf-8") as file:
                return file.read()
        except FileNotFoundError:
            return doc_md
    return doc_md


def callbacks(name, value):
    """A function, several, or none, as a list."""
    if value is None:
        return []
    if callable(value):
        return [value]
    if isinstance(value, Collection) and not isinstance(value, (str, bytes)):
        return list(value)
    raise TypeError(f"{name} must be a function or a list of them, not {type(value).__name__}")


def check_email(email, on_failure, on_retry, retries, defaults):
    """Airflow would send it; nobody here does. Addresses alone ask for nothing where neither event is to be told
    of: a retry is none where there are no retries. None is what was not written: Airflow's default is True."""
    if not email:
        return
    place = " in default_args" if "email" in defaults else ""
    for name, wanted, happens in (("email_on_failure", on_failure, True), ("email_on_retry", on_retry, retries > 0)):
        if not happens or wanted is False:
            continue
        what = f"{name}={wanted!r}" if wanted is not None else f"email without {name}=False"
        raise Unsupported(f"e-mail ({what}{place}; use on_failure_callback or on_retry_callback)")


def applies_defaults(init):
    """Around an operator's own `__init__`: fills in what `default_args` say, at each level of subclasses."""
    taken = parameters(init)
    names = [name for name, one in taken.items() if name != "self" and one.kind not in (VAR_POSITIONAL, VAR_KEYWORD)]
    needed = [name for name in names if taken[name].is_required and name != "task_id"]

    @functools.wraps(init)
    def wrapped(self, *args, **given):
        if args:
            raise TypeError("Use keyword arguments when initializing operators")
        is_outermost = not hasattr(self, "_building")
        if is_outermost:
            object.__setattr__(self, "_building", True)
        dag = given.get("dag") or _active.dag()
        group = given.get("task_group") or (_active.group(dag) if dag else None)
        defaults = {**(dag.default_args if dag else {}), **(group.default_args if group else {})}
        own = given.get("default_args") or {}
        defaults.update(own)
        for name in names:
            # The DAG's params are the DAG's; those of a task come with the task.
            if name not in given and name in defaults and name != "params":
                given[name] = defaults[name]
        if "params" in own and "params" in names:
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

    def partial(cls, *, task_id, dag=None, task_group=None, params=None, **given):
        from ._mapping import OperatorPartial

        return OperatorPartial(cls, {"task_id": task_id, "dag": dag, "task_group": task_group, "params": params, **given})


class BaseOperator(Linkable, metaclass=OperatorMeta):
    """A task of a DAG."""

    template_fields = ()
    template_ext = ()
    template_fields_renderers = {}
    operator_extra_links = ()
    ui_color = "#fff"
    ui_fgcolor = "#000"
    shallow_copy_attrs = ()
    inherits_from_empty_operator = False
    operator_name = None
    is_mapped = False
    skips_downstream = False

    def __init__(self, *, task_id, owner="airflow", email=None, email_on_retry=None, email_on_failure=None, retries=0,
                 retry_delay=RETRY_DELAY, retry_exponential_backoff=0, max_retry_delay=None, start_date=None,
                 end_date=None, depends_on_past=False, ignore_first_depends_on_past=False,
                 wait_for_past_depends_before_skipping=False, wait_for_downstream=False, dag=None, params=None,
                 default_args=None, priority_weight=1, weight_rule="downstream", queue="default", pool=None,
                 pool_slots=1, sla=None, execution_timeout=None, on_execute_callback=None, on_failure_callback=None,
                 on_success_callback=None, on_retry_callback=None, on_skipped_callback=None, pre_execute=None,
                 post_execute=None, trigger_rule="all_success", resources=None, run_as_user=None,
                 map_index_template=None, max_active_tis_per_dag=None, max_active_tis_per_dagrun=None, executor=None,
                 executor_config=None, do_xcom_push=True, multiple_outputs=False, inlets=None, outlets=None,
                 task_group=None, doc=None, doc_md=None, doc_json=None, doc_yaml=None, doc_rst=None,
                 task_display_name=None, logger_name=None, allow_nested_operators=True, retry_policy=None,
                 render_template_as_native_obj=None, **others):
        if others:
            raise TypeError(
                f"Invalid arguments were passed to {type(self).__name__} (task_id: {task_id}). "
                f"Invalid arguments were:\n**kwargs: {others}"
            )
        check_email(email, email_on_failure, email_on_retry, retries if isinstance(retries, int) else 0, default_args or {})
        for name, value in (("run_as_user", run_as_user), ("executor", executor), ("retry_policy", retry_policy),
                            ("queue", queue)):
            if value not in ONLY[name]:
                raise Unsupported(f"{name}={value!r}")
        self.place = user_line()
        mapped = _active.unmapped()
        dag = dag or _active.dag()
        group = task_group or (_active.group(dag) if dag is not None else None)
        if dag is None and group is not None:
            dag = group.dag
        check_key("task_id", task_id)
        self.task_id = group.child_id(task_id) if group is not None and mapped is None else task_id
        check_key("task_id", self.task_id)
        self.task_group = None
        self.owner = owner
        if not isinstance(owner, str):
            raise TypeError(f"owner must be a string and is a {type(owner).__name__}")
        self.retries = whole_retries(self.task_id, retries)
        self.retry_delay = seconds("retry_delay", retry_delay)
        self.retry_exponential_backoff = backoff(retry_exponential_backoff)
        self.max_retry_delay = None if max_retry_delay is None else seconds("max_retry_delay", max_retry_delay)
        self.start_date = aware("start_date", start_date)
        self.end_date = aware("end_date", end_date)
        self.wait_for_downstream = bool(wait_for_downstream)
        self.depends_on_past = bool(depends_on_past) or self.wait_for_downstream
        self.ignore_first_depends_on_past = bool(ignore_first_depends_on_past)
        self.wait_for_past_depends_before_skipping = bool(wait_for_past_depends_before_skipping)
        # Those of the DAG are the task's too; `own_params` are what it adds.
        self.own_params = dict(params or {})
        of = mapped.dag if mapped is not None else dag
        self.params = ParamsDict({**(of.params.all_params() if of is not None else {}), **self.own_params})
        self.priority_weight = priority(self.task_id, priority_weight)
        self.weight_rule = check_weight_rule(weight_rule)
        self.queue = queue or "default"
        self.pool = pool or "default_pool"
        text_or_none("pool", pool)
        if not isinstance(pool_slots, int) or pool_slots < 1:
            inside = f" in dag {dag.dag_id}" if dag is not None else ""
            raise ValueError(f"pool slots for {self.task_id}{inside} cannot be less than 1")
        self.pool_slots = pool_slots
        if execution_timeout is not None and not isinstance(execution_timeout, timedelta):
            raise ValueError(f"execution_timeout must be timedelta object but passed as type: {type(execution_timeout)}")
        self.execution_timeout = execution_timeout
        for name, value in zip(CALLBACKS, (on_execute_callback, on_success_callback, on_failure_callback,
                                           on_retry_callback, on_skipped_callback)):
            setattr(self, name, callbacks(name, value))
        self._pre_execute_hook = pre_execute
        self._post_execute_hook = post_execute
        self.trigger_rule = check_trigger_rule(trigger_rule, self.task_id, dag)
        self.map_index_template = text_or_none("map_index_template", map_index_template)
        self.max_active_tis_per_dag = limit("max_active_tis_per_dag", max_active_tis_per_dag)
        self.max_active_tis_per_dagrun = limit("max_active_tis_per_dagrun", max_active_tis_per_dagrun)
        self.executor_config = executor_config or {}
        self.resources = resources
        self.do_xcom_push = bool(do_xcom_push)
        self.multiple_outputs = bool(multiple_outputs)
        self.inlets = one_or_many(inlets)
        self.outlets = one_or_many(outlets)
        self.doc, self.doc_json, self.doc_yaml, self.doc_rst = doc, doc_json, doc_yaml, doc_rst
        self.doc_md = check_doc(doc_md)
        self.task_display_name = text_or_none("task_display_name", task_display_name) or self.task_id
        self.render_template_as_native_obj = render_template_as_native_obj
        self.is_setup = self.is_teardown = False
        self.on_failure_fail_dagrun = False
        self.upstream_task_ids = set()
        self.downstream_task_ids = set()
        object.__setattr__(self, "dag", None)
        if mapped is not None:
            object.__setattr__(self, "dag", mapped.dag)
            self.task_group = mapped.task_group
            return
        if group is not None:
            group.add(self)
        if dag is not None:
            dag.add_task(self)
        _setups.collect(self)

    def __setattr__(self, name, value):
        if name == "trigger_rule" and isinstance(value, str):
            value = check_trigger_rule(value, getattr(self, "task_id", "?"), None)
        elif name in CALLBACKS:
            value = callbacks(name, value)
        elif name in ONLY and _active.context() is None and value not in ONLY[name]:
            raise Unsupported(f"{name}={value!r}")
        elif name == "dag" and value is not None:
            # To give a task a DAG is to put it there.
            value.add_task(self)
            return
        object.__setattr__(self, name, value)
        if not hasattr(self, "_building") and getattr(self, "dag", None) is not None and name in self.template_fields:
            self.link_arguments((name,))

    # --- the graph

    def tops(self):
        return [self]

    def bottoms(self):
        return [self]

    @property
    def dag_id(self):
        return self.dag.dag_id if self.dag else None

    def get_dag(self):
        return self.dag

    def has_dag(self):
        return self.dag is not None

    @property
    def label(self):
        group = self.task_group
        prefix = group.group_id + "." if group is not None and group.group_id and group.prefix_group_id else ""
        return self.task_id[len(prefix):] if prefix and self.task_id.startswith(prefix) else self.task_id

    @property
    def node_id(self):
        return self.task_id

    @property
    def task_type(self):
        return getattr(self, "airflow_name", type(self).__name__)

    @property
    def upstream_list(self):
        return [self.dag.get_task(one) for one in self.upstream_task_ids]

    @property
    def downstream_list(self):
        return [self.dag.get_task(one) for one in self.downstream_task_ids]

    def get_direct_relative_ids(self, upstream=False):
        return self.upstream_task_ids if upstream else self.downstream_task_ids

    def get_flat_relative_ids(self, *, upstream=False):
        found, waiting = set(), [self]
        while waiting:
            one = waiting.pop()
            for task_id in one.get_direct_relative_ids(upstream):
                if task_id not in found:
                    found.add(task_id)
                    waiting.append(self.dag.get_task(task_id))
        return found

    @property
    def output(self):
        from ._xcomarg import XComArg

        return XComArg(self)

    def link_arguments(self, fields=None):
        """Whoever's result is an argument comes first."""
        from ._xcomarg import operators_in

        for field in self.template_fields if fields is None else fields:
            for operator in operators_in(getattr(self, field, None)):
                if operator is not self:
                    connect(operator, self)

    def as_setup(self):
        if self.is_teardown:
            raise ValueError(f"Cannot mark task '{self.task_id}' as setup; task is already a teardown.")
        self.is_setup = True
        return self

    def as_teardown(self, *, setups=None, on_failure_fail_dagrun=None):
        if self.is_setup:
            raise ValueError(f"Cannot mark task '{self.task_id}' as teardown; task is already a setup.")
        self.is_teardown = True
        object.__setattr__(self, "trigger_rule", TriggerRule.ALL_DONE_SETUP_SUCCESS)
        if on_failure_fail_dagrun is not None:
            self.on_failure_fail_dagrun = bool(on_failure_fail_dagrun)
        for one in one_or_many(setups):
            for setup in one.bottoms():
                setup.as_setup()
                setup.set_downstream(self)
        return self

    def __enter__(self):
        return _setups.enter([self])

    def __exit__(self, *_):
        _setups.leave()

    def __gt__(self, other):
        self.outlets.append(other)
        return self

    def __lt__(self, other):
        self.inlets.append(other)
        return self

    # --- running

    @property
    def log(self):
        import logging

        return logging.getLogger("airflow.task.operators")

    def pre_execute(self, context):
        """Called before `execute`, for those who extend it."""

    def execute(self, context):
        raise NotImplementedError

    def post_execute(self, context, result=None):
        """Called after it."""

    def on_kill(self):
        """Called when the task is told to end."""

    def render_template_fields(self, context, jinja_env=None):
        from ._templates import render_fields

        render_fields(self, context, self, jinja_env)

    def render_template(self, content, context, jinja_env=None, seen_oids=None):
        from ._templates import Renderer

        return Renderer(self, context, jinja_env).render(content)

    def get_template_env(self, dag=None):
        from ._templates import environment_of

        return environment_of(dag or self.dag)

    def xcom_push(self, context, key, value):
        context["ti"].xcom_push(key=key, value=value)

    def xcom_pull(self, context, task_ids=None, key="return_value", **others):
        return context["ti"].xcom_pull(task_ids=task_ids, key=key, **others)

    def defer(self, **_):
        raise Unsupported("self.defer() (there is no triggerer; a sensor can wait with mode='reschedule')", self.place)

    def dry_run(self):
        self.log.info("Dry run")

    def prepare_for_execution(self):
        """A copy: another try in this process begins with the arguments as they were written."""
        import copy

        return copy.copy(self)

    def __repr__(self):
        return f"<Task({self.task_type}): {self.task_id}>"


def whole_retries(task_id, retries):
    if retries is None:
        return 0
    try:
        number = int(retries)
    except (TypeError, ValueError):
        raise TypeError(f"'retries' type must be int, not {type(retries).__name__}") from None
    if not 0 <= number < 2**30:
        raise AirflowException(f"retries of {task_id!r} cannot be {number}")
    return number


def backoff(value):
    """The factor: True means 2, and 0 that there is none."""
    if isinstance(value, bool):
        return 2.0 if value else 0.0
    if not isinstance(value, (int, float)) or value < 0:
        raise TypeError(f"retry_exponential_backoff must be a number from 0, not {value!r}")
    return float(value)


def priority(task_id, weight):
    if isinstance(weight, bool) or not isinstance(weight, int):
        raise AirflowException(f"`priority_weight` for task '{task_id}' only accepts integers, received '{type(weight)}'.")
    return max(-(2**31), min(weight, 2**31 - 1))


def limit(name, value):
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise TypeError(f"{name} must be a whole number, not {value!r}")
    return value


def one_or_many(value):
    if value is None:
        return []
    return list(value) if isinstance(value, (list, tuple, set)) else [value]


# The names that `partial()` takes for every operator.
BASE_ARGUMENTS = frozenset(parameters(BaseOperator.__init__)) - {"self", "others", "default_args"}

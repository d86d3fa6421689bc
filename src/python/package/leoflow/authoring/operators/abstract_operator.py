"""The base of all operators, mapped or not.

<https://airflow.apache.org/docs/apache-airflow/stable/howto/custom-operator.html>
"""

from leoflow.authoring.dag import setup_teardown
from leoflow.authoring.dag.default_args import OperatorMeta
from leoflow.authoring.dag.edges import Linkable, check_key, connect
from leoflow.authoring.dag.params import ParamsDict
from leoflow.authoring.mapping.xcom_arg import XComArg, operators_in
from leoflow.authoring.operators.arguments import (
    EMAIL_ON_FAILURE,
    EMAIL_ON_RETRY,
    EXECUTION_TIMEOUT,
    OWNER,
    RETRIES,
    RETRY_DELAY,
    WEIGHT_RULE,
    as_timedelta,
    backoff,
    callbacks,
    check_doc,
    check_retries,
    limit,
    one_or_many,
    priority,
    slots,
    text,
    text_or_none,
    timeout,
    warn_of_sla,
)
from leoflow.authoring.operators.nesting import guard_execute
from leoflow.authoring.operators.priority import check_weight_rule
from leoflow.authoring.operators.trigger_rule import TriggerRule, check_trigger_rule
from leoflow.common import current
from leoflow.common.dates import aware
from leoflow.common.exceptions import TaskDeferred, Unsupported
from leoflow.common.reports import user_line
from leoflow.common.settings import airflow_settings
from leoflow.common.signatures import parameters

CALLBACKS = ("on_execute_callback", "on_success_callback", "on_failure_callback", "on_retry_callback", "on_skipped_callback")
# Arguments that Leoflow does not implement, with the values that are accepted because they have no effect.
NEUTRAL_VALUES = {
    "run_as_user": (None,),
    "executor": (None, "LocalExecutor"),
    "retry_policy": (None,),
    "queue": (None, "default"),
}
# Attributes whose assignment `__setattr__` checks.
CHECKED_ATTRIBUTES = frozenset({"trigger_rule", "dag", *CALLBACKS, *NEUTRAL_VALUES})


def retry_attributes(task_id, retries, delay, exponential_backoff, longest_delay):
    """Checks the retry arguments; returns them as attributes."""
    return {
        "retries": check_retries(task_id, retries), "retry_delay": as_timedelta("retry_delay", delay),
        "retry_exponential_backoff": backoff(exponential_backoff),
        "max_retry_delay": None if longest_delay is None else as_timedelta("max_retry_delay", longest_delay),
    }


class AbstractOperator(Linkable, metaclass=OperatorMeta):
    """The base class of operators and mapped operators: arguments, edges and the methods that a running task calls."""

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
    # With both set, a task starts deferred, with this trigger, and `execute` is not called.
    start_from_trigger = False
    start_trigger_args = None

    def __init__(self, *, task_id, owner=OWNER, email=None, email_on_retry=EMAIL_ON_RETRY, email_on_failure=EMAIL_ON_FAILURE,
                 retries=RETRIES, retry_delay=RETRY_DELAY, retry_exponential_backoff=0, max_retry_delay=None, start_date=None,
                 end_date=None, depends_on_past=False, ignore_first_depends_on_past=False,
                 wait_for_past_depends_before_skipping=False, wait_for_downstream=False, dag=None, params=None,
                 default_args=None, priority_weight=1, weight_rule=WEIGHT_RULE, queue="default", pool=None,
                 pool_slots=1, sla=None, execution_timeout=EXECUTION_TIMEOUT, on_execute_callback=None, on_failure_callback=None,
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
        owner, retries, retry_delay, weight_rule, execution_timeout, email_on_failure, email_on_retry = (
            airflow_settings.setting_or_value(argument) for argument in
            (owner, retries, retry_delay, weight_rule, execution_timeout, email_on_failure, email_on_retry))
        self._refuse_unsupported(run_as_user=run_as_user, executor=executor, retry_policy=retry_policy, queue=queue)
        mapped = current.unmapped()
        dag = dag or current.dag()
        group = task_group or (current.group(dag) if dag is not None else None)
        if dag is None and group is not None:
            dag = group.dag
        check_key("task_id", task_id)
        task_id = group.child_id(task_id) if group is not None and mapped is None else task_id
        check_key("task_id", task_id)
        rule = check_trigger_rule(trigger_rule, task_id, dag)
        callback_values = (on_execute_callback, on_success_callback, on_failure_callback, on_retry_callback, on_skipped_callback)
        # Checks all values here and bypasses `__setattr__`, which would double the parse time of a large DAG file.
        # `__setattr__` checks later assignments.
        self._set(
            place=user_line(), task_id=task_id, task_group=None, owner=text("owner", owner),
            start_date=aware("start_date", start_date), end_date=aware("end_date", end_date),
            wait_for_downstream=bool(wait_for_downstream),
            depends_on_past=bool(depends_on_past) or bool(wait_for_downstream),
            ignore_first_depends_on_past=bool(ignore_first_depends_on_past),
            wait_for_past_depends_before_skipping=bool(wait_for_past_depends_before_skipping),
            **retry_attributes(task_id, retries, retry_delay, retry_exponential_backoff, max_retry_delay),
            **self._params(params, mapped.dag if mapped is not None else dag),
            priority_weight=priority(task_id, priority_weight), weight_rule=check_weight_rule(weight_rule),
            queue=queue or "default", pool=text_or_none("pool", pool) or "default_pool",
            pool_slots=slots(task_id, dag, pool_slots), execution_timeout=timeout(execution_timeout),
            **{name: callbacks(name, value) for name, value in zip(CALLBACKS, callback_values, strict=True)},
            _pre_execute_hook=pre_execute, _post_execute_hook=post_execute, trigger_rule=rule,
            map_index_template=text_or_none("map_index_template", map_index_template),
            max_active_tis_per_dag=limit("max_active_tis_per_dag", max_active_tis_per_dag),
            max_active_tis_per_dagrun=limit("max_active_tis_per_dagrun", max_active_tis_per_dagrun),
            executor_config=executor_config or {}, resources=resources, do_xcom_push=bool(do_xcom_push),
            multiple_outputs=bool(multiple_outputs), inlets=one_or_many(inlets), outlets=one_or_many(outlets),
            email=email, email_on_failure=email_on_failure, email_on_retry=email_on_retry,
            doc=doc, doc_json=doc_json, doc_yaml=doc_yaml, doc_rst=doc_rst, doc_md=check_doc(doc_md),
            task_display_name=text_or_none("task_display_name", task_display_name) or task_id,
            render_template_as_native_obj=render_template_as_native_obj,
            _logger_name=text_or_none("logger_name", logger_name), allow_nested_operators=bool(allow_nested_operators),
            is_setup=False, is_teardown=False, on_failure_fail_dagrun=False,
            upstream_task_ids=set(), downstream_task_ids=set(), dag=None,
        )
        if sla is not None:
            warn_of_sla()
        if not self.allow_nested_operators and not self.is_mapped:
            guard_execute(self)
        self._join(dag, group, mapped)

    # --- construction

    @staticmethod
    def _refuse_unsupported(**arguments):
        """Raises Unsupported for arguments that Airflow implements and Leoflow does not."""
        for name, value in arguments.items():
            if value not in NEUTRAL_VALUES[name]:
                raise Unsupported(f"{name}={value!r}")

    def _set(self, **attributes):
        for name, value in attributes.items():
            object.__setattr__(self, name, value)

    @staticmethod
    def _params(params, dag):
        """Returns `params` (the DAG's merged with the task's own) and `own_params` (the task's own only)."""
        own = dict(params or {})
        return {"own_params": own, "params": ParamsDict({**(dag.params.all_params() if dag is not None else {}), **own})}

    def _join(self, dag, group, mapped):
        """Adds the task to its DAG and group. An instance of a mapped task only gets references to both."""
        if mapped is not None:
            object.__setattr__(self, "dag", mapped.dag)
            self.task_group = mapped.task_group
            return
        if group is not None:
            group.add(self)
        if dag is not None:
            dag.add_task(self)
        setup_teardown.collect(self)

    def __setattr__(self, name, value):
        if name in CHECKED_ATTRIBUTES:
            self._set_checked(name, value)
            return
        object.__setattr__(self, name, value)
        if not hasattr(self, "_building") and getattr(self, "dag", None) is not None and name in self.template_fields:
            self.link_arguments((name,))

    def _set_checked(self, name, value):
        if name == "trigger_rule" and isinstance(value, str):
            value = check_trigger_rule(value, getattr(self, "task_id", "?"), None)
        elif name in CALLBACKS:
            value = callbacks(name, value)
        elif name in NEUTRAL_VALUES and current.context() is None and value not in NEUTRAL_VALUES[name]:
            raise Unsupported(f"{name}={value!r}")
        elif name == "dag" and value is not None:
            # Assigning a DAG adds the task to it, as in Airflow.
            value.add_task(self)
            return
        object.__setattr__(self, name, value)

    # --- the graph

    def root_tasks(self):
        return [self]

    def leaf_tasks(self):
        return [self]

    def self_or_group(self):
        group = self.task_group
        return self if group is None or group.is_root else group

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
        return [self.dag.get_task(task_id) for task_id in self.upstream_task_ids]

    @property
    def downstream_list(self):
        return [self.dag.get_task(task_id) for task_id in self.downstream_task_ids]

    def get_direct_relative_ids(self, upstream=False):
        return self.upstream_task_ids if upstream else self.downstream_task_ids

    def get_flat_relative_ids(self, *, upstream=False):
        relative_ids, pending = set(), [self]
        while pending:
            task = pending.pop()
            for task_id in task.get_direct_relative_ids(upstream):
                if task_id not in relative_ids:
                    relative_ids.add(task_id)
                    pending.append(self.dag.get_task(task_id))
        return relative_ids

    @property
    def output(self):
        return XComArg(self)

    def link_arguments(self, fields=None):
        """Makes the task depend on every task whose result is one of its arguments."""
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
        for end in one_or_many(setups):
            for setup in end.leaf_tasks():
                setup.as_setup()
                setup.set_downstream(self)
        return self

    def __enter__(self):
        return setup_teardown.enter([self])

    def __exit__(self, *_):
        setup_teardown.leave()

    def __gt__(self, other):
        self.outlets.append(other)
        return self

    def __lt__(self, other):
        self.inlets.append(other)
        return self

    # --- running

    @property
    def log(self):
        # Imported here, because it imports logging, which is slow and only running tasks need it.
        from leoflow.authoring.loggers import operator_logger

        return operator_logger(type(self), self._logger_name)

    def pre_execute(self, context):
        """Runs before `execute`; subclasses override it."""

    def execute(self, context):
        raise NotImplementedError

    def post_execute(self, context, result=None):
        """Runs after `execute`; subclasses override it."""

    def on_kill(self):
        """Called when the task is terminated."""

    # The three methods below import the module of templates on use, because only running tasks need it.

    def render_template_fields(self, context, jinja_env=None):
        from leoflow.authoring.operators.templates import render_fields

        render_fields(self, context, self, jinja_env)

    def render_template(self, content, context, jinja_env=None, seen_oids=None):
        from leoflow.authoring.operators.templates import Renderer

        return Renderer(self, context, jinja_env).render(content)

    def get_template_env(self, dag=None):
        from leoflow.authoring.operators.templates import environment_of

        return environment_of(dag or self.dag)

    def xcom_push(self, context, key, value):
        context["ti"].xcom_push(key=key, value=value)

    def xcom_pull(self, context, task_ids=None, key="return_value", **others):
        return context["ti"].xcom_pull(task_ids=task_ids, key=key, **others)

    def defer(self, *, trigger, method_name, kwargs=None, timeout=None):
        raise TaskDeferred(trigger=trigger, method_name=method_name, kwargs=kwargs, timeout=timeout)

    def dry_run(self):
        self.log.info("Dry run")

    def prepare_for_execution(self):
        """Returns a copy to run: running changes a task, and another try in this process must start from the
        original."""
        import copy

        return copy.copy(self)

    def __repr__(self):
        return f"<Task({self.task_type}): {self.task_id}>"


# Argument names that `partial()` accepts for every operator.
BASE_ARGUMENTS = frozenset(parameters(AbstractOperator.__init__)) - {"self", "others", "default_args"}

"""The DAG class, the `@dag` decorator, and the collection of a file's DAGs."""

from __future__ import annotations

import functools
import sys
from datetime import datetime, timedelta, timezone

from leoflow.authoring.dag.edges import check_key, duplicate
from leoflow.authoring.dag.params import ParamsDict
from leoflow.authoring.dag.task_group import TaskGroup
from leoflow.authoring.mapping.xcom_arg import _MISSING as NO_DEFAULT
from leoflow.authoring.mapping.xcom_arg import DagParam
from leoflow.authoring.operators.abstract_operator import AbstractOperator
from leoflow.authoring.operators.arguments import callbacks, check_doc, text_or_none
from leoflow.authoring.timetables.schedule import timetable_of_schedule
from leoflow.common import current, topology
from leoflow.common.dates import aware
from leoflow.common.exceptions import AirflowDagCycleException, AirflowException, TaskNotFound, Unsupported
from leoflow.common.reports import PACKAGE
from leoflow.common.settings.airflow_settings import Setting, setting_or_value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from types import ModuleType
    from typing import Any

# All DAGs of this process, in the order of their creation.
created_dags = []
# Arguments that Leoflow does not implement, with the values that are accepted because they have no effect. `None`
# accepts any value.
NEUTRAL_VALUES = {
    "access_control": (None,),
    "deadline": (None, []),
    "sla_miss_callback": (None,),
    "allowed_run_types": (None,),
    "auto_register": (True,),
    "disable_bundle_versioning": None,
}


# Defaults of Airflow's configuration.
CATCHUP = Setting("scheduler", "catchup_by_default", False, bool)
MAX_ACTIVE_RUNS = Setting("core", "max_active_runs_per_dag", 16, int)
MAX_ACTIVE_TASKS = Setting("core", "max_active_tasks_per_dag", 16, int)
MAX_CONSECUTIVE_FAILED_RUNS = Setting("core", "max_consecutive_failed_dag_runs_per_dag", 0, int)


class DAG:
    """<https://airflow.apache.org/docs/apache-airflow/stable/core-concepts/dags.html>"""

    def __init__(self, dag_id, *, description=None, schedule=None, start_date=None, end_date=None, default_args=None,
                 params=None, tags=None, doc_md=None, catchup=CATCHUP, max_active_runs=MAX_ACTIVE_RUNS,
                 max_active_tasks=MAX_ACTIVE_TASKS, max_consecutive_failed_dag_runs=MAX_CONSECUTIVE_FAILED_RUNS,
                 dagrun_timeout=None, is_paused_upon_creation=None, fail_fast=False,
                 on_success_callback=None, on_failure_callback=None, user_defined_macros=None,
                 user_defined_filters=None, template_searchpath=None, template_undefined=None,
                 jinja_environment_kwargs=None, render_template_as_native_obj=False, dag_display_name=None, owner_links=None,
                 rerun_with_latest_version=None, **others):
        check_key("dag_id", dag_id)
        unknown = [name for name in others if name not in NEUTRAL_VALUES]
        if unknown:
            plural = "an unexpected keyword argument" if len(unknown) == 1 else "unexpected keyword arguments"
            raise TypeError(f"DAG got {plural} {', '.join(map(repr, unknown))}")
        for name, value in others.items():
            if NEUTRAL_VALUES[name] is not None and not any(value == neutral for neutral in NEUTRAL_VALUES[name]):
                raise Unsupported(f"{name}={value!r} of a DAG")
        self.dag_id = dag_id
        self.dag_display_name = text_or_none("dag_display_name", dag_display_name) or dag_id
        self.description = text_or_none("description", description)
        self.default_args = dict(default_args or {})
        start = start_date if start_date is not None else self.default_args.get("start_date")
        end = end_date if end_date is not None else self.default_args.get("end_date")
        self.start_date = aware("start_date", start)
        self.end_date = aware("end_date", end)
        self.timezone = self.start_date.tzinfo if self.start_date is not None else aware("", "2000-01-01").tzinfo
        self.params = ParamsDict({**(self.default_args.pop("params", None) or {}), **(params or {})})
        self.tags = check_tags(tags)
        self.owner_links = check_owner_links(owner_links)
        self.doc_md = check_doc(doc_md)
        self.catchup = bool(setting_or_value(catchup))
        self.max_active_runs = check_whole_number("max_active_runs", setting_or_value(max_active_runs))
        self.max_active_tasks = check_whole_number("max_active_tasks", setting_or_value(max_active_tasks))
        self.max_consecutive_failed_dag_runs = check_whole_number(
            "max_consecutive_failed_dag_runs", setting_or_value(max_consecutive_failed_dag_runs))
        self.dagrun_timeout = timeout(dagrun_timeout)
        self.is_paused_upon_creation = is_paused_upon_creation
        self.fail_fast = bool(fail_fast)
        self.on_success_callback = callbacks("on_success_callback", on_success_callback)
        self.on_failure_callback = callbacks("on_failure_callback", on_failure_callback)
        self.user_defined_macros = user_defined_macros
        self.user_defined_filters = user_defined_filters
        self.template_searchpath = [template_searchpath] if isinstance(template_searchpath, str) else template_searchpath
        self.template_undefined = template_undefined
        self.jinja_environment_kwargs = jinja_environment_kwargs
        self.render_template_as_native_obj = bool(render_template_as_native_obj)
        self.rerun_with_latest_version = (
            None if rerun_with_latest_version is None else bool(rerun_with_latest_version)
        )
        self.task_dict = {}
        self.group_ids = {}
        self.edge_labels = {}
        self.task_group = TaskGroup(None, dag=self)
        self.module_file, self.line = defining_module()
        self.schedule = schedule
        self.timetable = timetable_of_schedule(schedule, self.timezone)
        if self.catchup and self.timetable.can_be_scheduled and self.start_date is None:
            raise ValueError("start_date is required when catchup=True")
        run_limit = self.timetable.active_runs_limit
        if run_limit is not None and self.max_active_runs > run_limit:
            raise ValueError(
                f"Invalid max_active_runs: {type(self.timetable).__name__} requires max_active_runs <= {run_limit}"
            )
        # True once the DAG was used in a `with` block. Such a DAG is collected even if no module variable refers to it.
        self.entered = False
        created_dags.append(self)

    @property
    def tasks(self):
        return list(self.task_dict.values())

    @property
    def task_ids(self):
        return list(self.task_dict)

    @property
    def task_group_dict(self):
        return dict(self.group_ids)

    @property
    def fileloc(self):
        return self.module_file

    @property
    def folder(self):
        import os

        return os.path.dirname(self.module_file or "")

    @property
    def owner(self):
        return ", ".join(sorted({task.owner for task in self.tasks}))

    @property
    def timetable_summary(self):
        return self.timetable.summary

    @property
    def roots(self):
        return [task for task in self.tasks if not task.upstream_task_ids]

    @property
    def leaves(self):
        return [task for task in self.tasks if not task.downstream_task_ids]

    def get_task(self, task_id):
        if task_id not in self.task_dict:
            raise TaskNotFound(f"Task {task_id} not found")
        return self.task_dict[task_id]

    def has_task(self, task_id):
        return task_id in self.task_dict

    def has_task_group(self, group_id):
        return group_id in self.group_ids

    def add_task(self, task):
        if not isinstance(task, AbstractOperator):
            raise TypeError(f"{task!r} is not a task")
        if self.task_dict.get(task.task_id, task) is not task:
            raise duplicate(task.task_id)
        if task.dag is not None and task.dag is not self:
            raise ValueError(f"The dag assigned to {task!r} can not be changed.")
        object.__setattr__(task, "dag", self)
        self.task_dict[task.task_id] = task
        if task.task_group is None:
            self.task_group.add(task)

    def add_tasks(self, tasks):
        for task in tasks:
            self.add_task(task)

    def param(self, name, default=NO_DEFAULT):
        return DagParam(self, name, default)

    def __enter__(self):
        self.entered = True
        current.enter_dag(self)
        return self

    def __exit__(self, *_):
        current.leave_dag()

    def ordered(self):
        """Returns the tasks in topological order; ties keep the order of definition. Raises
        AirflowDagCycleException."""
        order = topology.ordered(self.task_dict)
        if len(order) < len(self.task_dict):
            ordered_ids = {task.task_id for task in order}
            in_cycle = next(task for task in self.tasks if task.task_id not in ordered_ids)
            raise AirflowDagCycleException(f"Cycle detected in Dag: {self.dag_id}. Faulty task: {in_cycle.task_id}")
        return order

    topological_sort = ordered

    def check(self):
        """Raises an error if the DAG's tasks, edges, trigger rules or settings are invalid together."""
        self.ordered()
        for task in self.tasks:
            if task.is_teardown and task.trigger_rule != "all_done_setup_success":
                raise ValueError("Trigger rule not configurable for teardown tasks.")
            if self.fail_fast and task.trigger_rule not in ("all_success", "all_done_setup_success"):
                raise AirflowException(
                    f"A 'fail_fast' dag can only have ALL_SUCCESS trigger rule, and {task.task_id} has {task.trigger_rule}"
                )
            if task.is_setup:
                for down in task.downstream_list:
                    if not down.is_teardown and down.trigger_rule != "all_success" and not down.is_setup:
                        raise ValueError("Setup tasks must be followed with trigger rule ALL_SUCCESS.")
        if self.timetable.can_be_scheduled and not self.params.are_valid():
            raise ValueError(
                f"Dag {self.dag_id!r} is not allowed to define a Schedule, as there are required params without "
                "default values, or the default values are not valid."
            )
        self.timetable.validate()

    def test(self, run_after=None, logical_date=NO_DEFAULT, run_conf=None, conn_file_path=None, variable_file_path=None,
             use_executor=False, mark_success_pattern=None):
        import importlib

        # By its name, because it is above this layer: it runs the tasks.
        dag_test = importlib.import_module("leoflow.outside.dag_test")
        date = datetime.now(timezone.utc) if logical_date is NO_DEFAULT else logical_date
        return dag_test.run(self, date, run_conf, mark_success_pattern, run_after=run_after, conn_file_path=conn_file_path,
                            variable_file_path=variable_file_path, use_executor=use_executor)

    def cli(self):
        raise Unsupported("DAG.cli() inside the file (use the commands of `leoflow`)")

    def __eq__(self, other):
        return self is other

    __hash__ = object.__hash__

    def __repr__(self):
        return f"<DAG: {self.dag_id}>"


def timeout(value):
    if value is not None and not isinstance(value, timedelta):
        raise TypeError(f"dagrun_timeout must be a timedelta and is {type(value).__name__}")
    return value


def check_whole_number(name, value):
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 2**31:
        raise ValueError(f"{name} must be a whole number from 0, not {value!r}")
    return value


def check_owner_links(links):
    """Checks the links of owners, as in Airflow: each is a URL, or `mailto:` with an address."""
    import urllib.parse

    links = dict(links or {})
    for owner, link in links.items():
        parts = urllib.parse.urlsplit(link)
        if not (parts.path if parts.scheme == "mailto" else parts.scheme and parts.netloc):
            raise ValueError(f"Wrong link format was used for the owner {owner!r}: {link!r}. Use a valid link")
    return links


def check_tags(tags):
    tags = set(tags or ())
    for tag in tags:
        if not isinstance(tag, str) or not 0 < len(tag) <= 100:
            raise AirflowException(f"tag {tag!r} must be a string of 1 to 100 characters")
    return tags


def defining_module():
    """Returns the file whose top level is running, and its current line: a DAG that a factory function creates belongs
    to the file that calls the factory."""
    frame = sys._getframe(1)
    while frame is not None:
        # Skips code that `exec` runs: it belongs to the file that calls `exec`.
        if frame.f_code.co_name == "<module>" and not frame.f_code.co_filename.startswith((PACKAGE, "<")):
            return frame.f_code.co_filename, frame.f_lineno
        frame = frame.f_back
    return None, 0


def dag(dag_id_or_function="", **arguments) -> Any:
    """`@dag`: each call of the function creates a DAG from the tasks that it defines."""

    def decorate(function):
        import inspect

        @functools.wraps(function)
        def make(*args, **kwargs):
            bound = inspect.signature(function).bind(*args, **kwargs)
            bound.apply_defaults()
            dag_id = arguments.get("dag_id") or (dag_id_or_function if isinstance(dag_id_or_function, str) else "")
            others = {name: value for name, value in arguments.items() if name != "dag_id"}
            if function.__doc__ and not others.get("doc_md"):
                others["doc_md"] = inspect.cleandoc(function.__doc__)
            with DAG(dag_id or function.__name__, **others) as new_dag:
                arguments_by_name = {name: new_dag.param(name, value) for name, value in bound.arguments.items()}
                function(**arguments_by_name)
            return new_dag

        return make

    return decorate(dag_id_or_function) if callable(dag_id_or_function) else decorate


def collect_dags(path: str, module: ModuleType, is_local: Callable[[str], bool]) -> list[DAG]:
    """Collects and checks the DAGs of one file, as Airflow does: those in module variables and those used in a `with`
    block, but not DAGs that another local file defines. Raises AirflowException for a duplicate dag_id."""
    assigned = [value for value in vars(module).values() if isinstance(value, DAG)]
    dags_by_id = {}
    for dag in created_dags:
        is_own = dag.module_file == path or dag.module_file is None or not is_local(dag.module_file)
        if not is_own or not (dag.entered or any(dag is other for other in assigned)):
            continue
        if dags_by_id.setdefault(dag.dag_id, dag) is not dag:
            raise AirflowException(
                f"dag_id {dag.dag_id!r} is used twice, in lines {dags_by_id[dag.dag_id].line} and {dag.line}"
            )
    for dag in dags_by_id.values():
        dag.check()
    return list(dags_by_id.values())

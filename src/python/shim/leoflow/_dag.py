"""DAGs, and how a file's are found."""

import functools
import inspect
import sys
from datetime import datetime, timedelta, timezone

from . import _active
from ._errors import SHIM, AirflowDagCycleException, AirflowException, Unsupported
from ._graph import OnlyNeutral, Operator, check_doc, check_key, duplicate, text_or_none

# In the order they were made.
made = []

NEUTRAL = {
    "user_defined_macros": (None, {}),
    "user_defined_filters": (None, {}),
    "template_searchpath": (None,),
    "template_undefined": None,
    "max_consecutive_failed_dag_runs": (0,),
    "dagrun_timeout": (None,),
    "sla_miss_callback": (None,),
    "on_success_callback": (None, []),
    "on_failure_callback": (None, []),
    "deadline": (None, []),
    "access_control": (None,),
    "jinja_environment_kwargs": (None,),
    "render_template_as_native_obj": (False,),
    "auto_register": (True,),
    "fail_fast": (False,),
    "dag_display_name": (None,),
    "owner_links": None,
    "default_view": None,
    "orientation": None,
    "allowed_run_types": (None,),
    "rerun_with_latest_version": (None, False),
    "disable_bundle_versioning": None,
}


class DAG(OnlyNeutral):
    """<https://airflow.apache.org/docs/apache-airflow/stable/core-concepts/dags.html>"""

    neutral = NEUTRAL

    def __init__(self, dag_id, *, description=None, schedule=None, start_date=None, end_date=None, default_args=None,
                 params=None, tags=None, doc_md=None, catchup=False, max_active_runs=16, max_active_tasks=16,
                 is_paused_upon_creation=None, **others):
        check_key("dag_id", dag_id)
        for name, value in others.items():
            if name not in NEUTRAL:
                raise TypeError(f"DAG got an unexpected keyword argument {name!r}")
            if NEUTRAL[name] is not None and not any(value == one for one in NEUTRAL[name]):
                raise Unsupported(f"{name}={value!r} of a DAG")
        self.dag_id = dag_id
        self.description = text_or_none("description", description)
        self.default_args = dict(default_args or {})
        self.schedule = schedule
        self.schedule_text = schedule_text(schedule)
        self.start_date = moment("start_date", start_date or self.default_args.get("start_date"))
        self.end_date = moment("end_date", end_date or self.default_args.get("end_date"))
        self.default_args.pop("start_date", None)
        self.default_args.pop("end_date", None)
        self.params = plain_params({**self.default_args.pop("params", {}), **(params or {})})
        self.tags = sorted(check_tags(tags))
        self.doc_md = check_doc(doc_md)
        self.catchup = bool(catchup)
        if self.catchup and schedule is not None and self.start_date is None:
            raise ValueError("start_date is required when catchup=True")
        self.max_active_runs = positive("max_active_runs", max_active_runs)
        self.max_active_tasks = positive("max_active_tasks", max_active_tasks)
        self.is_paused_upon_creation = is_paused_upon_creation
        self.task_dict = {}
        # The highest number given to each function that is used again.
        self.last_number = {}
        self.module_file, self.line = defining_module()
        # Whether it was used by `with`, which makes it one of the file's wherever it is kept.
        self.entered = False
        made.append(self)

    @property
    def tasks(self):
        return list(self.task_dict.values())

    @property
    def task_ids(self):
        return list(self.task_dict)

    @property
    def fileloc(self):
        return self.module_file

    def get_task(self, task_id):
        if task_id not in self.task_dict:
            raise AirflowException(f"Task {task_id} not found")
        return self.task_dict[task_id]

    def add_task(self, task):
        if not isinstance(task, Operator):
            raise TypeError(f"{task!r} is not a task")
        if self.task_dict.get(task.task_id, task) is not task:
            raise duplicate(task.task_id)
        if task.dag is not None and task.dag is not self:
            raise AirflowException(f"The DAG assigned to {task!r} can not be changed.")
        task.dag = self
        self.task_dict[task.task_id] = task

    def __enter__(self):
        self.entered = True
        _active.enter_dag(self)
        return self

    def __exit__(self, *_):
        _active.leave_dag()

    def ordered(self):
        """The tasks, each after those it waits for; of several, the one that was written first."""
        waiting = {task.task_id: len(task.upstream_task_ids) for task in self.tasks}
        ready = [task_id for task_id, count in waiting.items() if count == 0]
        order = []
        for task_id in ready:
            order.append(self.task_dict[task_id])
            for down in sorted(self.task_dict[task_id].downstream_task_ids):
                waiting[down] -= 1
                if waiting[down] == 0:
                    ready.append(down)
        if len(order) < len(self.task_dict):
            stuck = next(task for task in self.tasks if waiting[task.task_id])
            raise AirflowDagCycleException(f"Cycle detected in Dag: {self.dag_id}. Faulty task: {stuck.task_id}")
        return order

    def test(self, *_, **__):
        raise Unsupported("DAG.test() inside the file; `leoflow dags test` does it")

    def __repr__(self):
        return f"<DAG: {self.dag_id}>"


def schedule_text(schedule):
    if schedule is None or isinstance(schedule, str):
        return schedule
    if isinstance(schedule, timedelta):
        return str(schedule)
    raise Unsupported(f"a schedule of type {type(schedule).__name__}")


def moment(name, value):
    if value is None:
        return None
    if not isinstance(value, datetime):
        raise TypeError(f"{name} has to be a datetime and is {type(value).__name__}")
    return value if value.tzinfo else value.replace(tzinfo=timezone.utc)


def positive(name, value):
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 2**31:
        raise ValueError(f"{name} has to be a whole number from 0, not {value!r}")
    return value


def check_tags(tags):
    tags = set(tags or ())
    for tag in tags:
        if not isinstance(tag, str) or not 0 < len(tag) <= 100:
            raise AirflowException(f"tag {tag!r} has to be a text of 1 to 100 characters")
    return tags


def plain_params(params):
    from ._values import NotStorable, plain

    for name, value in params.items():
        if not isinstance(name, str):
            raise AirflowException(f"param {name!r} has a name that is no text")
        try:
            plain(value)
        except NotStorable as error:
            raise AirflowException(f"param {name!r} {error}") from None
    return params


def defining_module():
    """The file whose top level was being run when a DAG was made, and the line there: a factory in
    another module makes DAGs for the file that calls it."""
    frame = sys._getframe(1)
    while frame is not None:
        # Code that `exec` runs belongs to the file that runs it.
        if frame.f_code.co_name == "<module>" and not frame.f_code.co_filename.startswith((SHIM, "<")):
            return frame.f_code.co_filename, frame.f_lineno
        frame = frame.f_back
    return None, 0


def dag(dag_id_or_function="", **arguments):
    """`@dag`: the function's tasks become a DAG each time it is called."""

    def decorate(function):
        @functools.wraps(function)
        def make(*args, **kwargs):
            bound = inspect.signature(function).bind(*args, **kwargs)
            bound.apply_defaults()
            if bound.arguments:
                raise Unsupported(f"the parameters of @dag {function.__name__}; params={{…}} of the DAG")
            named = arguments.get("dag_id") or (dag_id_or_function if isinstance(dag_id_or_function, str) else "")
            others = {name: value for name, value in arguments.items() if name != "dag_id"}
            if function.__doc__ and "doc_md" not in others:
                others["doc_md"] = inspect.cleandoc(function.__doc__)
            with DAG(named or function.__name__, **others) as made_dag:
                function()
            return made_dag

        return make

    return decorate(dag_id_or_function) if callable(dag_id_or_function) else decorate


def of_file(path, module, is_local):
    """The DAGs of one file, as Airflow finds them: what its names hold, and what was used by `with`.
    One that another local file made is that file's. Two with one id are an error."""
    named = [value for value in vars(module).values() if isinstance(value, DAG)]
    found = {}
    for one in made:
        is_own = one.module_file == path or one.module_file is None or not is_local(one.module_file)
        if not is_own or not (one.entered or any(one is other for other in named)):
            continue
        if found.setdefault(one.dag_id, one) is not one:
            raise AirflowException(
                f"dag_id {one.dag_id!r} is used twice, in lines {found[one.dag_id].line} and {one.line}"
            )
    for one in found.values():
        for task in one.tasks:
            task.link_arguments()
        one.ordered()
    return list(found.values())

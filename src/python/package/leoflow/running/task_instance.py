"""The DAG run and the task instance of the context."""

import os
from datetime import datetime, timezone

from leoflow.authoring.dag.task_group import MappedTaskGroup
from leoflow.authoring.mapping.xcom_arg import _MISSING, LazyXComSequence
from leoflow.authoring.run_types import DagRunType
from leoflow.common.current import get_current_context
from leoflow.common.dates import parse_time


class DagRun:
    def __init__(self, spec):
        self._spec = spec
        self.dag_id = spec["dag_id"]
        self.run_id = spec["run_id"]
        self.run_type = DagRunType(spec["run_type"])
        self.conf = spec["conf"]
        self.state = "running"
        self.end_date = None
        self.note = spec.get("note")
        self.triggered_by = spec.get("triggered_by")

    def __getattr__(self, name):
        fields = {"logical_date": "logical_date", "data_interval_start": "data_interval_start",
                  "data_interval_end": "data_interval_end", "run_after": "run_after", "start_date": "run_start_date"}
        if name not in fields:
            raise AttributeError(name)
        value = parse_time(self._spec.get(fields[name]))
        setattr(self, name, value)
        return value

    def __repr__(self):
        return f"<DagRun {self.dag_id} {self.run_id}>"


class TaskInstance:
    """The running task instance, as task code sees it."""

    def __init__(self, spec, task, store, server):
        self.task = task
        self.task_id = task.task_id
        self.dag_id = spec["dag_id"]
        self.run_id = spec["run_id"]
        self.map_index = spec["map_index"]
        self.try_number = spec["try_number"]
        self.max_tries = spec["max_tries"]
        # True if the scheduler retries the task after a failure of this try.
        self.may_retry = spec.get("may_retry", False)
        self.start_date = datetime.now(timezone.utc)
        self.end_date = None
        self.state = "running"
        self.operator = task.task_type
        self.hostname = os.uname().nodename
        self.rendered_map_index = None
        self.dag_run = DagRun(spec)
        # Method, and its arguments, with which a deferred task resumes; None for a new try.
        self.next_method = spec.get("next_method")
        self.next_kwargs = spec.get("next_kwargs")
        self.server = server
        self._spec = spec
        self._store = store

    # --- XComs

    def xcom_push(self, key, value):
        self._store.push(key, value)

    def xcom_pull(self, task_ids=None, dag_id=None, key="return_value", include_prior_dates=False, *,
                  map_indexes=_MISSING, default=None, run_id=None, session=None):
        """Returns one value for one task_id (default: this task), and a list of values for several task_ids or map
        indexes, as in Airflow."""
        if not isinstance(key, str):
            raise TypeError(f"an XCom key must be a string, not {key!r}")
        single_task = task_ids is None or isinstance(task_ids, str)
        requested = [task_ids or self.task_id] if single_task else list(task_ids)
        dag_and_run = (dag_id or self.dag_id, run_id or self.run_id)
        if map_indexes is _MISSING:
            rows = self._store.pull(*dag_and_run, requested, key, None, include_prior_dates)
            values = []
            for task_id in requested:
                task_values = [value for row_task_id, _, value in rows if row_task_id == task_id]
                values += task_values or [None]
            return values[0] if single_task and len(values) == 1 else values
        single_index = map_indexes is None or isinstance(map_indexes, int)
        if not single_index and isinstance(map_indexes, (str, bytes)):
            raise TypeError(f"Invalid type for map_indexes: expected int, iterable of ints, or None, got {type(map_indexes).__name__}")
        indexes = [-1 if map_indexes is None else map_indexes] if single_index else list(map_indexes)
        rows = self._store.pull(*dag_and_run, requested, key, indexes, include_prior_dates)
        values_by_instance = {(task_id, index): value for task_id, index, value in rows}
        values = []
        for task_id in requested:
            for index in indexes:
                value = values_by_instance.get((task_id, index))
                values.append(default if value is None else value)
        return values[0] if single_task and single_index else values

    def pull_relevant(self, operator, key):
        """Returns the value of an XComArg: that of the upstream instance in the same copy of a mapped group, else the
        values of all its instances. `_MISSING` if there is no XCom."""
        indexes = [-1]
        in_group = operator.task_group is not None and next(operator.task_group.mapped_ancestors(), None) is not None
        if operator.is_mapped:
            indexes = None
        elif in_group:
            indexes = self.common_index(operator)
            indexes = None if indexes is None else [indexes]
        rows = self._store.pull(self.dag_id, self.run_id, [operator.task_id], key, indexes, False)
        values = [value for _, _, value in rows]
        if operator.is_mapped:
            return LazyXComSequence(values)
        if indexes is None and len(values) > 1:
            return values
        return values[0] if values else _MISSING

    def common_index(self, operator):
        """Returns the index of this instance's copy of the innermost mapped group that also contains the operator; None
        if there is no such group."""
        own_groups = list(self.task.task_group.mapped_ancestors()) if self.task.task_group else []
        operator_groups = list(operator.task_group.mapped_ancestors()) if operator.task_group else []
        common = next((group for group in own_groups if any(group is other for other in operator_groups)), None)
        if common is None:
            return None
        return self.map_index // self.copies_inside(own_groups, common)

    def copies_inside(self, own_groups, group):
        """Returns the number of instances of this task per copy of the group."""
        copies = 1
        for ancestor in own_groups:
            if ancestor is group:
                break
            copies *= self.group_length(ancestor)
        return copies

    def group_map_index(self, expand_input):
        """Returns the index of this instance's element in the input of its mapped group."""
        own_groups = list(self.task.task_group.mapped_ancestors()) if self.task.task_group else []
        group = next((ancestor for ancestor in own_groups if ancestor.expand_input is expand_input), None)
        if group is None:
            raise RuntimeError("an argument of a mapped task group is used outside the group")
        return self.map_index // self.copies_inside(own_groups, group) % self.group_length(group)

    def group_length(self, group):
        assert isinstance(group, MappedTaskGroup)
        return self.server.length(group.expand_input.length())

    # --- the run

    def first_start(self):
        """Returns the time of the first start of this try; a rescheduled sensor starts several times."""
        first = self._spec.get("first_start_date")
        return datetime.fromisoformat(first.replace("Z", "+00:00")) if first else datetime.now(timezone.utc)

    def has_waited(self):
        """True if this try began before its process: it is a rescheduled sensor, or the scheduler waited in its
        place."""
        return self._spec.get("first_start_date") is not None

    def is_latest_run(self):
        return self.server.is_latest_run()

    def render_templates(self, task=None, context=None):
        """Renders the template fields again, after the task has changed them."""
        task = task or self.task
        task.render_template_fields(context or get_current_context())
        return task

    def get_template_context(self):
        return get_current_context()

    def get_dagrun(self):
        return self.dag_run

    @property
    def log_url(self):
        """URL of this try's page, in Airflow's form."""
        from urllib.parse import quote

        base = os.environ.get("AIRFLOW__API__BASE_URL", "http://localhost:8088").rstrip("/")
        instance = f"/mapped/{self.map_index}" if self.map_index >= 0 else ""
        attempt = f"?try_number={self.try_number}" if self.try_number > 0 else ""
        return f"{base}/dags/{self.dag_id}/runs/{quote(self.run_id)}/tasks/{self.task_id}{instance}{attempt}"

    mark_success_url = log_url

    @property
    def key(self):
        return (self.dag_id, self.task_id, self.run_id, self.try_number, self.map_index)

    def airflow_environment(self):
        """Returns the variables that Airflow sets for a task."""
        variables = {
            "AIRFLOW_CTX_DAG_OWNER": self.task.owner,
            "AIRFLOW_CTX_DAG_ID": self.dag_id,
            "AIRFLOW_CTX_TASK_ID": self.task_id,
            "AIRFLOW_CTX_TRY_NUMBER": str(self.try_number),
            "AIRFLOW_CTX_DAG_RUN_ID": self.run_id,
        }
        if self._spec.get("logical_date") is not None:
            date = datetime.fromisoformat(self._spec["logical_date"].replace("Z", "+00:00"))
            variables["AIRFLOW_CTX_LOGICAL_DATE"] = date.isoformat()
        return variables

    def __repr__(self):
        return f"<TaskInstance: {self.dag_id}.{self.task_id} {self.run_id}>"

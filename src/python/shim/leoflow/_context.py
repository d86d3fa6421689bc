"""What a running task can ask about itself.

<https://airflow.apache.org/docs/apache-airflow/stable/templates-ref.html>
"""

import os
from datetime import datetime, timezone

from . import _active
from ._errors import AirflowNotFoundException, AirflowRuntimeError
from ._groups import MappedTaskGroup
from ._time import parse_time
from ._types import DagRunType
from ._xcomarg import _MISSING, LazyXComSequence

CONTEXT_KEYS = frozenset(
    """
    asset_state_store conn dag dag_run data_interval_end data_interval_start ds ds_nodash exception expanded_ti_count
    inlet_events inlets logical_date macros map_index_template outlet_events outlets params partition_date
    partition_key prev_data_interval_end_success prev_data_interval_start_success prev_end_date_success
    prev_start_date_success reason run_id task task_instance task_instance_key_str task_reschedule_count
    task_state_store templates_dict test_mode ti triggering_asset_events try_number ts ts_nodash ts_nodash_with_tz var
    """.split()
)


def get_current_context():
    """The context of the task that runs; an error anywhere else."""
    context = _active.context()
    if context is None:
        raise RuntimeError(
            "Current context was requested but no context was found! Are you running within an Airflow task?"
        )
    return context


class Context(dict):
    """A dict of which some values are worked out when they are looked at: importing pendulum and
    asking the server take longer than most tasks."""

    def __init__(self, ready, later):
        super().__init__(ready)
        self._later = later

    def __missing__(self, key):
        make = self._later.pop(key)
        self[key] = value = make()
        return value

    def __contains__(self, key):
        return dict.__contains__(self, key) or key in self._later

    def __iter__(self):
        return iter([*dict.__iter__(self), *self._later])

    def __len__(self):
        return dict.__len__(self) + len(self._later)

    def get(self, key, default=None):
        return self[key] if key in self else default

    def keys(self):
        return list(self)

    def values(self):
        return [self[key] for key in self]

    def items(self):
        return [(key, self[key]) for key in self]

    def whole(self):
        """All of it, as a plain dict."""
        return dict(self.items())

    def copy(self):
        return Context(dict(dict.items(self)), dict(self._later))

    def update(self, *args, **kwargs):
        for key, value in dict(*args, **kwargs).items():
            self[key] = value


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
        places = {"logical_date": "logical_date", "data_interval_start": "data_interval_start",
                  "data_interval_end": "data_interval_end", "run_after": "run_after", "start_date": "run_start_date"}
        if name not in places:
            raise AttributeError(name)
        value = parse_time(self._spec.get(places[name]))
        setattr(self, name, value)
        return value

    def __repr__(self):
        return f"<DagRun {self.dag_id} {self.run_id}>"


class TaskInstance:
    """The task that runs, as its own code sees it."""

    def __init__(self, spec, task, store, server):
        self.task = task
        self.task_id = task.task_id
        self.dag_id = spec["dag_id"]
        self.run_id = spec["run_id"]
        self.map_index = spec["map_index"]
        self.try_number = spec["try_number"]
        self.max_tries = spec["max_tries"]
        self.start_date = datetime.now(timezone.utc)
        self.end_date = None
        self.state = "running"
        self.operator = task.task_type
        self.hostname = os.uname().nodename
        self.rendered_map_index = None
        self.dag_run = DagRun(spec)
        self.server = server
        self._spec = spec
        self._store = store

    # --- XComs

    def xcom_push(self, key, value):
        self._store.push(key, value)

    def xcom_pull(self, task_ids=None, dag_id=None, key="return_value", include_prior_dates=False, *,
                  map_indexes=_MISSING, default=None, run_id=None, session=None):
        """One value for one task_id (or none, which means this task's own), a list for a list of them."""
        if not isinstance(key, str):
            raise TypeError(f"an XCom's key is a text, not {key!r}")
        one = task_ids is None or isinstance(task_ids, str)
        wanted = [task_ids or self.task_id] if one else list(task_ids)
        place = (dag_id or self.dag_id, run_id or self.run_id)
        if map_indexes is _MISSING:
            found = self._store.pull(*place, wanted, key, None, include_prior_dates)
            values = []
            for task_id in wanted:
                own = [value for other, _, value in found if other == task_id]
                values += own or [None]
            return values[0] if one and len(values) == 1 else values
        single = map_indexes is None or isinstance(map_indexes, int)
        if not single and isinstance(map_indexes, (str, bytes)):
            raise TypeError(f"Invalid type for map_indexes: expected int, iterable of ints, or None, got {type(map_indexes).__name__}")
        indexes = [-1 if map_indexes is None else map_indexes] if single else list(map_indexes)
        rows = self._store.pull(*place, wanted, key, indexes, include_prior_dates)
        found = {(task_id, index): value for task_id, index, value in rows}
        values = []
        for task_id in wanted:
            for index in indexes:
                value = found.get((task_id, index))
                values.append(default if value is None else value)
        return values[0] if one and single else values

    def pull_relevant(self, operator, key):
        """What an argument stands for: of an instance of the same copy of a group, or of all instances."""
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
        """The index there of the copy of the innermost mapped group that both are in; None without one."""
        own = list(self.task.task_group.mapped_ancestors()) if self.task.task_group else []
        theirs = list(operator.task_group.mapped_ancestors()) if operator.task_group else []
        common = next((one for one in own if any(one is other for other in theirs)), None)
        if common is None:
            return None
        return self.map_index // self.copies_inside(own, common)

    def copies_inside(self, own, group):
        """How many instances of this task there are for one copy of the group."""
        whole = 1
        for one in own:
            if one is group:
                break
            whole *= self.group_length(one)
        return whole

    def group_map_index(self, expand_input):
        """Which element of a group's input this instance is for."""
        own = list(self.task.task_group.mapped_ancestors()) if self.task.task_group else []
        group = next((one for one in own if one.expand_input is expand_input), None)
        if group is None:
            raise RuntimeError("an argument of a mapped task group is used outside of it")
        return self.map_index // self.copies_inside(own, group) % self.group_length(group)

    def group_length(self, group):
        assert isinstance(group, MappedTaskGroup)
        return self.server.length(group.expand_input.length())

    # --- the run

    def first_start(self):
        """When this try began for the first time: a sensor that is rescheduled begins often."""
        first = self._spec.get("first_start_date")
        return datetime.fromisoformat(first.replace("Z", "+00:00")) if first else datetime.now(timezone.utc)

    def is_latest_run(self):
        return self.server.is_latest_run()

    def render_templates(self, task=None, context=None):
        """Renders once more, for what was made up while the task ran."""
        task = task or self.task
        task.render_template_fields(context or get_current_context())
        return task

    def get_template_context(self):
        return get_current_context()

    def get_dagrun(self):
        return self.dag_run

    @property
    def log_url(self):
        return ""

    @property
    def key(self):
        return (self.dag_id, self.task_id, self.run_id, self.try_number, self.map_index)

    def airflow_environment(self):
        """What Airflow puts into a task's environment."""
        described = {
            "AIRFLOW_CTX_DAG_OWNER": self.task.owner,
            "AIRFLOW_CTX_DAG_ID": self.dag_id,
            "AIRFLOW_CTX_TASK_ID": self.task_id,
            "AIRFLOW_CTX_TRY_NUMBER": str(self.try_number),
            "AIRFLOW_CTX_DAG_RUN_ID": self.run_id,
        }
        if self._spec.get("logical_date") is not None:
            date = datetime.fromisoformat(self._spec["logical_date"].replace("Z", "+00:00"))
            described["AIRFLOW_CTX_LOGICAL_DATE"] = date.isoformat()
        return described

    def __repr__(self):
        return f"<TaskInstance: {self.dag_id}.{self.task_id} {self.run_id}>"


class Variables:
    """`var.value.x`, `var.json.x`."""

    def __init__(self, as_json):
        self._as_json = as_json

    def __getattr__(self, key):
        from ._stores import Variable

        if key.startswith("__"):
            raise AttributeError(key)
        return Variable.get(key, deserialize_json=self._as_json)

    def get(self, key, default=_MISSING):
        try:
            return getattr(self, key)
        except AirflowRuntimeError:
            if default is _MISSING:
                raise
            return default


class Vars:
    value = Variables(False)
    json = Variables(True)


class Connections:
    """`conn.x`."""

    def __getattr__(self, conn_id):
        from ._hooks import BaseHook

        if conn_id.startswith("__"):
            raise AttributeError(conn_id)
        return BaseHook.get_connection(conn_id)

    def get(self, conn_id, default_conn=None):
        try:
            return getattr(self, conn_id)
        except AirflowNotFoundException:
            return default_conn


def merged_params(dag, task, conf):
    """Defaults of the DAG, then of the task, then what the run was started with: all of it, as in Airflow."""
    from ._params import Param, ParamsDict

    whole = {name: dag.params.get_param(name) for name in dag.params}
    for name, value in task.own_params.items():
        whole[name] = value if isinstance(value, Param) else Param(value)
    found = ParamsDict(whole)
    return {**{name: conf[name] if name in conf else found[name] for name in found}, **conf}


def macros():
    from . import _macros

    return _macros


def build(spec, dag, task, store, server):
    ti = TaskInstance(spec, task, store, server)
    run = ti.dag_run
    from ._assets import OutletEvents

    ready = {
        "dag": dag,
        "dag_run": run,
        "run_id": run.run_id,
        "ti": ti,
        "task_instance": ti,
        "task": task,
        "params": merged_params(dag, task, run.conf),
        "inlets": task.inlets,
        "outlets": task.outlets,
        "outlet_events": OutletEvents(task.outlets),
        "map_index_template": task.map_index_template,
        "task_instance_key_str": f"{dag.dag_id}__{task.task_id}__{run.run_id}",
        "task_reschedule_count": spec.get("reschedules", 0),
        "partition_key": None,
        "partition_date": None,
        "var": Vars(),
        "conn": Connections(),
    }
    previous = {
        "prev_data_interval_start_success": "data_interval_start",
        "prev_data_interval_end_success": "data_interval_end",
        "prev_start_date_success": "start_date",
        "prev_end_date_success": "end_date",
    }
    later = {name: lambda place=place: parse_time(server.previous().get(place)) for name, place in previous.items()}
    later["macros"] = macros
    later["inlet_events"] = lambda: server.inlet_events(task.inlets)
    later["triggering_asset_events"] = lambda: server.triggering_events()
    if spec.get("logical_date") is None:
        # A run that is of no date has none of them, as in Airflow.
        for name in ("prev_data_interval_start_success", "prev_data_interval_end_success"):
            del later[name]
        return Context(ready, later)
    date = datetime.fromisoformat(spec["logical_date"].replace("Z", "+00:00")).astimezone(timezone.utc)
    stamp = date.isoformat()
    ready.update(
        task_instance_key_str=f"{dag.dag_id}__{task.task_id}__{date.strftime('%Y%m%d')}",
        ds=date.strftime("%Y-%m-%d"),
        ds_nodash=date.strftime("%Y%m%d"),
        ts=stamp,
        ts_nodash=date.strftime("%Y%m%dT%H%M%S"),
        ts_nodash_with_tz=stamp.replace("-", "").replace(":", ""),
    )
    for name in ("logical_date", "data_interval_start", "data_interval_end"):
        later[name] = lambda name=name: getattr(run, name)
    return Context(ready, later)

"""What a running task can ask about itself.

<https://airflow.apache.org/docs/apache-airflow/stable/templates-ref.html>
"""

from __future__ import annotations

from datetime import datetime, timezone

from leoflow.authoring.xcom_arg import _MISSING
from leoflow.common.dates import parse_time
from leoflow.common.exceptions import AirflowNotFoundException, AirflowRuntimeError
from leoflow.running.task_instance import TaskInstance

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from leoflow.authoring.abstract_operator import AbstractOperator
    from leoflow.authoring.dag import DAG
    from leoflow.running.offline import Memory
    from leoflow.running.task_api import TaskApi
    from leoflow.running.xcoms import TaskXComs


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


class Variables:
    """`var.value.x`, `var.json.x`."""

    def __init__(self, as_json):
        self._as_json = as_json

    def __getattr__(self, key):
        from leoflow.authoring.variable import Variable

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
        from leoflow.authoring.hooks import BaseHook

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
    from leoflow.authoring.params import Param, ParamsDict

    whole = {name: dag.params.get_param(name) for name in dag.params}
    for name, value in task.own_params.items():
        whole[name] = value if isinstance(value, Param) else Param(value)
    found = ParamsDict(whole)
    return {**{name: conf[name] if name in conf else found[name] for name in found}, **conf}


def macros():
    from leoflow.authoring import macros

    return macros


def task_state(server):
    from leoflow.running.state_stores import TaskStateStore

    return TaskStateStore(server)


def asset_state(task, server):
    from leoflow.running.state_stores import AssetStateStores

    return AssetStateStores(task.inlets, task.outlets, server)


def build_context(spec: dict[str, Any], dag: DAG, task: AbstractOperator, store: TaskXComs | Memory, server: TaskApi) -> Context:
    ti = TaskInstance(spec, task, store, server)
    run = ti.dag_run
    from leoflow.authoring.assets import OutletEvents

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
        "partition_key": spec.get("partition_key"),
        "partition_date": parse_time(spec.get("partition_date")),
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
    later["task_state_store"] = lambda: task_state(server)
    if task.inlets or task.outlets:
        later["asset_state_store"] = lambda: asset_state(task, server)
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

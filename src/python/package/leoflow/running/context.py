"""The context of a running task.

<https://airflow.apache.org/docs/apache-airflow/stable/templates-ref.html>
"""

from __future__ import annotations

from datetime import datetime, timezone

from leoflow.authoring.assets.outlet_events import OutletEvents
from leoflow.authoring.dag.params import Param, ParamsDict
from leoflow.authoring.mapping.xcom_arg import _MISSING
from leoflow.common.dates import parse_time, template_dates
from leoflow.common.exceptions import AirflowNotFoundException, AirflowRuntimeError
from leoflow.running.task_instance import TaskInstance

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from leoflow.authoring.dag.dag import DAG
    from leoflow.authoring.operators.abstract_operator import AbstractOperator
    from leoflow.running.offline import InMemoryXComs
    from leoflow.running.task_api import TaskApi
    from leoflow.running.xcoms import TaskXComs


class Context(dict):
    """A dict whose `lazy` values are computed on access, because importing pendulum and requests to the server take
    longer than most tasks."""

    def __init__(self, ready, lazy):
        super().__init__(ready)
        self._lazy = lazy

    def __missing__(self, key):
        self[key] = value = self._lazy[key]()
        self._lazy.pop(key, None)
        return value

    def __contains__(self, key):
        return dict.__contains__(self, key) or key in self._lazy

    def __iter__(self):
        return iter([*dict.__iter__(self), *self._lazy])

    def __len__(self):
        return dict.__len__(self) + len(self._lazy)

    def get(self, key, default=None):
        return self[key] if key in self else default

    def keys(self):
        return list(self)

    def values(self):
        return [self[key] for key in self]

    def items(self):
        return [(key, self[key]) for key in self]

    def copy(self):
        return Context(dict(dict.items(self)), dict(self._lazy))

    def update(self, *args, **kwargs):
        for key, value in dict(*args, **kwargs).items():
            self[key] = value


class Variables:
    """`var.value` or `var.json` in templates: reads the Variable `x` as attribute `x`."""

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
    """`conn` in templates: reads the Connection `x` as attribute `x`."""

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
    """Merges the params of the DAG, those of the task and the run's conf, in ascending precedence. As in Airflow, conf
    may add params."""
    params = {name: dag.params.get_param(name) for name in dag.params}
    for name, value in task.own_params.items():
        params[name] = value if isinstance(value, Param) else Param(value)
    resolved = ParamsDict(params)
    return {**{name: conf[name] if name in conf else resolved[name] for name in resolved}, **conf}


def macros():
    from leoflow.authoring import macros

    return macros


def task_state(server):
    from leoflow.running.state_stores import TaskStateStore

    return TaskStateStore(server)


def asset_state(task, server):
    from leoflow.running.state_stores import AssetStateStores

    return AssetStateStores(task.inlets, task.outlets, server)


# Returns keys in addition to those of Airflow 3.
other_keys: Callable[[Context], dict[str, Any]] | None = None


def build_context(spec: dict[str, Any], dag: DAG, task: AbstractOperator, store: TaskXComs | InMemoryXComs,
                  server: TaskApi) -> Context:
    context = context_of_airflow_3(spec, dag, task, store, server)
    if other_keys is not None:
        context.update(other_keys(context))
    return context


def context_of_airflow_3(spec, dag, task, store, server):
    ti = TaskInstance(spec, task, store, server)
    run = ti.dag_run
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
    lazy = {name: lambda field=field: parse_time(server.previous().get(field)) for name, field in previous.items()}
    lazy["macros"] = macros
    lazy["task_state_store"] = lambda: task_state(server)
    if task.inlets or task.outlets:
        lazy["asset_state_store"] = lambda: asset_state(task, server)
    lazy["inlet_events"] = lambda: server.inlet_events(task.inlets)
    lazy["triggering_asset_events"] = lambda: server.triggering_events()
    if spec.get("logical_date") is None:
        # A run without a logical date has no data intervals, as in Airflow.
        for name in ("prev_data_interval_start_success", "prev_data_interval_end_success"):
            del lazy[name]
        return Context(ready, lazy)
    date = datetime.fromisoformat(spec["logical_date"].replace("Z", "+00:00")).astimezone(timezone.utc)
    ready.update(task_instance_key_str=f"{dag.dag_id}__{task.task_id}__{date.strftime('%Y%m%d')}", **template_dates(date))
    for name in ("logical_date", "data_interval_start", "data_interval_end"):
        lazy[name] = lambda name=name: getattr(run, name)
    return Context(ready, lazy)

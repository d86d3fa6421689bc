"""What a running task can ask about itself."""

import os
from datetime import datetime, timezone

from . import _active
from ._errors import Unsupported

# <https://airflow.apache.org/docs/apache-airflow/stable/templates-ref.html>
CONTEXT_KEYS = frozenset(
    """
    conn dag dag_run data_interval_end data_interval_start ds ds_nodash exception expanded_ti_count inlet_events
    inlets logical_date macros map_index_template outlet_events outlets params prev_data_interval_end_success
    prev_data_interval_start_success prev_end_date_success prev_start_date_success reason run_id task task_instance
    task_instance_key_str task_reschedule_count templates_dict test_mode ti triggering_asset_events try_number
    ts ts_nodash ts_nodash_with_tz var
    """.split()
)
# Airflow has them in every run; Leoflow does not.
NOT_HERE = frozenset(
    """
    conn inlet_events macros outlet_events prev_data_interval_end_success prev_data_interval_start_success
    prev_end_date_success prev_start_date_success task_reschedule_count triggering_asset_events var
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


class NotHere:
    """A part of the context that Airflow has and Leoflow has not: said when it is used, not before."""

    def __init__(self, key):
        object.__setattr__(self, "_key", key)

    def _refuse(self, *_):
        raise Unsupported(f"context[{object.__getattribute__(self, '_key')!r}]")

    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)
        self._refuse()

    __getitem__ = __call__ = __iter__ = __bool__ = __len__ = __setattr__ = _refuse

    def __repr__(self):
        return f"<not supported by Leoflow: {object.__getattribute__(self, '_key')}>"


def parse_time(text):
    return None if text is None else datetime.fromisoformat(text.replace("Z", "+00:00"))


class DagRun:
    def __init__(self, spec):
        self.dag_id = spec["dag_id"]
        self.run_id = spec["run_id"]
        self.run_type = spec["run_type"]
        self.conf = spec["conf"]
        self.state = "running"
        self.logical_date = parse_time(spec.get("logical_date"))
        self.data_interval_start = parse_time(spec.get("data_interval_start"))
        self.data_interval_end = parse_time(spec.get("data_interval_end"))
        self.run_after = parse_time(spec.get("run_after"))
        self.start_date = parse_time(spec.get("run_start_date"))
        self.end_date = None

    def __repr__(self):
        return f"<DagRun {self.dag_id} {self.run_id}>"


class TaskInstance:
    """The task that runs, as its own code sees it."""

    def __init__(self, spec, task, store):
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
        self.operator = type(task).__name__
        self.hostname = os.uname().nodename
        self.dag_run = DagRun(spec)
        self._store = store

    def xcom_push(self, key, value):
        self._store.push(key, value)

    def xcom_pull(self, task_ids=None, dag_id=None, key="return_value", include_prior_dates=False, *, map_indexes=None,
                  default=None, run_id=None, session=None):
        """One value for one task_id (or none, which means this task's own), a list for a list of them."""
        if include_prior_dates:
            raise Unsupported("include_prior_dates")
        if map_indexes not in (None, -1):
            raise Unsupported("map_indexes")
        one = task_ids is None or isinstance(task_ids, str)
        wanted = [task_ids or self.task_id] if one else list(task_ids)
        if not isinstance(key, str):
            raise TypeError(f"an XCom's key is a text, not {key!r}")
        found = self._store.pull(dag_id or self.dag_id, run_id or self.run_id, wanted, key)
        # As in Airflow, which looks at the default only where map_indexes is given.
        missing = default if map_indexes == -1 else None
        values = [missing if found.get(task_id) is None else found[task_id] for task_id in wanted]
        return values[0] if one else values

    def airflow_environment(self):
        """What Airflow puts into a task's environment."""
        described = {
            "AIRFLOW_CTX_DAG_OWNER": self.task.owner,
            "AIRFLOW_CTX_DAG_ID": self.dag_id,
            "AIRFLOW_CTX_TASK_ID": self.task_id,
            "AIRFLOW_CTX_TRY_NUMBER": str(self.try_number),
            "AIRFLOW_CTX_DAG_RUN_ID": self.run_id,
        }
        if self.dag_run.logical_date is not None:
            described["AIRFLOW_CTX_LOGICAL_DATE"] = self.dag_run.logical_date.isoformat()
        return described

    def __repr__(self):
        return f"<TaskInstance: {self.dag_id}.{self.task_id} {self.run_id}>"


def merged_params(dag, task, conf):
    """Defaults of the DAG, then of the task, then what the run was started with: all of it, as in Airflow."""
    return {**dag.params, **task.params, **conf}


def build(spec, dag, task, store):
    ti = TaskInstance(spec, task, store)
    run = ti.dag_run
    context = {key: NotHere(key) for key in NOT_HERE}
    context.update(
        dag=dag,
        dag_run=run,
        run_id=run.run_id,
        ti=ti,
        task_instance=ti,
        task=task,
        params=merged_params(dag, task, run.conf),
        inlets=[],
        outlets=[],
        map_index_template=None,
        task_instance_key_str=f"{dag.dag_id}__{task.task_id}__{run.run_id}",
        templates_dict=None,
    )
    if run.logical_date is not None:
        stamp = run.logical_date.isoformat()
        context.update(
            logical_date=run.logical_date,
            data_interval_start=run.data_interval_start,
            data_interval_end=run.data_interval_end,
            task_instance_key_str=f"{dag.dag_id}__{task.task_id}__{run.logical_date.strftime('%Y%m%d')}",
            ds=run.logical_date.strftime("%Y-%m-%d"),
            ds_nodash=run.logical_date.strftime("%Y%m%d"),
            ts=stamp,
            ts_nodash=run.logical_date.strftime("%Y%m%dT%H%M%S"),
            ts_nodash_with_tz=stamp.replace("-", "").replace(":", ""),
        )
    return context


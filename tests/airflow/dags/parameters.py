"""Params, a conf that overrides one, and the context of a task."""

from airflow.providers.standard.operators.bash import BashOperator
from airflow.providers.standard.operators.python import PythonOperator
from airflow.sdk import DAG, get_current_context, task


def show_context(ti, task, dag, run_id, dag_run, params):
    return {
        "ids": [ti.dag_id, ti.task_id, task.task_id, dag.dag_id],
        "same_run": ti.run_id == run_id == dag_run.run_id,
        "run_id_starts": run_id.split("__")[0],
        "run_type": str(getattr(dag_run.run_type, "value", dag_run.run_type)),
        "conf": dag_run.conf,
        "params": dict(params),
        "map_index": ti.map_index,
        "try_number": ti.try_number,
    }


# A run that is triggered manually has no logical date, so the context lacks these keys.
def dates(ds=None, ts=None, logical_date=None, data_interval_start=None, data_interval_end=None, **context):
    names = ("ds", "ds_nodash", "ts", "ts_nodash", "logical_date", "data_interval_start", "data_interval_end")
    whole = get_current_context()
    return {
        "none": [value is None for value in (ds, ts, logical_date, data_interval_start, data_interval_end)],
        "in_context": [name for name in names if name in whole],
        "dag_run": [context["dag_run"].logical_date is None, context["dag_run"].run_after is not None],
    }


def takes_all(*args, **context):
    names = ("dag", "dag_run", "params", "run_id", "task", "task_instance", "task_instance_key_str", "ti", "own", "conf")
    same = context["ti"] is context["task_instance"]
    return {"args": list(args), "has": [name for name in names if name in context], "same": same, "own": context["own"]}


with DAG(
    dag_id="parameters",
    schedule=None,
    params={"text": "default", "number": 1, "list": [1, 2], "nothing": None, "untouched": {"a": {"b": 1}}},
):
    PythonOperator(task_id="told", python_callable=show_context)
    PythonOperator(task_id="dates", python_callable=dates)
    PythonOperator(task_id="takes_all", python_callable=takes_all, op_args=["positional"], op_kwargs={"own": "argument"})
    # A task's own params are merged with those of the DAG; conf overrides both.
    PythonOperator(task_id="own_params", python_callable=lambda params: dict(params), params={"text": "of the task", "list": [9], "more": True})

    @task
    def current():
        context = get_current_context()
        return {"params": dict(context["params"]), "text": context["params"]["text"], "task_id": context["ti"].task_id}

    @task
    def given(value, params=None, ti=None, run_id=None):
        return [value, params["number"], ti.task_id, run_id == ti.run_id]

    # `value` is no context key, so it keeps its default; `ds` is one.
    @task
    def keeps_default(value="default", ds=None):
        return [value, ds]

    current()
    given("value")
    keeps_default()
    BashOperator(task_id="bash_context", bash_command='echo "$AIRFLOW_CTX_DAG_ID $AIRFLOW_CTX_TASK_ID $AIRFLOW_CTX_TRY_NUMBER $AIRFLOW_CTX_DAG_OWNER [${AIRFLOW_CTX_LOGICAL_DATE-unset}] ${AIRFLOW_CTX_DAG_RUN_ID%%__*}"')

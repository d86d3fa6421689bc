"""Params with schemas, of the DAG and of a task."""

from airflow.sdk import DAG, Param, dag, task

with DAG(
    "params_schema",
    schedule=None,
    params={
        "number": Param(5, type="integer", minimum=0, maximum=10),
        "choice": Param("a", enum=["a", "b"]),
        "optional": Param(None, type=["null", "string"]),
        "plain": 3,
    },
):

    @task
    def all_of_them(params):
        return dict(params)

    @task(params={"own": Param("mine", type="string"), "number": 6})
    def own(params):
        return dict(params)

    all_of_them(), own()

"""Parameters of a @dag function."""

from airflow.sdk import dag, task


@dag(dag_id="dag_arguments", schedule=None, params={"other": "o"})
def flow(name="world", times: int = 2):
    @task
    def greet(who, n, params):
        return [who * n, dict(params)]

    greet(name, times)


flow()

"""Task groups: ids, nesting, edges between groups, default arguments."""

from airflow.providers.standard.operators.empty import EmptyOperator
from airflow.sdk import DAG, TaskGroup, task, task_group

with DAG("groups", schedule=None, default_args={"retries": 1, "retry_delay": 0}):
    start = EmptyOperator(task_id="start")
    with TaskGroup("outer", default_args={"retries": 2}) as outer:
        first = EmptyOperator(task_id="first")
        with TaskGroup("inner") as inner:
            a, b = EmptyOperator(task_id="a"), EmptyOperator(task_id="b")
            a >> b
        with TaskGroup("plain", prefix_group_id=False) as plain:
            EmptyOperator(task_id="no_prefix")
        first >> inner

    @task
    def number(ti):
        return ti.max_tries

    @task_group
    def pair(value):
        @task
        def twice(x):
            return 2 * x

        return twice(value)

    @task
    def add(x, y):
        return x + y

    with TaskGroup("empty") as empty:
        pass
    end = EmptyOperator(task_id="end")
    start >> outer >> end
    with outer:
        tries = number()
    total = add(pair(tries), pair(3))
    end >> total
    start >> empty >> EmptyOperator(task_id="after_empty")

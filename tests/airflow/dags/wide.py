"""A graph of typical size, with two tasks running at a time."""

from airflow.providers.standard.operators.bash import BashOperator
from airflow.providers.standard.operators.empty import EmptyOperator
from airflow.sdk import DAG, chain, task

with DAG(dag_id="wide", schedule=None, max_active_tasks=2, tags=["wide"], description="Extract, transform, load."):
    start = EmptyOperator(task_id="start")

    @task
    def extract(source):
        return {"source": source, "rows": [source * 10 + row for row in range(3)]}

    @task
    def transform(extracted):
        return sum(extracted["rows"])

    @task
    def load(total, name):
        return f"{name}={total}"

    @task
    def report(loaded):
        return " ".join(loaded)

    loaded = []
    for source in range(6):
        extracted = extract(source)
        start >> extracted
        loaded.append(load(transform(extracted), name=f"table_{source}"))

    checks = [BashOperator(task_id=f"check_{number}", bash_command=f"echo checked {number}") for number in range(3)]
    reported = report(loaded)
    chain(reported, checks, EmptyOperator(task_id="end"))

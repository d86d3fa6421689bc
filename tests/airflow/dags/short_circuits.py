"""Short circuits that are closed or open, and the tasks they skip."""

from airflow.providers.standard.operators.empty import EmptyOperator
from airflow.providers.standard.operators.python import ShortCircuitOperator
from airflow.sdk import DAG, task

with DAG("short_circuits", schedule=None):
    closed = ShortCircuitOperator(task_id="closed", python_callable=lambda: False)
    a, b = EmptyOperator(task_id="a"), EmptyOperator(task_id="b", trigger_rule="all_done")
    closed >> a >> b
    opened = ShortCircuitOperator(task_id="opened", python_callable=lambda: "yes")
    opened >> EmptyOperator(task_id="c")
    direct = ShortCircuitOperator(
        task_id="direct", python_callable=lambda: None, ignore_downstream_trigger_rules=False
    )
    d, e = EmptyOperator(task_id="d"), EmptyOperator(task_id="e", trigger_rule="all_done")
    direct >> d >> e

    @task.short_circuit
    def decorated():
        return 0

    @task
    def after():
        return 1

    decorated() >> after()
    ShortCircuitOperator(task_id="alone", python_callable=lambda: False)

"""Skipped tasks in a run that succeeds."""

# The older import path, which DAGs still use.
from airflow.exceptions import AirflowSkipException
from airflow.providers.standard.operators.bash import BashOperator
from airflow.providers.standard.operators.empty import EmptyOperator
from airflow.sdk import DAG, task

with DAG(dag_id="skips", schedule=None):
    start = EmptyOperator(task_id="start")
    end = EmptyOperator(task_id="end")

    @task(retries=1)
    def skips(ti=None):
        ti.xcom_push(key="before", value="skipping")
        raise AirflowSkipException("not today")

    @task
    def runs():
        return "ran"

    @task
    def takes(value):
        return [value]

    bash_skips = BashOperator(task_id="bash_skips", bash_command="echo skipping; exit 99")
    bash_skips_at_3 = BashOperator(task_id="bash_skips_at_3", bash_command="exit 3", skip_on_exit_code=3)
    bash_skips_at_either = BashOperator(task_id="bash_skips_at_either", bash_command="exit 5", skip_on_exit_code=[4, 5])

    skipped = skips()
    ran = runs()
    start >> [skipped, ran, bash_skips, bash_skips_at_3, bash_skips_at_either]
    # The value of a skipped task is never pulled.
    takes(skipped) >> EmptyOperator(task_id="second_level") >> EmptyOperator(task_id="third_level")
    takes(ran) >> EmptyOperator(task_id="goes_on")
    [skipped, ran] >> EmptyOperator(task_id="after_one_of_each")
    [bash_skips, bash_skips_at_3, bash_skips_at_either] >> end

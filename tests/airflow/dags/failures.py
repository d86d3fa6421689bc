"""One branch fails in several ways, another continues."""

from datetime import timedelta

from airflow.exceptions import AirflowException
from airflow.providers.standard.operators.bash import BashOperator
from airflow.providers.standard.operators.empty import EmptyOperator
from airflow.providers.standard.operators.python import PythonOperator
from airflow.sdk import DAG, task


class NoJson:
    pass


with DAG(dag_id="failures", schedule=None, default_args={"retries": 0}):
    start = EmptyOperator(task_id="start")

    # The branch that continues.
    steps = [BashOperator(task_id=f"step_{number}", bash_command=f"echo step {number}") for number in range(1, 5)]
    start >> steps[0] >> steps[1] >> steps[2] >> steps[3] >> EmptyOperator(task_id="done")

    @task
    def fails():
        raise AirflowException("as expected")

    @task(execution_timeout=timedelta(seconds=1))
    def too_slow():
        import time

        time.sleep(30)

    @task(execution_timeout=timedelta(seconds=30))
    def fast_enough():
        return "in time"

    @task
    def returns_no_json():
        return NoJson()

    @task(multiple_outputs=True)
    def no_dict():
        return ["not", "a", "dict"]

    @task(multiple_outputs=True)
    def no_text_key():
        return {1: "one"}

    @task
    def a_dict():
        return {"there": 1}

    @task
    def takes(value):
        return value

    bash_too_slow = BashOperator(task_id="bash_too_slow", bash_command="sleep 30", execution_timeout=timedelta(seconds=1))
    no_such_folder = BashOperator(task_id="no_such_folder", bash_command="true", cwd="/nowhere/at/all")
    no_such_command = BashOperator(task_id="no_such_command", bash_command="no-such-command-at-all")
    missing_argument = PythonOperator(task_id="missing_argument", python_callable=lambda one, two: one, op_args=[1])
    # A context key cannot be a positional argument.
    reserved_name = PythonOperator(task_id="reserved_name", python_callable=lambda params: params, op_args=[1])

    failed = fails()
    start >> failed >> EmptyOperator(task_id="after_failure")
    [too_slow(), bash_too_slow] >> EmptyOperator(task_id="after_timeout")
    [steps[1], failed] >> EmptyOperator(task_id="after_both")
    start >> [fast_enough(), no_such_folder, no_such_command, missing_argument, reserved_name]
    takes(returns_no_json())
    no_dict() >> no_text_key()
    no_text_key.override(task_id="no_text_key_either")()
    # The only XCom of `a_dict` has the key `return_value`.
    takes(a_dict()["there"])

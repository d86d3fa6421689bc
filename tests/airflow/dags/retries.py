"""Tasks that fail once or permanently, and their downstream tasks."""

from datetime import timedelta

from airflow.providers.standard.operators.bash import BashOperator
from airflow.providers.standard.operators.empty import EmptyOperator
from airflow.providers.standard.operators.python import PythonOperator
from airflow.sdk import DAG, get_current_context, task
from airflow.sdk.exceptions import AirflowException, AirflowFailException

with DAG(
    dag_id="retries",
    schedule=None,
    default_args={"owner": "somebody", "retries": 1, "retry_delay": timedelta(seconds=0)},
):

    @task(retry_delay=timedelta(seconds=1))
    def second_try():
        ti = get_current_context()["ti"]
        # XComs of an earlier try are deleted when the next one starts.
        ti.xcom_push(key=f"try_{ti.try_number}", value=ti.try_number)
        if ti.try_number == 1:
            raise ValueError("not yet")
        return {"try_number": ti.try_number, "max_tries": ti.max_tries}

    @task(retries=2)
    def third_try(ti=None):
        if ti.try_number < 3:
            raise AirflowException(f"not at try {ti.try_number}")
        return {"try_number": ti.try_number, "max_tries": ti.max_tries}

    @task
    def never(ti=None):
        # XComs pushed before a failure stay.
        ti.xcom_push(key="last_words", value=f"try {ti.try_number}")
        raise RuntimeError("never")

    @task(retries=2)
    def no_more_tries():
        raise AirflowFailException("trying again would not help")

    @task
    def exits():
        raise SystemExit(3)

    def defaults(task):
        return {"owner": task.owner, "retries": task.retries, "retry_delay": task.retry_delay.total_seconds()}

    ok = BashOperator(task_id="bash_second_try", bash_command='test "$AIRFLOW_CTX_TRY_NUMBER" -eq 2 && echo "try $AIRFLOW_CTX_TRY_NUMBER"')
    bad = BashOperator(task_id="bash_never", bash_command="echo said before it failed; exit 7")
    inherits = PythonOperator(task_id="inherits", python_callable=defaults)
    overrides = PythonOperator(task_id="overrides", python_callable=defaults, retries=0, owner="another")

    second_try() >> third_try() >> EmptyOperator(task_id="after_success") >> [inherits, overrides]

    # A diamond downstream of a failure, and another level after it.
    failed = never()
    left, right, bottom, below = (EmptyOperator(task_id=name) for name in ("left", "right", "bottom", "below"))
    failed >> [left, right] >> bottom >> below
    no_more_tries() >> BashOperator(task_id="after_no_more_tries", bash_command="echo unreachable")
    exits() >> EmptyOperator(task_id="after_exits")
    # One upstream task succeeds, the other fails.
    [ok, bad] >> EmptyOperator(task_id="after_both")

"""Edge cases of mapping: empty inputs, failed or skipped inputs, failed instances, unmappable values."""

from airflow.exceptions import AirflowSkipException
from airflow.providers.standard.operators.empty import EmptyOperator
from airflow.sdk import DAG, task

with DAG("mapping_edges", schedule=None):

    @task
    def nothing():
        return []

    @task
    def fails():
        raise ValueError("no")

    @task
    def skipped():
        raise AirflowSkipException("no")

    @task
    def no_list():
        return 5

    @task
    def none():
        return None

    @task
    def show(x):
        if x == "bad":
            raise ValueError(x)
        if x == "skip":
            raise AirflowSkipException(x)
        return x

    @task(trigger_rule="all_done")
    def gather(xs):
        return list(xs)

    gather(show.override(task_id="over_nothing").expand(x=nothing()))
    show.override(task_id="over_failed", trigger_rule="all_done").expand(x=fails())
    show.override(task_id="over_skipped").expand(x=skipped())
    show.override(task_id="over_no_list").expand(x=no_list())
    show.override(task_id="over_none").expand(x=none())
    # One after the other: the first instance that ends decides the state of the downstream tasks.
    some = show.override(task_id="some", max_active_tis_per_dagrun=1).expand(x=["good", "bad", "skip"])
    gather.override(task_id="of_some")(some)
    some >> EmptyOperator(task_id="after_some")
    some >> EmptyOperator(task_id="any_of_some", trigger_rule="one_success")

    @task(retries=1, retry_delay=0)
    def second_try(x, ti):
        if ti.try_number == 1 and x == 2:
            raise ValueError("again")
        return [x, ti.try_number, ti.map_index]

    second_try.expand(x=[1, 2])

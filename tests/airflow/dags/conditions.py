"""Tasks with run_if and skip_if."""

from airflow.sdk import DAG, task


def yes(context):
    return True


def no(context):
    return False, "because"


with DAG("conditions", schedule=None):

    @task.run_if(yes)
    @task
    def runs():
        return 1

    @task.run_if(no)
    @task
    def does_not():
        return 2

    @task.skip_if(yes, skip_message="not now")
    @task
    def skipped():
        return 3

    @task.skip_if(no)
    @task.bash
    def shell():
        return "echo four"

    runs(), does_not(), skipped(), shell()

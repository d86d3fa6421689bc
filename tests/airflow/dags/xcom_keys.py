"""XComs with keys, across tasks and tries."""

from airflow.sdk import DAG, task

with DAG("xcom_keys", schedule=None):

    @task(multiple_outputs=True)
    def several():
        return {"a": 1, "b": {"c": [1, 2]}}

    @task
    def pushes(ti):
        ti.xcom_push(key="mine", value=[1, {"x": None}])
        ti.xcom_push(key="twice", value=1)
        ti.xcom_push(key="twice", value=2)

    @task
    def pulls(ti):
        return {
            "a": ti.xcom_pull(task_ids="several", key="a"),
            "mine": ti.xcom_pull(task_ids="pushes", key="mine"),
            "twice": ti.xcom_pull(task_ids=["pushes"], key="twice"),
            "default": ti.xcom_pull(task_ids="pushes", key="no", default=5, map_indexes=-1),
            "run": ti.xcom_pull(task_ids="several", run_id=ti.run_id)["b"],
        }

    @task
    def takes(a, c):
        return [a, c]

    @task(retries=1, retry_delay=0)
    def tries(ti):
        if ti.try_number == 1:
            ti.xcom_push(key="first", value=1)
            raise ValueError("again")
        return ti.xcom_pull(task_ids="tries", key="first")

    @task(do_xcom_push=False)
    def silent():
        return "nobody hears"

    s = several()
    [s, pushes()] >> pulls()
    takes(s["a"], s["b"])
    tries(), silent()

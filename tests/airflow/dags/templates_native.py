"""Templates rendered as native Python objects."""

from datetime import datetime, timezone

from airflow.sdk import DAG, BaseOperator, task


class Mine(BaseOperator):
    template_fields = ("value",)

    def __init__(self, value, **kwargs):
        super().__init__(**kwargs)
        self.value = value

    def execute(self, context):
        return [type(self.value).__name__, self.value]


with DAG(
    "templates_native",
    schedule=None,
    start_date=datetime(2024, 1, 1, tzinfo=timezone.utc),
    render_template_as_native_obj=True,
    params={"number": 5, "list": [1, 2]},
):
    Mine(task_id="number", value="{{ params.number }}")
    Mine(task_id="list", value="{{ params.list }}")
    Mine(task_id="sum", value="{{ params.number + 1 }}")
    Mine(task_id="text", value="{{ params.number }} apples")

    @task
    def made():
        return {"a": [1, 2]}

    made() >> Mine(task_id="pulled", value="{{ ti.xcom_pull(task_ids='made') }}")

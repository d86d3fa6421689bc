"""Values passed between decorated functions."""

from datetime import datetime, timezone
from typing import Any

from airflow.providers.standard.operators.empty import EmptyOperator
from airflow.sdk import dag, task


@dag(
    dag_id="taskflow",
    schedule=None,
    start_date=datetime(2024, 1, 1, tzinfo=timezone.utc),
    catchup=False,
    tags=["taskflow"],
    default_args={"retries": 0},
)
def flow():
    @task
    def numbers():
        return [1, 2, 3]

    @task
    def add(values, extra=0):
        return sum(values) + extra

    @task(multiple_outputs=True)
    def split(total):
        return {"quarter": total / 4, "double": total * 2, "nothing": None}

    # The annotation alone implies multiple_outputs.
    @task
    def describe(total) -> dict[str, Any]:
        return {"text": f"total {total}", "parts": {"total": total, "list": [total, total]}}

    @task
    def plain_dict(total):
        return {"total": total}

    @task(multiple_outputs=False)
    def declined(total) -> dict:
        return {"total": total}

    @task(multiple_outputs=True)
    def split_nothing():
        pass

    # A function with `**more` receives the context, too.
    @task
    def join(left, right, *rest, named=None, **more):
        return {"left": left, "right": right, "rest": list(rest), "named": named, "other": more["other"], "context": "ti" in more}

    @task
    def nested(everything):
        return everything

    @task
    def sees_none(value):
        return [value is None, repr(value)]

    @task(task_id="named_otherwise")
    def some_name():
        return "named"

    @task
    def gives_nothing():
        pass

    values = numbers()
    first = add(values)
    second = add(values, extra=10)
    third = add.override(task_id="add_hundred")(values, extra=100)
    fourth = add(values, 1000)

    parts = split(first)
    described = describe(second)
    join(parts["quarter"], described["parts"], parts["double"], described["text"], named=third, other=fourth)
    # References inside lists, tuples and dicts are resolved, too.
    nested({"list": [first, {"deep": parts}], "tuple": (second, "text"), "plain": 1})
    nested.override(task_id="of_dicts")([plain_dict(first), declined(second)])
    sees_none(parts["nothing"])
    sees_none(gives_nothing())
    sees_none(split_nothing()["anything"])
    some_name() >> EmptyOperator(task_id="end")


flow()

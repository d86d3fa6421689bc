"""Values of many types stored in XComs and pulled again."""

from airflow.providers.standard.operators.empty import EmptyOperator
from airflow.providers.standard.operators.python import PythonOperator
from airflow.sdk import DAG, get_current_context, task

VALUES = {
    "none": None,
    "true": True,
    "zero": 0,
    "empty_text": "",
    "empty_list": [],
    "empty_dict": {},
    "text": "h\u00e9llo \u2713 \u6f22\u5b57 \U0001f600 \"quoted\" back\\slash\nsecond line\ttab",
    "exact_int": 2**53 + 1,
    "large_int": 2**63 - 1,
    "negative_int": -(2**63),
    "float": 0.1,
    # In a list, because Airflow's SQLite database would turn a plain value into an int.
    "whole_float": [2.0],
    "small_float": 1e-7,
    "nested": {"list": [1, [2, [3, {"four": None}]]], "dict": {"a": {"b": {"c": [True, False, None]}}}},
    "tuple": (1, "two", (3.0, None)),
    "tuple_inside": {"pair": (1, 2)},
    # Keys become strings.
    "int_keys": {1: "one", 2: {3: "three"}},
}

with DAG(dag_id="xcoms", schedule=None):
    # Defined without TaskFlow; the loop variable is bound as an argument.
    returned = [
        PythonOperator(task_id=f"returns_{name}", python_callable=lambda value: value, op_args=[value])
        for name, value in VALUES.items()
    ]

    @task
    def kinds(names, ti=None):
        return {name: repr(ti.xcom_pull(task_ids=f"returns_{name}")) for name in names}

    @task
    def pushes():
        ti = get_current_context()["ti"]
        ti.xcom_push(key="text", value="first")
        # The last value wins.
        ti.xcom_push(key="text", value="second")
        ti.xcom_push(key="list", value=[1, None, "x"])
        ti.xcom_push(key="pushed_none", value=None)
        ti.xcom_push(key="with space/and slash", value=1)
        # The returned value replaces this one.
        ti.xcom_push(key="return_value", value="pushed")
        return "returned"

    @task
    def pushes_its_return_value(ti=None):
        ti.xcom_push(key="return_value", value="pushed")

    @task
    def pulls(ti=None):
        return {
            "one": ti.xcom_pull(task_ids="pushes"),
            "key": ti.xcom_pull(task_ids="pushes", key="text"),
            "odd_key": ti.xcom_pull(task_ids="pushes", key="with space/and slash"),
            "pushed_none": ti.xcom_pull(task_ids="pushes", key="pushed_none"),
            "pushed_return_value": ti.xcom_pull(task_ids="pushes_its_return_value"),
            "missing_key": ti.xcom_pull(task_ids="pushes", key="missing"),
            "missing_task": ti.xcom_pull(task_ids="nowhere"),
            "missing_default": ti.xcom_pull(task_ids="pushes", key="missing", default="default"),
            "several": ti.xcom_pull(task_ids=["pushes", "returns_zero", "returns_none", "pushes_its_return_value"]),
            "several_in_order": ti.xcom_pull(task_ids=["returns_zero", "pushes"]),
            "several_as_tuple": ti.xcom_pull(task_ids=("returns_zero", "returns_true")),
            "several_by_key": ti.xcom_pull(task_ids=["pushes", "returns_zero"], key="text"),
            "list_of_one": ti.xcom_pull(task_ids=["pushes"]),
            "list_of_one_missing": ti.xcom_pull(task_ids=["nowhere"]),
            "list_of_none": ti.xcom_pull(task_ids=[]),
            "own": ti.xcom_pull(key="text"),
        }

    @task
    def pulls_its_own(ti=None):
        ti.xcom_push(key="mine", value={"a": 1})
        return [ti.xcom_pull(key="mine"), ti.xcom_pull(task_ids="pulls_its_own", key="mine")]

    returned >> kinds(list(VALUES)) >> (end := EmptyOperator(task_id="end"))
    [pushes(), pushes_its_return_value(), *returned] >> pulls() >> end
    pulls_its_own() >> end

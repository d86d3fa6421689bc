"""Arguments of PythonOperator, and Variables."""

from airflow.providers.standard.operators.empty import EmptyOperator
from airflow.providers.standard.operators.python import PythonOperator
from airflow.sdk import DAG, Connection, Variable, task
from airflow.sdk.exceptions import AirflowException

NAME = "compare_python_calls"


def echo(*args, **kwargs):
    # `kwargs` also contains the context, which is not returned.
    return {"args": list(args), "kwargs": {key: kwargs[key] for key in sorted(kwargs) if key.startswith("x_")}}


def named(x_first, x_second=2, *, x_third=3, ti=None):
    return [x_first, x_second, x_third, ti.task_id]


def default_of_its_own(x_value={"a": 1}):
    return x_value


def yields():
    # Yielded values are metadata of assets; the result is the return value.
    yield 1
    yield 2
    return "returned"


class Callable:
    def __init__(self, value):
        self.value = value

    def method(self, x_more):
        return [self.value, x_more]

    def __call__(self, x_more):
        return {"called": self.value + x_more}


with DAG(dag_id="python_calls", schedule=None):

    def call(task_id, python_callable, **more):
        return PythonOperator(task_id=task_id, python_callable=python_callable, **more)

    source = call("source", lambda: {"made": [1, 2]})
    end = EmptyOperator(task_id="end")
    calls = [
        call("no_arguments", echo),
        call("op_args", echo, op_args=[1, "two", None]),
        call("op_kwargs", echo, op_kwargs={"x_a": 1, "x_b": [2]}),
        call("both", named, op_args=[1], op_kwargs={"x_third": 33}),
        # Arguments that the function does not take are dropped.
        call("op_kwargs_too_many", default_of_its_own, op_kwargs={"x_value": 1, "x_unknown": 2}),
        call("default", default_of_its_own),
        call("generator", yields),
        call("method", Callable(1).method, op_args=[2]),
        call("instance", Callable(1), op_args=[2]),
        call("of_a_task", named, op_args=[source.output], op_kwargs={"x_second": source.output}),
    ]
    calls >> end

    def prints():
        print("printed")
        return "kept"

    call("prints", prints) >> end
    call("log_hidden", lambda: "still pushed", show_return_value_in_logs=False) >> end

    @task
    def sets():
        before = Variable.get(NAME, default="absent")
        Variable.set(NAME, "text")
        Variable.set(f"{NAME}_json", {"a": [1, None, "\u2713"]}, serialize_json=True)
        Variable.set(f"{NAME}_number", 5, serialize_json=True)
        return before

    @task
    def gets():
        return {
            "text": Variable.get(NAME),
            "default_unused": Variable.get(NAME, default="other"),
            "json": Variable.get(f"{NAME}_json", deserialize_json=True),
            "json_has_a": '"a"' in Variable.get(f"{NAME}_json"),
            "number": Variable.get(f"{NAME}_number"),
            "absent": Variable.get(f"{NAME}_absent", default=None),
            "absent_json": Variable.get(f"{NAME}_absent", default={"d": 1}, deserialize_json=True),
        }

    @task
    def deletes():
        for name in (NAME, f"{NAME}_json", f"{NAME}_number"):
            Variable.delete(name)
        return Variable.get(NAME, default="gone")

    @task
    def asks_for_nothing_there():
        found = []
        for kind, name in ((Variable, f"{NAME}_absent"), (Connection, f"{NAME}_absent")):
            try:
                kind.get(name)
            except Exception as error:
                found.append([type(error).__name__, isinstance(error, AirflowException)])
        return found

    sets() >> gets() >> deletes() >> end
    asks_for_nothing_there() >> end

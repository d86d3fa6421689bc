"""Custom operators: default arguments, hooks around execute, arguments from other tasks."""

from airflow.exceptions import AirflowException
from airflow.sdk import DAG, BaseOperator, task


class Greets(BaseOperator):
    template_fields = ("name",)
    ui_color = "#abcdef"

    def __init__(self, name, greeting="hello", **kwargs):
        super().__init__(**kwargs)
        self.name = name
        self.greeting = greeting

    def pre_execute(self, context):
        self.before = "before"

    def execute(self, context):
        context["ti"].xcom_push(key="other", value=self.before)
        return f"{self.greeting} {self.name}"


class Louder(Greets):
    def __init__(self, *, times, **kwargs):
        super().__init__(**kwargs)
        self.times = times

    def execute(self, context):
        return super().execute(context) + "!" * self.times


class Checks(BaseOperator):
    def __init__(self, wanted, value, **kwargs):
        super().__init__(**kwargs)
        self.wanted = wanted
        self.value = value

    def execute(self, context):
        if self.wanted != self.value:
            raise AirflowException(f"{self.value} is not {self.wanted}")
        return {"retries": self.retries, "owner": self.owner, "rule": str(self.trigger_rule)}


def afterwards(context, result):
    context["ti"].xcom_push(key="afterwards", value=result)


with DAG(
    "operators_of_ones_own",
    schedule=None,
    default_args={"greeting": "good day", "times": 2, "owner": "somebody", "retries": 1, "retry_delay": 0},
):
    a = Greets(task_id="a", name="you")
    b = Louder(task_id="b", name=a.output, greeting="hey", post_execute=afterwards)

    @task
    def value():
        return 5

    Checks(task_id="fits", wanted=5, value=5)
    Checks(task_id="does_not", wanted=5, value=6, retries=0)
    Greets.partial(task_id="each", greeting="ho").expand(name=["x", "y"])
    Louder(task_id="nothing_pushed", name="quiet", do_xcom_push=False)

"""Jinja templates: variables, macros, filters, user-defined ones, nested values."""

from datetime import datetime, timezone

from airflow.providers.standard.operators.bash import BashOperator
from airflow.providers.standard.operators.python import PythonOperator
from airflow.sdk import DAG, BaseOperator, task


class Mine(BaseOperator):
    template_fields = ("text", "nested")

    def __init__(self, text, nested=None, **kwargs):
        super().__init__(**kwargs)
        self.text = text
        self.nested = nested

    def execute(self, context):
        return [self.text, self.nested]


def given(a, b=None, templates_dict=None):
    return [a, b, templates_dict]


with DAG(
    "templates",
    schedule=None,
    start_date=datetime(2024, 1, 1, tzinfo=timezone.utc),
    params={"name": "world"},
    user_defined_macros={"shout": lambda text: text.upper(), "LEVEL": 7},
    user_defined_filters={"double": lambda value: value * 2},
):
    Mine(task_id="dates", text="{{ ds }} {{ ds_nodash }} {{ ts }} {{ ts_nodash }} {{ ts_nodash_with_tz }}")
    Mine(task_id="interval", text="{{ data_interval_start | ds }} {{ data_interval_end | ts }} {{ logical_date.year }}")
    Mine(
        task_id="macros",
        text="{{ macros.ds_add(ds, 5) }} {{ macros.ds_format(ds, '%Y-%m-%d', '%d/%m/%y') }} "
        "{{ (logical_date + macros.timedelta(days=1)) | ds }} {{ macros.datetime(2020, 1, 2) | ds_nodash }}",
    )
    Mine(task_id="own", text="{{ shout('hey') }} {{ LEVEL | double }} {{ params.name }}")
    Mine(
        task_id="nested",
        text="{% for i in range(3) %}{{ i }}{% endfor %}",
        nested={"list": ["{{ ds }}", 5, ("{{ params.name }}", None)], "deep": {"k": "{{ run_id[:6] }}"}},
    )
    Mine(task_id="names", text="{{ dag.dag_id }} {{ task.task_id }} {{ ti.task_id }} {{ ti.try_number }} {{ task_instance_key_str }}")
    Mine(task_id="run", text="{{ dag_run.run_type }} {{ dag_run.conf.get('k', 'none') }} {{ dag_run.logical_date | ds }}")
    Mine(task_id="native", text="{{ [1, 2] }}", render_template_as_native_obj=True)
    Mine(task_id="plain", text="nothing to do", nested=[1, 2.5, True, None])
    Mine(task_id="undefined", text="{{ no_such_thing }}")
    Mine(task_id="comment", text="a{# not shown #}b")
    BashOperator(task_id="shell", bash_command="echo {{ ds }} $WHO", env={"WHO": "{{ params.name }}"}, append_env=True)
    PythonOperator(
        task_id="python",
        python_callable=given,
        op_args=["{{ ds }}"],
        op_kwargs={"b": "{{ params.name }}"},
        templates_dict={"d": "{{ ds_nodash }}"},
    )

    @task
    def source():
        return {"key": "value", "list": [1, 2]}

    @task
    def decorated(text, other):
        return [text, other]

    s = source()
    decorated("{{ ti.xcom_pull(task_ids='source')['key'] }}", "{{ ds }}") << s
    s >> Mine(task_id="pulled", text="{{ ti.xcom_pull(task_ids='source', key='return_value').list | join('-') }}")

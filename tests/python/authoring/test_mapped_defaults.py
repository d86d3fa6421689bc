"""Every attribute of a mapped task, and of its instances, is that of the same task without mapping. The precedence is
that of Apache Airflow 3.3.2: `partial()`, then `default_args`, then the defaults of the operator class."""

import unittest
from datetime import datetime, timedelta, timezone

from airflow.providers.standard.operators.bash import BashOperator
from airflow.providers.standard.operators.branch import BaseBranchOperator
from airflow.providers.standard.operators.datetime import BranchDateTimeOperator
from airflow.providers.standard.operators.empty import EmptyOperator
from airflow.providers.standard.operators.latest_only import LatestOnlyOperator
from airflow.providers.standard.operators.python import (
    BranchPythonOperator,
    ExternalPythonOperator,
    PythonOperator,
    PythonVirtualenvOperator,
    ShortCircuitOperator,
)
from airflow.providers.standard.operators.trigger_dagrun import TriggerDagRunOperator
from airflow.providers.standard.operators.weekday import BranchDayOfWeekOperator
from airflow.providers.standard.sensors.bash import BashSensor
from airflow.providers.standard.sensors.date_time import DateTimeSensor, DateTimeSensorAsync
from airflow.providers.standard.sensors.external_task import ExternalTaskMarker, ExternalTaskSensor
from airflow.providers.standard.sensors.filesystem import FileSensor
from airflow.providers.standard.sensors.python import PythonSensor
from airflow.providers.standard.sensors.time_delta import TimeDeltaSensor
from airflow.providers.standard.sensors.weekday import DayOfWeekSensor
from airflow.sdk import DAG, Asset, BaseOperator, BaseSensorOperator, task
from leoflow.authoring.mapping.mapped_operator import INHERITED, OF_CLASS
from leoflow.common.exceptions import Unsupported
from leoflow.entry.structure import task_structure


def callback(name):
    def call(context):
        return name

    return call


def date(day):
    return datetime(2026, 1, day, tzinfo=timezone.utc)


# For each argument of every operator, the default of a class, that of `default_args`, and the argument of `partial()`.
VALUES = {
    "owner": ("class", "dag", "partial"), "email": (["c@x.io"], ["d@x.io"], ["p@x.io"]), "email_on_failure": (False, False, False),
    "email_on_retry": (False, False, False), "retries": (2, 3, 0), "retry_delay": (timedelta(seconds=7), timedelta(seconds=8), 9),
    "retry_exponential_backoff": (True, 3, 1.5), "max_retry_delay": (timedelta(hours=1), timedelta(hours=2), 5),
    "start_date": (date(1), date(2), date(3)), "end_date": (date(4), date(5), date(6)), "depends_on_past": (True, True, False),
    "ignore_first_depends_on_past": (True, False, True), "wait_for_past_depends_before_skipping": (True, False, True),
    "wait_for_downstream": (True, True, False), "params": ({"a": 1}, None, {"a": 3}), "priority_weight": (5, 6, 7),
    "weight_rule": ("absolute", "upstream", "downstream"), "queue": ("default", None, "default"), "pool": ("own", "dags", "given"),
    "pool_slots": (2, 3, 4), "execution_timeout": (timedelta(minutes=3), timedelta(minutes=4), None),
    **{f"on_{event}_callback": (callback("class"), [callback("dag")], callback("partial"))
       for event in ("execute", "failure", "success", "retry", "skipped")},
    "pre_execute": (callback("class"), callback("dag"), callback("partial")), "post_execute": (callback("class"), callback("dag"), None),
    "trigger_rule": ("none_failed", "all_done", "one_failed"), "resources": ({"cpus": 1}, {"cpus": 2}, {"cpus": 3}),
    "run_as_user": (None, None, None), "map_index_template": ("{{ 1 }}", "{{ 2 }}", "{{ 3 }}"), "sla": (None, None, None),
    "max_active_tis_per_dag": (1, 2, 3), "max_active_tis_per_dagrun": (4, 5, 6), "executor": ("LocalExecutor", None, None),
    "executor_config": ({"a": 1}, {"a": 2}, {"a": 3}), "do_xcom_push": (False, False, True), "multiple_outputs": (True, True, False),
    "inlets": ([Asset("c")], [Asset("d")], [Asset("p")]), "outlets": ([Asset("c")], [Asset("d")], [Asset("p")]),
    **dict.fromkeys(("doc", "doc_md", "doc_json", "doc_yaml", "doc_rst", "task_display_name"), ("class", "dag", "partial")),
    "logger_name": ("own", "dags", "given"), "allow_nested_operators": (True, True, True), "retry_policy": (None, None, None),
    "render_template_as_native_obj": (True, False, True),
}
# What differs because each is another task, or because only one of them is mapped.
OF_THE_TASK = {"place", "task_id", "task_display_name", "dag", "task_group", "upstream_task_ids", "downstream_task_ids"}


def class_with(defaults, base=BaseOperator):
    """Returns a subclass of the operator with these defaults in its signature."""
    text = "def __init__(self, *, value=None, {}, **others):\n    super(Own, self).__init__({}, **others)\n    self.value = value"
    names = {"defaults": defaults}
    exec(text.format(", ".join(f"{name}=defaults[{name!r}]" for name in defaults), ", ".join(f"{name}={name}" for name in defaults)), names)
    names["Own"] = type(base)("Own", (base,), {"__init__": names["__init__"], "execute": lambda self, context: None})
    return names["Own"]


def attributes(operator, names):
    return {name: getattr(operator, name) for name in names}


class Defaults(unittest.TestCase):
    maxDiff = None

    def compare(self, direct, mapped):
        """Compares what the scheduler gets of both tasks, and all attributes of an instance."""
        common = (vars(direct).keys() & vars(mapped).keys() - OF_THE_TASK) | set(OF_CLASS)
        self.assertGreaterEqual(vars(mapped).keys(), vars(BaseOperator(task_id="plain")).keys())
        self.assertEqual(attributes(mapped, common), attributes(direct, common))
        ours, theirs = ({name: value for name, value in task_structure(task, True).items()
                         if name not in ("task_id", "display_name", "mapped", "length", "sources", "waits", "reschedules")}
                        for task in (mapped, direct))
        self.assertEqual(ours, theirs)
        instance, names = mapped.unmapped({}, 0), vars(direct).keys() - OF_THE_TASK
        self.assertEqual(attributes(instance, names), attributes(direct, names))
        return instance

    def pair(self, kind, given=None, defaults=None, **element):
        with DAG("d", default_args=defaults):
            direct = kind(task_id="direct", **(given or {}), **element)
            return direct, kind.partial(task_id="mapped", **(given or {})).expand_kwargs([element])

    def test_values_has_every_argument(self):
        self.assertEqual(VALUES.keys(), INHERITED)

    def test_a_class_gives_its_defaults_to_mapped_tasks(self):
        kind = class_with({name: values[0] for name, values in VALUES.items()})
        of_dag = {name: values[1] for name, values in VALUES.items() if name != "params"}
        given = {name: values[2] for name, values in VALUES.items()}
        for arguments in ({}, {"given": given}, {"defaults": of_dag}, {"given": given, "defaults": of_dag}):
            with self.subTest(arguments=list(arguments)):
                self.compare(*self.pair(kind, value=1, **arguments))

    def test_each_default_counts_alone(self):
        for name, (of_class, *_) in VALUES.items():
            with self.subTest(name):
                self.compare(*self.pair(class_with({name: of_class}), value=1))

    def test_the_nearest_class_wins_and_default_args_win_over_classes(self):
        nearest = class_with({"retries": 4}, class_with({"retries": 2, "pool": "base", "trigger_rule": "none_failed"}))
        for defaults, expected in ({}, (4, "base", "none_failed")), ({"retries": 9, "pool": "dag"}, (9, "dag", "none_failed")):
            mapped = self.pair(nearest, defaults=defaults, value=1)[1]
            self.assertEqual((mapped.retries, mapped.pool, mapped.trigger_rule), expected)
        self.compare(*self.pair(nearest, value=1))

    def test_none_means_that_the_class_chooses(self):
        class Chooses(BaseOperator):
            def __init__(self, *, value, trigger_rule=None, retry_delay=None, retries=None, **others):
                super().__init__(trigger_rule=trigger_rule or "all_success", retry_delay=retry_delay or 300, retries=retries, **others)

        self.compare(*self.pair(Chooses, value=1))

    def test_an_element_may_replace_a_default_of_the_class(self):
        direct, mapped = self.pair(class_with({"execution_timeout": timedelta(1), "do_xcom_push": False}), do_xcom_push=True)
        self.assertEqual((mapped.do_xcom_push, mapped.unmapped({}, 0).do_xcom_push, direct.do_xcom_push), (False, True, True))

    def test_an_unsupported_default_is_refused(self):
        for name, value in {"queue": "gpu", "run_as_user": "ada", "retry_policy": object()}.items():
            with self.subTest(name), self.assertRaises(Unsupported):
                class_with({name: value}).partial(task_id="t").expand(value=[1])

    def test_sensors_keep_the_defaults_of_their_class(self):
        kind = class_with({"poke_interval": 5, "timeout": 70, "mode": "reschedule", "soft_fail": True, "retries": 2}, BaseSensorOperator)
        instance = self.compare(*self.pair(kind, value=1))
        self.assertEqual((instance.poke_interval, instance.timeout, instance.mode, instance.retries), (5, 70, "reschedule", 2))

    def test_operators_of_the_package(self):
        limits = {"target_lower": date(1), "target_upper": None}
        branches = {"follow_task_ids_if_true": "a", "follow_task_ids_if_false": "b"}
        for kind, element in (
            (BashOperator, {"bash_command": "true", "output_processor": len}), (PythonOperator, {"python_callable": callback}),
            (EmptyOperator, {}), (LatestOnlyOperator, {}), (BaseBranchOperator, {}), (BranchPythonOperator, {"python_callable": callback}),
            (ShortCircuitOperator, {"python_callable": callback}), (PythonVirtualenvOperator, {"python_callable": callback}),
            (ExternalPythonOperator, {"python_callable": callback, "python": "/usr/bin/python3"}),
            (TriggerDagRunOperator, {"trigger_dag_id": "o"}), (BranchDateTimeOperator, {**branches, **limits}),
            (BranchDayOfWeekOperator, {**branches, "week_day": "Monday"}), (BashSensor, {"bash_command": "true"}),
            (DateTimeSensor, {"target_time": "2026-01-01"}), (DateTimeSensorAsync, {"target_time": "2026-01-01"}),
            (ExternalTaskSensor, {"external_dag_id": "o"}), (ExternalTaskMarker, {"external_dag_id": "o", "external_task_id": "t"}),
            (FileSensor, {"filepath": "f"}), (PythonSensor, {"python_callable": callback}), (TimeDeltaSensor, {"delta": timedelta(1)}),
            (DayOfWeekSensor, {"week_day": "Monday"}),
        ):
            with self.subTest(kind.__name__):
                self.compare(*self.pair(kind, **element))

    def test_functions(self):
        def function(x):
            return "true"

        for decorator in (task, task.bash, task.branch, task.short_circuit, task.sensor, task.virtualenv):
            with self.subTest(decorator), DAG("d", default_args={"retries": 3, "pool": "dag"}):
                own = {"output_processor": len} if decorator == task.bash else {}
                decorate = decorator(trigger_rule="none_failed", execution_timeout=timedelta(1), **own)
                direct, mapped = decorate(function)(x=1).operator, decorate(function).expand(x=[1]).operator
                instance = self.compare(direct, mapped)
                self.assertEqual((instance.retries, instance.pool, instance.trigger_rule), (3, "dag", "none_failed"))

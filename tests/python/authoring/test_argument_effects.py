"""The effects of operator arguments that change how a task runs."""

import contextlib
import io
import unittest
import unittest.mock
import warnings
from datetime import timedelta

from airflow.providers.standard.operators.trigger_dagrun import TriggerDagRunOperator
from airflow.providers.standard.sensors.external_task import ExternalTaskMarker, ExternalTaskSensor
from airflow.sdk import DAG, Asset, BaseOperator
from airflow.triggers.base import StartTriggerArgs
from leoflow.authoring.sensors.base import BaseSensorOperator
from leoflow.common.exceptions import Unsupported
from leoflow.entry.structure import dag_structure
from leoflow.running.context import build_context
from leoflow.running.offline import InMemoryXComs, Offline
from leoflow.running.task_try import Try

WAIT = StartTriggerArgs(
    trigger_cls="mine.Wait", trigger_kwargs={"seconds": "{{ 1 + 1 }}", "other": "{{ 1 }}"}, next_method="go_on", next_kwargs={"n": 1},
    timeout=timedelta(seconds=9))


class Starts(BaseOperator):
    template_fields = ("seconds",)
    start_trigger_args = WAIT
    start_from_trigger = True
    seconds = None

    def execute(self, context):
        raise RuntimeError("the task must start with its trigger")

    def go_on(self, context, n, event=None):
        return [n, event]


class Inner(BaseOperator):
    def execute(self, context):
        return "inner"


class Outer(BaseOperator):
    def __init__(self, inner, **others):
        super().__init__(**others)
        self.inner = inner

    def execute(self, context):
        return self.inner.execute(context)


def run(task, server=None, **spec):
    """Runs one try; returns its result."""
    memory = InMemoryXComs(None)
    memory.begin((task.task_id, -1), False)
    spec = {"dag_id": task.dag_id, "run_id": "r", "map_index": -1, "try_number": 1, "max_tries": 0, "may_retry": False,
            "run_type": "manual", "conf": {}, "logical_date": "2026-01-01T00:00:00Z", **spec}
    offline = Offline(memory)
    offline.trigger = lambda *_: None
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        return Try(task, build_context(spec, task.dag, task, memory, server or offline)).run()


class Effects(unittest.TestCase):
    def test_check_existence_fails_for_a_missing_task_or_group(self):
        with DAG("d"):
            arguments = {"here": {"external_task_id": "t"}, "group": {"external_task_group_id": "g"}, "no_task": {"external_task_id": "x"},
                      "no_group": {"external_task_group_id": "x"}}
            sensors = {name: ExternalTaskSensor(task_id=name, external_dag_id="o", check_existence=True, **others)
                       for name, others in arguments.items()}
        results = {}
        for name, sensor in sensors.items():
            server = unittest.mock.Mock()
            server.dag.return_value = {"task_ids": ["t"], "group_ids": ["g"]}
            server.count.return_value = 1
            results[name] = run(sensor, server=server)
        self.assertEqual({name: result["state"] for name, result in results.items()},
                         {"here": "success", "group": "success", "no_task": "failed", "no_group": "failed"})
        self.assertIn("ExternalTaskGroupNotFoundError", results["no_group"]["reason"])

    def test_start_from_trigger_defers_before_execute(self):
        with DAG("d"):
            task = Starts(task_id="t", execution_timeout=timedelta(seconds=5), on_execute_callback=lambda _: self.fail())
        result = run(task)
        self.assertEqual(result["state"], "deferred", result)
        self.assertEqual(result["deferral"], {
            "classpath": "mine.Wait", "kwargs": {"seconds": "2", "other": "{{ 1 }}"}, "timeout": 5.0, "next_method": "go_on",
            "next_kwargs": {"n": 1}})
        task.on_execute_callback = None
        result = run(task, next_method="go_on", next_kwargs={"n": 1, "event": "now"})
        self.assertEqual((result["state"], result["xcoms"]), ("success", {"return_value": '[1, "now"]'}))

    def test_a_deferrable_trigger_dag_run_waits_with_a_trigger(self):
        with DAG("d"):
            task = TriggerDagRunOperator(task_id="t", trigger_dag_id="o", trigger_run_id="r", wait_for_completion=True, deferrable=True)
        deferral = run(task)["deferral"]
        self.assertEqual(deferral["kwargs"], {"dag_id": "o", "states": ["success", "failed"], "run_ids": ["r"], "poll_interval": 60.0})
        for state, ended in (("success", "success"), ("failed", "failed")):
            event = ["DagStateTrigger", {"run_ids": ["r"], "r": state}]
            self.assertEqual(run(task, next_method=deferral["next_method"], next_kwargs={"event": event})["state"], ended)

    def test_nested_operators_can_be_forbidden(self):
        with DAG("d"):
            forbidden, allowed = Inner(task_id="no", allow_nested_operators=False), Inner(task_id="yes")
            outer = [Outer(task_id=f"o{inner.task_id}", inner=inner) for inner in (forbidden, allowed)]
        self.assertEqual([run(task)["state"] for task in (*outer, forbidden, allowed)], ["failed", "success", "success", "success"])
        self.assertEqual(forbidden.task_type, "Inner")
        with self.assertRaisesRegex(RuntimeError, "outside of the Task Runner"):
            forbidden.execute({})

    def test_arguments_of_logs_and_sensors(self):
        with DAG("d"), warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            task = Inner(task_id="t", logger_name="mine", sla=timedelta(1))
            sensor = ExternalTaskSensor(task_id="s", external_dag_id="o", poll_interval=7)
            with self.assertRaises(ValueError):
                ExternalTaskMarker(task_id="m", external_dag_id="o", external_task_id="t", recursion_depth=0)
        self.assertEqual((task.log.name, sensor.poke_interval), ("airflow.task.operators.mine", 7.0))
        self.assertIn("SLA", str(caught[0].message))
        with self.assertRaises(Unsupported):
            Asset("a", access_control=object())
        self.assertFalse(BaseSensorOperator.start_from_trigger)

    def test_links_of_owners_are_part_of_the_structure(self):
        with DAG("d", owner_links={"ada": "mailto:ada", "team": "https://example.org/team"}) as dag:
            Inner(task_id="t")
        self.assertEqual(dag_structure(dag, True)["owner_links"], dag.owner_links)
        for wrong in ({"owner_links": {"ada": "example.org"}}, {"owner_links": {"ada": "mailto:"}}):
            with self.assertRaises(ValueError):
                DAG("d", **wrong)
        # Airflow 3 has no argument `default_view`.
        with self.assertRaises(TypeError):
            DAG("d", default_view="grid")

    def test_waiting_before_skipping_requires_depends_on_past(self):
        with DAG("d") as dag:
            Inner(task_id="a", depends_on_past=True, wait_for_past_depends_before_skipping=True)
            Inner(task_id="b", wait_for_past_depends_before_skipping=True)
        found = [task.get("wait_for_past_before_skipping") for task in dag_structure(dag, True)["tasks"]]
        self.assertEqual(found, [True, None])

"""The sensors whose condition the scheduler checks; all other sensors need a process."""

import math
import unittest
from datetime import timedelta

from leoflow.authoring.dag.dag import DAG
from leoflow.authoring.operators.decorators import task
from leoflow.authoring.sensors.external_task import ExternalTaskSensor
from leoflow.authoring.sensors.standard import FileSensor
from leoflow.entry import structure


class Months:
    """Like relativedelta and pendulum's durations, has no fixed number of seconds."""

    def __rsub__(self, date):
        return date


class LongerThanItSays(timedelta):
    pass


def waits(kind, **arguments):
    with DAG("d"):
        return structure.sensor_wait(kind(task_id="t", **arguments))


class External(unittest.TestCase):
    def test_the_scheduler_checks_a_sensor_with_plain_arguments(self):
        found = waits(ExternalTaskSensor, external_dag_id="other", external_task_ids=("a", "b"), failed_states=["failed"],
                      execution_delta=timedelta(hours=1), poke_interval=5)
        self.assertEqual(found["until"], {
            "kind": "external", "dag_id": "other", "task_ids": ["a", "b"], "group_id": None, "allowed_states": ["success"],
            "failed_or_skipped_states": ["failed"], "execution_delta": 3600.0, "poke_interval": 5.0,
        })
        self.assertTrue(found["is_all"])

    def test_values_computed_by_code_need_the_process(self):
        for more in (
            {"execution_delta": Months()}, {"execution_delta": LongerThanItSays(days=30)},
            {"execution_date_fn": lambda date: date}, {"check_existence": True}, {"exponential_backoff": True},
            {"external_task_id": "{{ ds }}"}, {"external_task_ids": []}, {"external_task_ids": ["a", "a"]},
            {"poke_interval": math.inf}, {"timeout": math.inf},
        ):
            with self.subTest(more):
                self.assertIsNone(waits(ExternalTaskSensor, external_dag_id="other", **more))

    def test_a_result_of_another_task_needs_the_process(self):
        with DAG("d"):
            names = task(task_id="names")(lambda: ["a"])()
            sensor = ExternalTaskSensor(task_id="t", external_dag_id="other", external_task_ids=names)
            self.assertIsNone(structure.sensor_wait(sensor))


class File(unittest.TestCase):
    def test_the_scheduler_checks_only_plain_paths(self):
        self.assertEqual(waits(FileSensor, filepath="/a b/c")["until"], {"kind": "file", "path": "/a b/c", "poke_interval": 60.0})
        for path in ("relative", "/a/*.csv", "/a/?", "/a/[b]", "/a/{{ ds }}", "/a\0"):
            self.assertIsNone(waits(FileSensor, filepath=path), path)
        self.assertIsNone(waits(FileSensor, filepath="/a", fs_conn_id="elsewhere"))
        self.assertIsNone(waits(FileSensor, filepath="/a", on_execute_callback=print))


if __name__ == "__main__":
    unittest.main()

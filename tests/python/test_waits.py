"""What the scheduler is told that a sensor waits for; everything else is for its own process."""

import math
import unittest
from datetime import timedelta

from leoflow.authoring.dag import DAG
from leoflow.authoring.decorators import task
from leoflow.authoring.sensors import FileSensor
from leoflow.authoring.triggering import ExternalTaskSensor
from leoflow.entry import structure


class Months:
    """As relativedelta and pendulum's durations: more than seconds."""

    def __rsub__(self, date):
        return date


class LongerThanItSays(timedelta):
    pass


def waits(kind, **arguments):
    with DAG("d"):
        return structure.wait(kind(task_id="t", **arguments))


class External(unittest.TestCase):
    def test_a_plain_one_is_looked_for(self):
        found = waits(ExternalTaskSensor, external_dag_id="other", external_task_ids=("a", "b"), failed_states=["failed"],
                      execution_delta=timedelta(hours=1), poke_interval=5)
        self.assertEqual(found["until"], {
            "kind": "external", "dag_id": "other", "task_ids": ["a", "b"], "group_id": None, "allowed_states": ["success"],
            "failed_or_skipped_states": ["failed"], "execution_delta": 3600.0, "poke_interval": 5.0,
        })
        self.assertTrue(found["is_all"])

    def test_what_its_code_has_to_work_out_is_left_to_it(self):
        for more in (
            {"execution_delta": Months()}, {"execution_delta": LongerThanItSays(days=30)},
            {"execution_date_fn": lambda date: date}, {"check_existence": True}, {"exponential_backoff": True},
            {"external_task_id": "{{ ds }}"}, {"external_task_ids": []}, {"external_task_ids": ["a", "a"]},
            {"poke_interval": math.inf}, {"timeout": math.inf},
        ):
            with self.subTest(more):
                self.assertIsNone(waits(ExternalTaskSensor, external_dag_id="other", **more))

    def test_what_another_task_returns_is_left_to_it(self):
        with DAG("d"):
            names = task(task_id="names")(lambda: ["a"])()
            sensor = ExternalTaskSensor(task_id="t", external_dag_id="other", external_task_ids=names)
            self.assertIsNone(structure.wait(sensor))


class File(unittest.TestCase):
    def test_only_a_plain_path_is_looked_for(self):
        self.assertEqual(waits(FileSensor, filepath="/a b/c")["until"], {"kind": "file", "path": "/a b/c", "poke_interval": 60.0})
        for path in ("relative", "/a/*.csv", "/a/?", "/a/[b]", "/a/{{ ds }}", "/a\0"):
            self.assertIsNone(waits(FileSensor, filepath=path), path)
        self.assertIsNone(waits(FileSensor, filepath="/a", fs_conn_id="elsewhere"))
        self.assertIsNone(waits(FileSensor, filepath="/a", on_execute_callback=print))


if __name__ == "__main__":
    unittest.main()

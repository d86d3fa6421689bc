"""The requests of a running task, with answers of a server that refuses them."""

import unittest
import unittest.mock

from leoflow.common.client import ServerError
from leoflow.common.exceptions import AirflowException, DagNotFound
from leoflow.running.task_api import TaskApi


class Triggers(unittest.TestCase):
    def raised(self, reset, dag_exists):
        def ask(method, path, body=None):
            if path == "dags/target" and dag_exists:
                return {"dag_id": "target"}
            raise ServerError(404, "the reason")

        api = TaskApi()
        with unittest.mock.patch.object(api, "ask", ask), self.assertRaisesRegex(AirflowException, "the reason") as caught:
            api.trigger("target", "r", {}, None, None, None, reset)
        return type(caught.exception)

    def test_a_missing_run_to_reset_is_no_missing_dag(self):
        self.assertIs(self.raised(True, dag_exists=True), AirflowException)
        self.assertIs(self.raised(True, dag_exists=False), DagNotFound)
        self.assertIs(self.raised(False, dag_exists=False), DagNotFound)

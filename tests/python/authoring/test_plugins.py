"""Plugins of the small package: classes in a project's `plugins` folder."""

import json
import os
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

from airflow.sdk import DAG
from leoflow.authoring import macros, plugins
from leoflow.common.exceptions import Unsupported
from leoflow.entry import plugin_files, small_backend
from leoflow.entry.workspace import Workspace

PLUGIN = """
from airflow.listeners import hookimpl
from airflow.models import BaseOperator
from airflow.plugins_manager import AirflowPlugin

calls = []

class Shout(BaseOperator):
    def execute(self, context):
        return "A"

def shout(text):
    return text.upper()

class Listener:
    @hookimpl
    def on_dag_run_running(self, dag_run):
        calls.append(("running", str(dag_run.state), dag_run.end_date, dag_run.dag.dag_id, str(dag_run.run_type)))

    @hookimpl
    def on_dag_run_success(self, dag_run, msg):
        calls.append(("success", dag_run.get_state().value, dag_run.end_date.year, msg))

    @hookimpl(specname="on_dag_run_success", trylast=True)
    def then(self):
        raise ValueError("a listener fails")

    @hookimpl
    def on_task_instance_failed(self):
        pass

class Mine(AirflowPlugin):
    name = "mine"
    operators = [Shout]
    flask_blueprints = [object()]
    macros = [shout]
    listeners = [Listener()]
"""
DAG_FILE = "from airflow.sdk import DAG\nfrom mine import Shout\nwith DAG('d'):\n    Shout(task_id='t')\n"


def spec(state, reason):
    dates = dict.fromkeys(("logical_date", "data_interval_start", "data_interval_end", "queued_at", "task_id"))
    run = {"dag_id": "d", "run_id": "r", "run_type": "manual", "conf": {}, "run_after": "2026-01-01T00:00:00Z", **dates}
    return {**run, "state": state, "reason": reason, "run_start_date": "2026-01-01T00:00:00Z",
            "end_date": None if state == "running" else "2026-01-01T00:00:01Z"}


class Plugins(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.addCleanup(plugins._plugins.clear)
        self.folder = Path(folder.name).resolve()
        (self.folder / "plugins").mkdir()
        (self.folder / "dag.py").write_text(DAG_FILE)
        (self.folder / "plugins/mine.py").write_text(PLUGIN)

    def parsed(self):
        # In a process of its own, because a parse installs import hooks.
        code = "import json, sys; from leoflow.entry.parse import parse; print(json.dumps(parse(sys.argv[1], [sys.argv[2]], None)))"
        command = [sys.executable, "-c", code, f"{self.folder}/dag.py", str(self.folder)]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
        return json.loads(subprocess.run(command, env=environment, stdout=subprocess.PIPE, check=True).stdout)

    def loaded(self):
        workspace = Workspace([str(self.folder)])
        plugin_files.load(workspace)
        return workspace

    def test_operators_of_a_plugin_are_imported(self):
        result = self.parsed()
        self.assertIsNone(result["error"])
        dag = result["dags"][0]
        self.assertEqual((dag["tasks"][0]["operator"], dag["run_listeners"], dag["task_failure_callbacks"]), ("Shout", True, True))
        self.assertIn(f"{self.folder}/plugins/mine.py", result["sources"])
        # The DAG is parsed again when a plugin is added.
        self.assertIn(f"{self.folder}/plugins", result["reads"])

    def test_a_plugin_that_fails_is_a_warning(self):
        (self.folder / "plugins/broken.py").write_text("from airflow.plugins_manager import AirflowPlugin\nimport flask_nothing\n")
        result = self.parsed()
        self.assertIsNone(result["error"])
        self.assertRegex(result["warnings"][0], "broken.py: the plugin cannot be loaded: .*flask_nothing")

    def test_of_two_plugins_with_one_name_the_first_counts(self):
        (self.folder / "plugins/other.py").write_text(PLUGIN)
        problems = self.loaded().plugin_problems
        self.assertEqual(len(problems), 1)
        self.assertRegex(problems[0], "other.py: the plugin cannot be loaded: .*'mine' already registered, skipping")

    def test_a_stored_version_keeps_its_plugins(self):
        stored = {f"{self.folder}/plugins/mine.py": PLUGIN.replace('"mine"', '"stored"'), f"{self.folder}/dag.py": DAG_FILE}
        plugin_files.load(Workspace([str(self.folder)], stored))
        self.assertEqual(list(plugins._plugins), ["stored"])

    def test_macros_are_in_templates(self):
        self.addCleanup(lambda: delattr(macros, "mine"))
        self.loaded()
        self.assertEqual(macros.mine.shout("a"), "A")

    def test_listeners_get_the_run_and_errors_are_reported(self):
        self.loaded()
        calls = plugins._plugins["mine"].listeners[0].on_dag_run_running.__globals__["calls"]
        dag = DAG("d")
        self.assertEqual(small_backend.call_back(dag, spec("running", "started")), [])
        errors = small_backend.call_back(dag, spec("success", "marked"))
        self.assertEqual(calls, [
            ("running", "running", None, "d", "manual"),
            ("success", "success", 2026, "Dag Run's state was manually set to `success`."),
        ])
        self.assertEqual([(error["callback"], error["error"]) for error in errors],
                         [("on_dag_run_success", "ValueError: a listener fails")])
        self.assertIn("line 26, in then", errors[0]["report"])

    def test_failed_callbacks_are_named_and_others_are_called(self):
        called = []

        class Fails:
            def __call__(self, context):
                raise ValueError(context["reason"])

        def fails(context):
            raise KeyError("key")

        dag = DAG("d", on_failure_callback=[Fails(), fails, called.append])
        problems = small_backend.call_back(dag, spec("failed", "task_failure"))
        self.assertEqual([problem["error"] for problem in problems], ["ValueError: task_failure", "KeyError: 'key'"])
        self.assertTrue(problems[0]["callback"].endswith("Fails") and problems[1]["callback"].endswith("fails"), problems)
        self.assertEqual(len(called), 1)

    def test_callbacks_are_not_called_for_a_start_or_a_mark(self):
        called = []
        dag = DAG("d", on_success_callback=called.append)
        for state, reason in (("running", "started"), ("success", "marked"), ("success", "success")):
            small_backend.call_back(dag, spec(state, reason))
        self.assertEqual(len(called), 1)

    def test_members_that_change_how_dags_run_are_refused(self):
        with self.assertRaisesRegex(Unsupported, "priority_weight_strategies of a plugin"):
            type("P", (plugins.AirflowPlugin,), {"priority_weight_strategies": [object]})
        with self.assertRaisesRegex(Unsupported, "hookwrapper=True"):
            plugins.hookimpl(hookwrapper=True)

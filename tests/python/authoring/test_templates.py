"""Rendering of templates: which values of the context are computed."""

import importlib.util
import traceback
import unittest

from leoflow.authoring.dag.dag import DAG
from leoflow.authoring.hooks import BaseNotifier
from leoflow.authoring.operators.standard import PythonOperator
from leoflow.authoring.operators.templates import Renderer
from leoflow.running.context import Context


class Note(BaseNotifier):
    template_fields = ("message",)

    def __init__(self, message):
        super().__init__()
        self.message = message

    def notify(self, context):
        context["notes"].append(self.message)


@unittest.skipUnless(importlib.util.find_spec("jinja2"), "jinja2 is not installed")
class Templates(unittest.TestCase):
    def setUp(self):
        self.computed = []

    def context(self, **ready):
        names = ("used", "unused")
        return Context(ready, {name: lambda name=name: self.computed.append(name) or name.upper() for name in names})

    def rendered(self, text, *, native=False, **dag_arguments):
        with DAG("d", render_template_as_native_obj=native, **dag_arguments) as dag:
            task = PythonOperator(task_id="t", python_callable=print)
        return Renderer(task, self.context(dag=dag, run_id="r")).text(text)

    def test_only_used_values_are_computed_and_only_once(self):
        self.assertEqual(self.rendered("{{ run_id }}"), "r")
        self.assertEqual(self.computed, [])
        self.assertEqual(self.rendered("{% if used is defined %}{{ used }} {{ used }}{% endif %} {{ dag.dag_id }}"), "USED USED d")
        self.assertEqual(self.computed, ["used"])

    def test_native_templates_compute_only_used_values(self):
        self.assertEqual(self.rendered("{{ [used, run_id] }}", native=True), ["USED", "r"])
        self.assertEqual(self.computed, ["used"])

    def test_the_context_hides_macros_of_its_dag(self):
        macros = {"run_id": "hidden", "twice": lambda text: text * 2}
        self.assertEqual(self.rendered("{{ twice(run_id) }}", user_defined_macros=macros), "rr")

    def test_an_undefined_name_is_an_error_with_the_templates_line(self):
        try:
            self.rendered("\n{{ nothing }}")
        except Exception:
            report = traceback.format_exc()
        self.assertIn('File "<template>", line 2', report)
        self.assertIn("UndefinedError: 'nothing' is undefined", report)

    def test_a_notifier_computes_only_what_its_fields_use(self):
        notes = []
        Note("{{ used }} of {{ run_id }}")(self.context(run_id="r", notes=notes))
        self.assertEqual((notes, self.computed), (["USED of r"], ["used"]))

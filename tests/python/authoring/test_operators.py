"""Arguments of operators: default_args, checks, and mapped tasks."""

import os
import unittest
import unittest.mock
from datetime import timedelta

from airflow.models import MappedOperator
from airflow.sdk import DAG, BaseOperator, TaskGroup, task
from leoflow.authoring.operators.arguments import as_timedelta, backoff, callbacks, check_retries, limit, priority
from leoflow.common.exceptions import AirflowException, Unsupported
from leoflow.running.task_instance import TaskInstance


class Hello(BaseOperator):
    template_fields = "name"

    def __init__(self, name, greeting="hello", **others):
        super().__init__(**others)
        self.name = name
        self.greeting = greeting

    def execute(self, context):
        return f"{self.greeting} {self.name}"


class Louder(Hello):
    def __init__(self, volume=1, **others):
        super().__init__(**others)
        self.volume = volume


class DefaultArgs(unittest.TestCase):
    def test_apply_to_every_class_of_the_hierarchy(self):
        with DAG("d", default_args={"name": "Ada", "volume": 3, "retries": 2, "unknown": 1}):
            operator = Louder(task_id="t")
        self.assertEqual((operator.name, operator.volume, operator.retries, operator.greeting), ("Ada", 3, 2, "hello"))

    def test_the_nearest_wins(self):
        with DAG("d", default_args={"retries": 1, "owner": "dag"}), TaskGroup("g", default_args={"retries": 2}):
            operator = Hello(task_id="t", name="x")
            own = Hello(task_id="own", name="x", retries=3)
        self.assertEqual((operator.retries, operator.owner, own.retries), (2, "dag", 3))

    def test_apply_to_parameters_of_decorated_functions(self):
        def function(colour, n=3):
            return "true" if colour else n

        def conditional(function):
            return task.run_if(lambda _: True)(task(function))

        for decorator in (task, task.branch, task.short_circuit, task.sensor, task.bash, conditional):
            with DAG("d", default_args={"colour": "of the DAG"}):
                alone = decorator(function)().operator
                with TaskGroup("g", default_args={"colour": "of the group"}):
                    grouped = task(function)().operator
                own = task(function, default_args={"colour": "its own"})().operator
                given = task(function)("said").operator
            self.assertEqual(alone.op_kwargs["colour"], "of the DAG", decorator)
            self.assertEqual(grouped.op_kwargs["colour"], "of the group")
            self.assertEqual(own.op_kwargs["colour"], "its own")
            self.assertEqual((given.op_args, "colour" in given.op_kwargs), (["said"], False))
        with DAG("d"), self.assertRaisesRegex(TypeError, "missing a required argument: 'colour'"):
            task(function)()

    def test_a_tasks_own_win_for_functions_and_mapped_tasks(self):
        own = {"retries": 7, "colour": "its own"}

        def function(colour, n=3):
            return "true" if colour else n

        with DAG("d", default_args={"retries": 1, "colour": "of the DAG"}):
            for decorator in (task, task.branch, task.short_circuit, task.sensor, task.bash):
                self.assertEqual(decorator(default_args=own)(function)().operator.retries, 7, decorator)
            mapped = task(default_args=own)(function).expand(n=[1]).operator
            partial = Hello.partial(task_id="t", default_args={"retries": 8, "greeting": "hi"}).expand(name=["x"])
            several = task(function).expand_kwargs([{"n": 1}, {"colour": "given"}]).operator
        instance = mapped.unmapped({}, 0)
        self.assertEqual((mapped.retries, instance.retries, instance.op_kwargs["colour"]), (7, 7, "its own"))
        instance = partial.unmapped({}, 0)
        self.assertEqual((partial.retries, instance.retries, instance.greeting), (8, 8, "hi"))
        colours = [several.unmapped({}, index).op_kwargs["colour"] for index in (0, 1)]
        self.assertEqual(colours, ["of the DAG", "given"])

    def test_a_missing_argument_is_named(self):
        with DAG("d"), self.assertRaisesRegex(TypeError, "missing keyword argument 'name'"):
            Hello(task_id="t")

    def test_positional_arguments_are_refused(self):
        with DAG("d"), self.assertRaisesRegex(TypeError, "keyword arguments"):
            Hello("x", task_id="t")

    def test_template_fields_may_be_one_string(self):
        self.assertEqual(Hello.template_fields, ["name"])


class Links(unittest.TestCase):
    def test_log_url_of_a_try(self):
        with DAG("d"):
            operator = Hello(task_id="t", name="x")
        spec = {"dag_id": "d", "run_id": "manual__2026-01-01T00:00:00+00:00", "map_index": 2, "try_number": 3, "max_tries": 3,
                "run_type": "manual", "conf": {}}
        with unittest.mock.patch.dict(os.environ, AIRFLOW__API__BASE_URL="http://127.0.0.1:9000/"):
            found = TaskInstance(spec, operator, None, None).log_url
        run = "manual__2026-01-01T00%3A00%3A00%2B00%3A00"
        self.assertEqual(found, f"http://127.0.0.1:9000/dags/d/runs/{run}/tasks/t/mapped/2?try_number=3")


class Arguments(unittest.TestCase):
    def test_delays(self):
        self.assertEqual(as_timedelta("retry_delay", 1.5), timedelta(seconds=1.5))
        self.assertEqual(as_timedelta("retry_delay", timedelta(minutes=1)), timedelta(minutes=1))
        for wrong in (True, "5", None):
            with self.assertRaises(TypeError):
                as_timedelta("retry_delay", wrong)

    def test_numbers(self):
        self.assertEqual((check_retries("t", None), check_retries("t", "3")), (0, 3))
        self.assertEqual((backoff(True), backoff(False), backoff(1.5)), (2.0, 0.0, 1.5))
        self.assertEqual((priority("t", 2**40), priority("t", -(2**40))), (2**31 - 1, -(2**31)))
        self.assertEqual((limit("max", None), limit("max", 0)), (None, 0))
        for refused, error in (
            (lambda: check_retries("t", -1), AirflowException), (lambda: check_retries("t", "x"), TypeError),
            (lambda: backoff(-1), TypeError), (lambda: priority("t", True), AirflowException),
            (lambda: limit("max", -1), TypeError), (lambda: limit("max", True), TypeError),
        ):
            with self.assertRaises(error):
                refused()

    def test_callbacks_are_a_list(self):
        self.assertEqual((callbacks("c", None), callbacks("c", print), callbacks("c", (print,))), ([], [print], [print]))
        with self.assertRaises(TypeError):
            callbacks("c", "print")

    def test_refuses_arguments_that_leoflow_does_not_implement(self):
        for arguments in ({"run_as_user": "ada"}, {"executor": "KubernetesExecutor"}, {"queue": "gpu"}):
            with self.subTest(arguments=arguments), DAG("d"), self.assertRaises(Unsupported):
                Hello(task_id="t", name="x", **arguments)

    def test_email_has_airflows_defaults(self):
        with DAG("d", default_args={"email": "a@b.c"}):
            sends = Hello(task_id="t", name="x")
            with unittest.mock.patch.dict(os.environ, {"AIRFLOW__EMAIL__DEFAULT_EMAIL_ON_RETRY": "False"}):
                on_failure = Hello(task_id="u", name="x")
        self.assertEqual((sends.email, sends.email_on_failure, sends.email_on_retry), ("a@b.c", True, True))
        self.assertEqual((on_failure.email_on_failure, on_failure.email_on_retry), (True, False))


class Mapped(unittest.TestCase):
    def test_partial_belongs_to_the_class(self):
        with DAG("d"):
            operator = Hello.partial(task_id="t", greeting="hi").expand(name=["a", "b"])
            self.assertFalse(hasattr(Hello(task_id="plain", name="x"), "partial"))
        self.assertIsInstance(operator, MappedOperator)
        self.assertNotIsInstance(operator, BaseOperator)
        self.assertEqual(operator.expand_input.length(), {"product": [2]})

    def test_an_instance_gets_its_own_element(self):
        with DAG("d"):
            operator = Hello.partial(task_id="t", greeting="hi").expand(name=["a", "b"])
        instance = operator.unmapped({}, 1)
        self.assertEqual((instance.name, instance.greeting, instance.task_id, instance.dag.dag_id), ("b", "hi", "t", "d"))
        self.assertEqual([each.task_id for each in operator.dag.tasks], ["t"])

    def test_errors_name_unknown_and_duplicate_arguments(self):
        with DAG("d"):
            with self.assertRaisesRegex(TypeError, "unexpected keyword argument 'nome'"):
                Hello.partial(task_id="t").expand(nome=["a"])
            with self.assertRaisesRegex(TypeError, "already specified argument: name"):
                Hello.partial(task_id="t", name="x").expand(name=["a"])

    def test_the_product_of_two_lists_has_airflows_order(self):
        with DAG("d"):

            @task
            def add(x, y):
                return x + y

            operator = add.expand(x=[1, 2], y=[10, 20, 30]).operator
        found = [operator.expand_input.resolve({}, index) for index in range(6)]
        pairs = [(kwargs["x"], kwargs["y"]) for kwargs in (resolved.get("op_kwargs", resolved) for resolved in found)]
        self.assertEqual(pairs, [(1, 10), (1, 20), (1, 30), (2, 10), (2, 20), (2, 30)])

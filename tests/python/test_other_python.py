"""Functions that run in another Python."""

import sys
import unittest
import unittest.mock

from leoflow.authoring.dag.dag import DAG
from leoflow.authoring.operators import other_python, virtualenvs
from leoflow.authoring.operators.decorators import task
from leoflow.authoring.operators.virtualenv_operators import ExternalPythonOperator, PythonVirtualenvOperator
from leoflow.common.exceptions import AirflowException, AirflowSkipException


def call(function, *args, serializer="pickle", string_args=(), skip_on_exit_code=(), **kwargs):
    arguments = {"args": list(args), "kwargs": kwargs, "moments": []}
    return other_python.call(function, sys.executable, arguments, serializer=serializer, string_args=string_args,
                             environment={}, skip_on_exit_code=skip_on_exit_code)


def doubles(value: "NotKnownThere", times=2):  # noqa: F821 - annotations are not evaluated there.
    return {"value": value * times, "strings": virtualenv_string_args}  # noqa: F821 - defined by the script.


def fails():
    raise KeyError("what is missing")


def leaves(code):
    import sys

    sys.exit(code)


def gives_its_own():
    class Own:
        pass

    globals()["Own"] = Own
    Own.__qualname__ = "Own"
    return Own()


class TestCall(unittest.TestCase):
    def test_passes_arguments_and_returns_the_result(self):
        self.assertEqual(call(doubles, "ab", string_args=["x", 1]), {"value": "abab", "strings": ["x", "1"]})
        self.assertEqual(call(doubles, (1,), times=3)["value"], (1, 1, 1))

    def test_reports_failures_of_the_function(self):
        with self.assertRaisesRegex(AirflowException, "KeyError: 'what is missing'"):
            call(fails)
        with self.assertRaisesRegex(AirflowException, "exit status 3"):
            call(leaves, 3)
        with self.assertRaises(AirflowSkipException):
            call(leaves, 99, skip_on_exit_code=[99])

    def test_names_values_that_cannot_be_serialized(self):
        with self.assertRaisesRegex(AirflowException, "the arguments 'times'.*pickle"):
            call(doubles, 1, times=lambda: 2)
        with self.assertRaisesRegex(AirflowException, "cannot be read in this Python"):
            call(gives_its_own)

    def test_accepts_only_functions_with_source(self):
        for function in (lambda: 1, print, int):
            with self.assertRaises(ValueError):
                other_python.check_function(function, "Operator")


class TestSource(unittest.TestCase):
    def test_removes_the_task_decorators(self):
        with DAG("d"):
            @task.virtualenv(
                requirements=["a"],
            )
            def decorated(
                one,
            ):
                # A comment.
                return one

            operator = decorated(3).operator
        source = other_python.source_of(operator.python_callable)
        self.assertTrue(source.startswith("def decorated("), source)
        self.assertIn("# A comment.", source)


class TestOperators(unittest.TestCase):
    def test_have_airflows_names_and_check_their_arguments(self):
        with DAG("d"):
            @task.branch_external_python(python=sys.executable)
            def branches():
                return "a"

            operator = branches().operator
            PythonVirtualenvOperator(task_id="v", python_callable=doubles, requirements="a\nb", serializer="dill")
            with self.assertRaisesRegex(AirflowException, "Expected one of 'pickle'"):
                ExternalPythonOperator(task_id="x", python=sys.executable, python_callable=doubles, serializer="json")
        self.assertEqual((operator.task_type, operator.operator_name),
                         ("_BranchExternalPythonDecoratedOperator", "@task.branch_external_python"))

    def test_the_specification_of_an_environment(self):
        def spec(**given):
            return PythonVirtualenvOperator(task_id="v", python_callable=doubles, **given).venv_spec()

        with DAG("d"):
            pass
        self.assertEqual(spec(requirements=["b", "a"]).cache_key("k"), spec(requirements=["a", "b"]).cache_key("k"))
        self.assertNotEqual(spec(requirements=["a"]).cache_key("k"), spec(requirements=["a"]).cache_key("l"))
        self.assertEqual(spec(serializer="dill").requirements, [])
        self.assertEqual(spec(serializer="dill", system_site_packages=False).requirements, ["dill"])
        self.assertEqual(virtualenvs.index_variables(["x", "y", "z"]), {"UV_DEFAULT_INDEX": "x", "UV_INDEX": "y z"})
        self.assertEqual(virtualenvs.index_variables([]), {})

    def test_arguments_override_the_context(self):
        import datetime

        given = []

        def record(function, python, arguments, **_):
            given.append(arguments)

        def takes(logical_date, data_interval_end, many):
            pass

        with DAG("d"):
            operator = ExternalPythonOperator(task_id="x", python=sys.executable, python_callable=takes,
                                          op_kwargs={"logical_date": "a text", "many": [1, 2]})
        operator.has_pendulum = lambda: True
        noon = datetime.datetime(2026, 1, 1, 12, tzinfo=datetime.timezone.utc)
        with unittest.mock.patch.object(other_python, "call", record):
            operator.call({"logical_date": noon, "data_interval_end": noon})
        self.assertEqual(given[0]["moments"], ["data_interval_end"])
        self.assertEqual(given[0]["kwargs"], {"logical_date": "a text", "data_interval_end": noon, "many": [1, 2]})

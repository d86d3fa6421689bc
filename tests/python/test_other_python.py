"""Functions that run in another Python."""

import sys
import unittest
import unittest.mock

from leoflow.authoring import other_python, virtualenvs
from leoflow.authoring.dag import DAG
from leoflow.authoring.decorators import task
from leoflow.authoring.virtualenv_operators import ExternalPythonOperator, PythonVirtualenvOperator
from leoflow.common.exceptions import AirflowException, AirflowSkipException


def call(function, *args, serializer="pickle", string_args=(), skip_on_exit_code=(), **kwargs):
    arguments = {"args": list(args), "kwargs": kwargs, "moments": []}
    return other_python.call(function, sys.executable, arguments, serializer=serializer, string_args=string_args,
                             environment={}, skip_on_exit_code=skip_on_exit_code)


def doubles(value: "NotKnownThere", times=2):  # noqa: F821 - annotations are not looked at there.
    return {"value": value * times, "strings": virtualenv_string_args}  # noqa: F821 - it is there.


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
    def test_arguments_go_there_and_the_result_comes_back(self):
        self.assertEqual(call(doubles, "ab", string_args=["x", 1]), {"value": "abab", "strings": ["x", "1"]})
        self.assertEqual(call(doubles, (1,), times=3)["value"], (1, 1, 1))

    def test_what_goes_wrong_there_is_said_here(self):
        with self.assertRaisesRegex(AirflowException, "KeyError: 'what is missing'"):
            call(fails)
        with self.assertRaisesRegex(AirflowException, "exit status 3"):
            call(leaves, 3)
        with self.assertRaises(AirflowSkipException):
            call(leaves, 99, skip_on_exit_code=[99])

    def test_what_cannot_be_taken_there_or_back_is_named(self):
        with self.assertRaisesRegex(AirflowException, "the arguments 'times'.*pickle"):
            call(doubles, 1, times=lambda: 2)
        with self.assertRaisesRegex(AirflowException, "cannot be read in this Python"):
            call(gives_its_own)

    def test_only_functions_that_have_a_source(self):
        for one in (lambda: 1, print, int):
            with self.assertRaises(ValueError):
                other_python.check_function(one, "Operator")


class TestSource(unittest.TestCase):
    def test_the_decorators_of_tasks_are_left_out(self):
        with DAG("d"):
            @task.virtualenv(
                requirements=["a"],
            )
            def decorated(
                one,
            ):
                # A comment.
                return one

            made = decorated(3).operator
        source = other_python.source_of(made.python_callable)
        self.assertTrue(source.startswith("def decorated("), source)
        self.assertIn("# A comment.", source)


class TestOperators(unittest.TestCase):
    def test_what_they_are_called_and_what_they_take(self):
        with DAG("d"):
            @task.branch_external_python(python=sys.executable)
            def branches():
                return "a"

            made = branches().operator
            PythonVirtualenvOperator(task_id="v", python_callable=doubles, requirements="a\nb", serializer="dill")
            with self.assertRaisesRegex(AirflowException, "Expected one of 'pickle'"):
                ExternalPythonOperator(task_id="x", python=sys.executable, python_callable=doubles, serializer="json")
        self.assertEqual((made.task_type, made.operator_name), ("_BranchExternalPythonDecoratedOperator", "@task.branch_external_python"))

    def test_what_an_environment_consists_of(self):
        def of(**given):
            return PythonVirtualenvOperator(task_id="v", python_callable=doubles, **given).wanted()

        with DAG("d"):
            pass
        self.assertEqual(of(requirements=["b", "a"]).described("k"), of(requirements=["a", "b"]).described("k"))
        self.assertNotEqual(of(requirements=["a"]).described("k"), of(requirements=["a"]).described("l"))
        self.assertEqual(of(serializer="dill").requirements, [])
        self.assertEqual(of(serializer="dill", system_site_packages=False).requirements, ["dill"])
        self.assertEqual(virtualenvs.index_variables(["x", "y", "z"]), {"UV_DEFAULT_INDEX": "x", "UV_INDEX": "y z"})
        self.assertEqual(virtualenvs.index_variables([]), {})

    def test_what_is_given_comes_before_the_context(self):
        import datetime

        given = []

        def look(function, python, arguments, **_):
            given.append(arguments)

        def takes(logical_date, data_interval_end, many):
            pass

        with DAG("d"):
            made = ExternalPythonOperator(task_id="x", python=sys.executable, python_callable=takes,
                                          op_kwargs={"logical_date": "a text", "many": [1, 2]})
        made.has_pendulum = lambda: True
        noon = datetime.datetime(2026, 1, 1, 12, tzinfo=datetime.timezone.utc)
        with unittest.mock.patch.object(other_python, "call", look):
            made.call({"logical_date": noon, "data_interval_end": noon})
        self.assertEqual(given[0]["moments"], ["data_interval_end"])
        self.assertEqual(given[0]["kwargs"], {"logical_date": "a text", "data_interval_end": noon, "many": [1, 2]})

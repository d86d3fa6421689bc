"""Runs a function in a Python other than its task's. The processes exchange source, arguments and result in files."""

from __future__ import annotations

import ast
import inspect
import os
import subprocess
import sys
import textwrap

from leoflow.common.exceptions import AirflowException, AirflowSkipException

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Collection
    from typing import Any

# Modules that can serialize the arguments and the result.
SERIALIZERS = ("pickle", "dill", "cloudpickle")
# Decorators that are removed from the source: they define the task, and the other Python may lack Airflow.
TASK_DECORATORS = ("task", "setup", "teardown")

SCRIPT = """\
from __future__ import annotations

import sys

with open(sys.argv[3], encoding="utf-8") as _file:
    virtualenv_string_args = _file.read().splitlines()

{source}

def _leoflow(function, arguments, result, failure):
    import {serializer} as serializer

    try:
        import pendulum
    except ImportError:
        pendulum = None
    try:
        with open(arguments, "rb") as file:
            call = serializer.load(file)
        for name in call["moments"]:
            if pendulum is not None and call["kwargs"][name] is not None:
                call["kwargs"][name] = pendulum.instance(call["kwargs"][name])
        returned = function(*call["args"], **call["kwargs"])
    except Exception as error:
        with open(failure, "w", encoding="utf-8", errors="backslashreplace") as file:
            file.write("%s: %s" % (type(error).__name__, error))
        raise
    if returned is not None:
        with open(result, "wb") as file:
            serializer.dump(returned, file)


_leoflow({function}, sys.argv[1], sys.argv[2], sys.argv[4])
"""


def check_function(function: Any, operator: str) -> None:
    """Raises ValueError for a callable whose source cannot be run in another Python."""
    if not inspect.isfunction(function) or function.__name__ == "<lambda>":
        raise ValueError(f"{operator} only supports functions for python_callable arg")
    if inspect.isgeneratorfunction(function):
        raise ValueError(f"{operator} does not support using 'yield' in python_callable")


def source_of(function: Callable) -> str:
    """Returns the source of a function without its task decorators."""
    text = textwrap.dedent(inspect.getsource(function))
    lines = text.splitlines()
    definition = ast.parse(text).body[0]
    for decorator in reversed(definition.decorator_list):
        name = decorator.func if isinstance(decorator, ast.Call) else decorator
        while isinstance(name, ast.Attribute):
            name = name.value
        if isinstance(name, ast.Name) and name.id in TASK_DECORATORS:
            # `lineno` is the line of the `@`.
            del lines[decorator.lineno - 1:decorator.end_lineno]
    return "\n".join(lines) + "\n"


def serialize_arguments(serializer: str, arguments: dict[str, Any]) -> bytes:
    """Serializes the arguments. Raises AirflowException with the names of arguments that cannot be serialized."""
    import importlib

    module = importlib.import_module(serializer)
    try:
        return module.dumps(arguments)
    except Exception as error:
        unserializable = []
        for name, value in arguments["kwargs"].items():
            try:
                module.dumps(value)
            except Exception:
                unserializable.append(name)
        names = f"the arguments {', '.join(map(repr, unserializable))}" if unserializable else "the arguments"
        raise AirflowException(f"cannot pass {names} to the other Python with {serializer}: {error}") from error


def call(function: Callable, python: str, arguments: dict[str, Any], *, serializer: str, string_args: Collection[Any],
         environment: dict[str, str], skip_on_exit_code: Collection[int]) -> Any:
    """Calls the function in `python` (a path) and returns its result. `arguments` has the keys `args`, `kwargs` and
    `moments`, the names of the kwargs that are times. Raises AirflowException on failure, and AirflowSkipException for
    an exit code in `skip_on_exit_code`."""
    import tempfile

    with tempfile.TemporaryDirectory(prefix="leoflow-call") as folder:
        names = ("script.py", "arguments", "result", "string_args", "failure")
        script_path, arguments_path, result_path, strings_path, failure_path = (os.path.join(folder, name) for name in names)
        with open(script_path, "w", encoding="utf-8") as file:
            file.write(SCRIPT.format(source=source_of(function), function=function.__name__, serializer=serializer))
        with open(arguments_path, "wb") as file:
            file.write(serialize_arguments(serializer, arguments))
        with open(strings_path, "w", encoding="utf-8") as file:
            file.write("\n".join(map(str, string_args)))
        sys.stdout.flush()
        command = [python, script_path, arguments_path, result_path, strings_path, failure_path]
        code = subprocess.run(command, env=environment, stderr=subprocess.STDOUT).returncode
        if code in skip_on_exit_code:
            raise AirflowSkipException(f"Process exited with code {code}. Skipping.")
        if code != 0:
            reason = ""
            if os.path.exists(failure_path):
                with open(failure_path, encoding="utf-8") as file:
                    reason = f": {file.read()}"
            raise AirflowException(f"the function failed with exit status {code} in {python}{reason}")
        return load_result(serializer, result_path)


def load_result(serializer, path):
    """Reads the result of the function. Without a file, the function returned None."""
    import importlib

    if not os.path.exists(path):
        return None
    with open(path, "rb") as file:
        try:
            return importlib.import_module(serializer).load(file)
        except Exception as error:
            raise AirflowException(
                f"the function's result cannot be read in this Python ({error}): return plain values of types that both Pythons have"
            ) from error

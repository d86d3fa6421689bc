"""A function in another Python than its task's: its source and its arguments go there in files, its result comes back in one."""

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

# What takes arguments there, and what comes back.
SERIALIZERS = ("pickle", "dill", "cloudpickle")
# Decorators that are the task's, not the function's.
OF_TASKS = ("task", "setup", "teardown")

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
            given = serializer.load(file)
        for name in given["moments"]:
            if pendulum is not None and given["kwargs"][name] is not None:
                given["kwargs"][name] = pendulum.instance(given["kwargs"][name])
        returned = function(*given["args"], **given["kwargs"])
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
    """Raises ValueError for what has no source that could be taken elsewhere."""
    if not inspect.isfunction(function) or function.__name__ == "<lambda>":
        raise ValueError(f"{operator} only supports functions for python_callable arg")
    if inspect.isgeneratorfunction(function):
        raise ValueError(f"{operator} does not support using 'yield' in python_callable")


def source_of(function: Callable) -> str:
    """Its text, without the decorators that make a task of it."""
    text = textwrap.dedent(inspect.getsource(function))
    lines = text.splitlines()
    defined = ast.parse(text).body[0]
    for decorator in reversed(defined.decorator_list):
        name = decorator.func if isinstance(decorator, ast.Call) else decorator
        while isinstance(name, ast.Attribute):
            name = name.value
        if isinstance(name, ast.Name) and name.id in OF_TASKS:
            # With the `@`, which is before it.
            del lines[decorator.lineno - 1:decorator.end_lineno]
    return "\n".join(lines) + "\n"


def dumped(serializer: str, arguments: dict[str, Any]) -> bytes:
    """Raises AirflowException that names the arguments which cannot be taken there."""
    import importlib

    module = importlib.import_module(serializer)
    try:
        return module.dumps(arguments)
    except Exception as error:
        stuck = []
        for name, value in arguments["kwargs"].items():
            try:
                module.dumps(value)
            except Exception:
                stuck.append(name)
        told = f"the arguments {', '.join(map(repr, stuck))}" if stuck else "its arguments"
        raise AirflowException(f"{told} cannot be taken to the other Python with {serializer}: {error}") from error


def call(function: Callable, python: str, arguments: dict[str, Any], *, serializer: str, string_args: Collection[Any],
         environment: dict[str, str], skip_on_exit_code: Collection[int]) -> Any:
    """What the function returns there. `arguments` are `args`, `kwargs`, and `moments`: names of those kwargs that are
    times. Raises AirflowException in the words of what went wrong, and AirflowSkipException for the codes that mean that."""
    import tempfile

    with tempfile.TemporaryDirectory(prefix="leoflow-call") as folder:
        names = ("script.py", "arguments", "result", "string_args", "failure")
        script, given, result, strings, failure = (os.path.join(folder, name) for name in names)
        with open(script, "w", encoding="utf-8") as file:
            file.write(SCRIPT.format(source=source_of(function), function=function.__name__, serializer=serializer))
        with open(given, "wb") as file:
            file.write(dumped(serializer, arguments))
        with open(strings, "w", encoding="utf-8") as file:
            file.write("\n".join(map(str, string_args)))
        sys.stdout.flush()
        command = [python, script, given, result, strings, failure]
        code = subprocess.run(command, env=environment, stderr=subprocess.STDOUT).returncode
        if code in skip_on_exit_code:
            raise AirflowSkipException(f"Process exited with code {code}. Skipping.")
        if code != 0:
            said = ""
            if os.path.exists(failure):
                with open(failure, encoding="utf-8") as file:
                    said = f": {file.read()}"
            raise AirflowException(f"the function ended with exit status {code} in {python}{said}")
        return loaded(serializer, result)


def loaded(serializer, path):
    import importlib

    if not os.path.exists(path):
        return None
    with open(path, "rb") as file:
        try:
            return importlib.import_module(serializer).load(file)
        except Exception as error:
            raise AirflowException(
                f"what the function returned cannot be read in this Python ({error}): return plain values, of types that both have"
            ) from error

"""The standard Bash, Python and Empty operators."""

from __future__ import annotations

import os
import types

from leoflow.authoring.assets.definitions import Metadata
from leoflow.authoring.mapping.xcom_arg import Argument
from leoflow.authoring.operators.base_operator import BaseOperator
from leoflow.common.exceptions import AirflowException, AirflowSkipException
from leoflow.common.masking import hide
from leoflow.common.signatures import KEYWORD_ONLY, POSITIONAL_ONLY, POSITIONAL_OR_KEYWORD, VAR_KEYWORD, parameters
from leoflow.common.task_log import PROGRAM
from leoflow.common.values import LARGEST_BYTES

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import Any

# Time between SIGTERM and SIGKILL for a command; shorter than the time for the task itself.
KILL_AFTER_SECONDS = 4
# Longest piece of a line that is read at once: a line without an end must not fill the memory.
PIECE_BYTES = 64 * 1024


class EmptyOperator(BaseOperator):
    """Does nothing; groups the dependencies of other tasks."""

    ui_color = "#e8f7e4"
    inherits_from_empty_operator = True

    def execute(self, context):
        return None


class PythonOperator(BaseOperator):
    """<https://airflow.apache.org/docs/apache-airflow-providers-standard/stable/operators/python.html>"""

    template_fields = ("templates_dict", "op_args", "op_kwargs")
    template_fields_renderers = {"templates_dict": "json", "op_args": "py", "op_kwargs": "py"}
    shallow_copy_attrs = ("python_callable", "op_kwargs")

    def __init__(self, *, python_callable, op_args=None, op_kwargs=None, templates_dict=None, templates_exts=None,
                 show_return_value_in_logs=True, **others):
        if not callable(python_callable):
            raise AirflowException("`python_callable` param must be callable")
        self.templates_dict = templates_dict
        if templates_exts:
            self.template_ext = templates_exts
        self.python_callable = python_callable
        # `op_args` or `op_kwargs` itself may be the result of another task.
        self.op_args = op_args if isinstance(op_args, Argument) else list(op_args or ())
        self.op_kwargs = op_kwargs if isinstance(op_kwargs, Argument) else dict(op_kwargs or {})
        self.show_return_value_in_logs = show_return_value_in_logs
        super().__init__(**others)

    def execute(self, context):
        return self.call(context)

    def call(self, context):
        if self.templates_dict:
            context["templates_dict"] = self.templates_dict
        arguments = keyword_arguments(self.python_callable, self.op_args, AvailableArguments(context, self.op_kwargs), self.op_kwargs)
        return self.call_with(arguments, context)

    def call_with(self, arguments, context):
        result = self.python_callable(*self.op_args, **arguments)
        if isinstance(result, types.GeneratorType):
            result = run_generator(result, context)
        elif isinstance(result, types.CoroutineType):
            import asyncio

            result = asyncio.run(result)
        if self.show_return_value_in_logs:
            self.log.info("Done. Returned value was: %s", hide(f"{result!r}"[:10_000]))
        return result


def run_generator(generator, context):
    """Runs a generator to its end and returns its return value. Records yielded Metadata; ignores other values."""
    while True:
        try:
            yielded = next(generator)
        except StopIteration as end:
            return end.value
        if isinstance(yielded, Metadata):
            context["outlet_events"].add_metadata(yielded)


class AvailableArguments:
    """The user's own arguments and, for other names, the context, whose values are computed only on access."""

    def __init__(self, context, own):
        self.context = context
        self.own = own

    def __contains__(self, name):
        return name in self.own or name in self.context

    def __getitem__(self, name):
        return self.own[name] if name in self.own else self.context[name]

    def items(self):
        return {**{name: self.context[name] for name in self.context}, **self.own}.items()


def keyword_arguments(function: Callable, positional: Sequence, available: AvailableArguments, own: Mapping[str, Any]) -> dict[str, Any]:
    """Selects the available arguments that the function accepts by name."""
    try:
        signature = parameters(function)
    except (TypeError, ValueError):
        # A builtin without a signature gets only the user's own arguments.
        return dict(own)
    positional_names = [
        parameter.name for parameter in signature.values() if parameter.kind in (POSITIONAL_ONLY, POSITIONAL_OR_KEYWORD)
    ][: len(positional)]
    for name in positional_names:
        if name in available:
            raise ValueError(f"The key {name!r} in args is a part of kwargs and therefore reserved.")
    if any(parameter.kind == VAR_KEYWORD for parameter in signature.values()):
        return {name: value for name, value in available.items() if name not in positional_names}
    accepted = [
        parameter.name
        for parameter in signature.values()
        if parameter.kind in (POSITIONAL_OR_KEYWORD, KEYWORD_ONLY) and parameter.name not in positional_names
    ]
    # Arguments that the function does not take are dropped, as in Airflow.
    return {name: available[name] for name in accepted if name in available}


class BashOperator(BaseOperator):
    """<https://airflow.apache.org/docs/apache-airflow-providers-standard/stable/operators/bash.html>"""

    template_fields = ("bash_command", "env", "cwd")
    template_fields_renderers = {"bash_command": "bash", "env": "json"}
    template_ext = (".sh", ".bash")
    ui_color = "#f0ede4"

    def __init__(self, *, bash_command, env=None, append_env=False, output_encoding="utf-8", skip_on_exit_code=99,
                 cwd=None, output_processor=None, **others):
        self.bash_command = bash_command
        self.env = env
        self.append_env = append_env
        self.output_encoding = output_encoding
        if skip_on_exit_code is None:
            skip_on_exit_code = []
        self.skip_on_exit_code = [skip_on_exit_code] if isinstance(skip_on_exit_code, int) else list(skip_on_exit_code)
        self.cwd = cwd
        self.output_processor = output_processor or (lambda line: line)
        self.process = None
        super().__init__(**others)

    def execute(self, context):
        return self.run_command(self.bash_command, context)

    def run_command(self, command, context):
        # Imported here, because the import is slow and few tasks need it.
        import tempfile

        if self.cwd is not None:
            if not os.path.exists(self.cwd):
                raise AirflowException(f"Can not find the cwd: {self.cwd}")
            if not os.path.isdir(self.cwd):
                raise AirflowException(f"The cwd {self.cwd} must be a directory")
        environment = dict(os.environ) if self.env is None or self.append_env else {}
        environment.update(self.env or {})
        environment.update(context["ti"].airflow_environment())
        # The variable marks the command's processes as processes of this task.
        environment.update({name: os.environ[name] for name in ("LEOFLOW_TASK",) if name in os.environ})
        with tempfile.TemporaryDirectory(prefix="airflowtmp") as folder:
            last = self.stream(command, environment, self.cwd or folder)
        code = self.process.returncode
        if code in self.skip_on_exit_code:
            raise AirflowSkipException(f"Bash command returned exit code {code}. Skipping.")
        if code != 0:
            raise AirflowException(f"Bash command failed. The command returned a non-zero exit code {code}.")
        return self.output_processor(last)

    def stream(self, command, environment, folder):
        """Runs the command and logs its output; returns the last line."""
        import logging
        import shutil
        import subprocess

        self.program_log = logging.getLogger(PROGRAM)
        self.program_log.info("Running command: %s", hide(command))
        self.process = subprocess.Popen(
            [shutil.which("bash") or "bash", "-c", command],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            cwd=folder,
            env=environment,
            # As in Airflow, signals for the task's process group do not reach the command.
            start_new_session=True,
        )
        last = self.log_output()
        self.process.wait()
        self.program_log.info("Command exited with return code %s", self.process.returncode)
        return last

    def log_output(self):
        """Logs the output line by line. Returns the last line; stops extending it once it exceeds the XCom limit."""
        import codecs

        decoder = codecs.getincrementaldecoder(self.output_encoding)("backslashreplace")
        last_line, starts_line = "", True
        for raw in iter(lambda: self.process.stdout.readline(PIECE_BYTES), b""):
            text, ends_line = decoder.decode(raw), raw.endswith(b"\n")
            last_line = text if starts_line else last_line + text if len(last_line) <= LARGEST_BYTES else last_line
            self.program_log.info("%s", text.rstrip() if ends_line else text)
            starts_line = ends_line
        if not starts_line:
            undecoded = decoder.decode(b"", True)
            last_line += undecoded
            if undecoded:
                self.program_log.info("%s", undecoded)
        return last_line.rstrip()

    def on_kill(self):
        """Terminates the command; kills it after KILL_AFTER_SECONDS, before the task itself is killed."""
        import signal
        import subprocess
        import threading

        if self.process is None or self.process.poll() is not None:
            return
        # The command leads its own process group.
        os.killpg(self.process.pid, signal.SIGTERM)
        reader = threading.Thread(target=self.log_remaining_output, daemon=True)
        reader.start()
        try:
            self.process.wait(KILL_AFTER_SECONDS)
        except subprocess.TimeoutExpired:
            os.killpg(self.process.pid, signal.SIGKILL)
        reader.join(0.5)

    def log_remaining_output(self):
        """Logs the remaining output. Reads the descriptor directly, because the interrupted reader may hold the file
        object's lock."""
        pipe = self.process.stdout.fileno()
        while chunk := os.read(pipe, 65536):
            for line in chunk.decode(self.output_encoding, errors="backslashreplace").splitlines():
                self.program_log.info("%s", line)


def determine_kwargs(func, args, kwargs):
    """Selects the `kwargs` that the function accepts, like Airflow's function in `operator_helpers`."""
    return keyword_arguments(func, args, kwargs, kwargs)

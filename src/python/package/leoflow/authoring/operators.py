"""The standard Bash, Python and Empty operators."""

from __future__ import annotations

import os
import types

from leoflow.authoring.base_operator import BaseOperator
from leoflow.authoring.xcom_arg import Argument
from leoflow.common.exceptions import AirflowException, AirflowSkipException
from leoflow.common.masking import hide
from leoflow.common.signatures import KEYWORD_ONLY, POSITIONAL_ONLY, POSITIONAL_OR_KEYWORD, VAR_KEYWORD, parameters
from leoflow.common.task_log import PROGRAM

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import Any

# Shorter than the time between the TERM and the KILL that the task itself gets.
KILL_AFTER_SECONDS = 4
# Of a line that is read at once: one without an end must not fill the memory.
PIECE_BYTES = 64 * 1024


class EmptyOperator(BaseOperator):
    """Does nothing; holds other tasks together."""

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
        # The whole may be what another task returns.
        self.op_args = op_args if isinstance(op_args, Argument) else list(op_args or ())
        self.op_kwargs = op_kwargs if isinstance(op_kwargs, Argument) else dict(op_kwargs or {})
        self.show_return_value_in_logs = show_return_value_in_logs
        super().__init__(**others)

    def execute(self, context):
        return self.call(context)

    def call(self, context):
        if self.templates_dict:
            context["templates_dict"] = self.templates_dict
        arguments = keyword_arguments(self.python_callable, self.op_args, Offered(context, self.op_kwargs), self.op_kwargs)
        return self.call_with(arguments, context)

    def call_with(self, arguments, context):
        result = self.python_callable(*self.op_args, **arguments)
        if isinstance(result, types.GeneratorType):
            result = exhaust(result, context)
        elif isinstance(result, types.CoroutineType):
            import asyncio

            result = asyncio.run(result)
        if self.show_return_value_in_logs:
            self.log.info("Done. Returned value was: %s", hide(f"{result!r}"[:10_000]))
        return result


def exhaust(generator, context):
    """What it yields says something of assets, or is for nobody; what it returns is the result."""
    from leoflow.authoring.assets import Metadata

    while True:
        try:
            yielded = next(generator)
        except StopIteration as end:
            return end.value
        if isinstance(yielded, Metadata):
            context["outlet_events"].take(yielded)


class Offered:
    """The context and the user's own arguments, of which each is looked at only when it is taken."""

    def __init__(self, context, given):
        self.context = context
        self.given = given

    def __contains__(self, name):
        return name in self.given or name in self.context

    def __getitem__(self, name):
        return self.given[name] if name in self.given else self.context[name]

    def items(self):
        return {**{name: self.context[name] for name in self.context}, **self.given}.items()


def keyword_arguments(function: Callable, positional: Sequence, offered: Offered, wanted: Mapping[str, Any]) -> dict[str, Any]:
    """Of the context and the user's own arguments, those that the function takes by name."""
    try:
        signature = parameters(function)
    except (TypeError, ValueError):
        # A builtin that does not tell: it gets what the user gave.
        return dict(wanted)
    by_place = [
        one.name for one in signature.values() if one.kind in (POSITIONAL_ONLY, POSITIONAL_OR_KEYWORD)
    ][: len(positional)]
    for name in by_place:
        if name in offered:
            raise ValueError(f"The key {name!r} in args is a part of kwargs and therefore reserved.")
    if any(one.kind == VAR_KEYWORD for one in signature.values()):
        return {name: value for name, value in offered.items() if name not in by_place}
    takes = [
        one.name
        for one in signature.values()
        if one.kind in (POSITIONAL_OR_KEYWORD, KEYWORD_ONLY) and one.name not in by_place
    ]
    # What the function does not take is left out, as in Airflow.
    return {name: offered[name] for name in takes if name in offered}


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
        # Only tasks that need it pay for it.
        import tempfile

        if self.cwd is not None:
            if not os.path.exists(self.cwd):
                raise AirflowException(f"Can not find the cwd: {self.cwd}")
            if not os.path.isdir(self.cwd):
                raise AirflowException(f"The cwd {self.cwd} must be a directory")
        environment = dict(os.environ) if self.env is None or self.append_env else {}
        environment.update(self.env or {})
        environment.update(context["ti"].airflow_environment())
        # By which what it starts is known as this task's.
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
        """Runs it, passing its output on; returns the last line."""
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
            # As in Airflow: signals for the task's own group are not for it.
            start_new_session=True,
        )
        last = self.pass_on()
        self.process.wait()
        self.program_log.info("Command exited with return code %s", self.process.returncode)
        return last

    def pass_on(self):
        """Its output as it comes; of the last line no more than what is too much for an XCom."""
        import codecs

        from leoflow.common.values import LARGEST_BYTES

        decoder = codecs.getincrementaldecoder(self.output_encoding)("backslashreplace")
        last, is_new = "", True
        for raw in iter(lambda: self.process.stdout.readline(PIECE_BYTES), b""):
            text, ends = decoder.decode(raw), raw.endswith(b"\n")
            last = text if is_new else last + text if len(last) <= LARGEST_BYTES else last
            self.program_log.info("%s", text.rstrip() if ends else text)
            is_new = ends
        if not is_new:
            rest = decoder.decode(b"", True)
            last += rest
            if rest:
                self.program_log.info("%s", rest)
        return last.rstrip()

    def on_kill(self):
        """Lets the command clean up, for as long as the task itself has left."""
        import signal
        import subprocess
        import threading

        if self.process is None or self.process.poll() is not None:
            return
        # The command leads a group of its own.
        os.killpg(self.process.pid, signal.SIGTERM)
        reader = threading.Thread(target=self.pass_on_rest, daemon=True)
        reader.start()
        try:
            self.process.wait(KILL_AFTER_SECONDS)
        except subprocess.TimeoutExpired:
            os.killpg(self.process.pid, signal.SIGKILL)
        reader.join(0.5)

    def pass_on_rest(self):
        """What it still says. The pipe's own reader was interrupted, and may hold its lock."""
        pipe = self.process.stdout.fileno()
        while chunk := os.read(pipe, 65536):
            for line in chunk.decode(self.output_encoding, errors="backslashreplace").splitlines():
                self.program_log.info("%s", line)


def determine_kwargs(func, args, kwargs):
    """Of `kwargs`, those that the function takes (Airflow's `operator_helpers`)."""
    return keyword_arguments(func, args, kwargs, kwargs)

"""Sensors that wait for a function, a command, or a file."""

from leoflow.authoring.operators.standard import AvailableArguments, keyword_arguments
from leoflow.authoring.sensors.base import BaseSensorOperator, PokeReturnValue
from leoflow.common.exceptions import AirflowFailException
from leoflow.common.settings import image_folder


class PythonSensor(BaseSensorOperator):
    template_fields = ("templates_dict", "op_args", "op_kwargs")

    def __init__(self, *, python_callable, op_args=None, op_kwargs=None, templates_dict=None, **others):
        super().__init__(**others)
        self.python_callable = python_callable
        self.op_args = op_args or []
        self.op_kwargs = op_kwargs or {}
        self.templates_dict = templates_dict

    def poke(self, context):
        if self.templates_dict:
            context["templates_dict"] = self.templates_dict
        arguments = keyword_arguments(self.python_callable, self.op_args, AvailableArguments(context, self.op_kwargs), self.op_kwargs)
        outcome = self.python_callable(*self.op_args, **arguments)
        return outcome if isinstance(outcome, PokeReturnValue) else bool(outcome)


class BashSensor(BaseSensorOperator):
    template_fields = ("bash_command", "env")

    def __init__(self, *, bash_command, env=None, output_encoding="utf-8", retry_exit_code=None, **others):
        super().__init__(**others)
        self.bash_command = bash_command
        self.env = env
        self.output_encoding = output_encoding
        self.retry_exit_code = retry_exit_code

    def poke(self, context):
        import os
        import shutil
        import subprocess

        code = subprocess.run(
            [shutil.which("bash") or "bash", "-c", self.bash_command],
            stdin=subprocess.DEVNULL,
            stderr=subprocess.STDOUT,
            env={**(os.environ if self.env is None else self.env), **context["ti"].airflow_environment()},
        ).returncode
        if code == 0:
            return True
        if self.retry_exit_code is None or code == self.retry_exit_code:
            return False
        raise AirflowFailException(f"Command exited with return code {code}")


class FileSensor(BaseSensorOperator):
    template_fields = ("filepath", "fs_conn_id")

    def __init__(self, *, filepath, fs_conn_id="fs_default", recursive=False, **others):
        super().__init__(**others)
        self.filepath = filepath
        self.fs_conn_id = fs_conn_id
        self.recursive = recursive

    def known_wait(self):
        path = self.filepath
        is_plain = isinstance(path, str) and path.startswith("/") and not any(character in path for character in "*?[{\0")
        # An absolute path ignores the connection's path, but any other connection must exist.
        if not is_plain or self.fs_conn_id != "fs_default" or self.exponential_backoff:
            return None
        # The scheduler does not see `image_folder`.
        return {"kind": "file", "path": image_folder.in_project(path), "poke_interval": self.poke_interval}

    def poke(self, context):
        import glob
        import os

        # Imported here, because only a poke needs it and the scheduler checks most files itself.
        from leoflow.authoring.hooks import FSHook

        path = os.path.join(FSHook(self.fs_conn_id).get_path(), self.filepath)
        for match in glob.glob(path, recursive=self.recursive):
            if os.path.isfile(match) or any(files for _, _, files in os.walk(match)):
                return True
        return False

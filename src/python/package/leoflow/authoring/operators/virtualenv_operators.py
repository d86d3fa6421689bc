"""Operators whose function runs in another Python: in a new virtual environment, or in an existing Python.

<https://airflow.apache.org/docs/apache-airflow-providers-standard/stable/operators/python.html>
"""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterable

from leoflow.authoring.mapping.xcom_arg import concrete
from leoflow.authoring.operators import other_python, virtualenvs
from leoflow.authoring.operators.branching import BranchByResultMixIn
from leoflow.authoring.operators.standard import AvailableArguments, PythonOperator, keyword_arguments
from leoflow.authoring.operators.taskflow import Decorated
from leoflow.common.exceptions import AirflowException, Unsupported
from leoflow.common.local_modules import roots_of
from leoflow.common.masking import hide

# Context values of plain types.
PLAIN_KEYS = ("ds", "ds_nodash", "expanded_ti_count", "run_id", "task_instance_key_str", "task_reschedule_count", "test_mode",
         "ts", "ts_nodash", "ts_nodash_with_tz")
# Context values that are times; passed only where pendulum is available.
TIME_KEYS = ("data_interval_end", "data_interval_start", "logical_date", "prev_data_interval_end_success",
           "prev_data_interval_start_success", "prev_end_date_success", "prev_start_date_success")


def as_list(value):
    return None if value is None else [value] if isinstance(value, str) else list(value)


class OtherPythonOperator(PythonOperator):
    """The base class of the operators with a new and with an existing Python."""

    def __init__(self, *, python_callable, serializer=None, string_args=None, expect_airflow=True, skip_on_exit_code=None,
                 env_vars=None, inherit_env=True, **others):
        other_python.check_function(python_callable, type(self).__name__)
        self.serializer = serializer or "pickle"
        if self.serializer not in other_python.SERIALIZERS:
            raise AirflowException(
                f"Unsupported serializer {serializer!r}. Expected one of {', '.join(map(repr, other_python.SERIALIZERS))}"
            )
        self.string_args = list(string_args or ())
        self.expect_airflow = expect_airflow
        codes = [] if skip_on_exit_code is None else skip_on_exit_code
        self.skip_on_exit_code = list(codes) if isinstance(codes, Iterable) else [codes]
        self.env_vars = env_vars
        self.inherit_env = inherit_env
        super().__init__(python_callable=python_callable, **others)

    def call(self, context):
        moments = TIME_KEYS if self.has_pendulum() else ()
        available = {name: context[name] for name in (*PLAIN_KEYS, *moments) if name in context}
        if moments and "params" in context:
            available["params"] = dict(context["params"])
        if self.templates_dict:
            available["templates_dict"] = self.templates_dict
        kwargs = keyword_arguments(self.python_callable, self.op_args, AvailableArguments(available, self.op_kwargs), self.op_kwargs)
        context_times = [name for name in moments if name in kwargs and name not in self.op_kwargs]
        kwargs = {name: plain_time(value) if name in context_times else concrete(value) for name, value in kwargs.items()}
        arguments = {"args": [concrete(argument) for argument in self.op_args], "kwargs": kwargs, "moments": context_times}

        def use(python):
            return other_python.call(
                self.python_callable, python, arguments, serializer=self.serializer, string_args=self.string_args,
                environment=self.environment(), skip_on_exit_code=self.skip_on_exit_code,
            )

        result = self.with_python(use)
        if self.show_return_value_in_logs:
            self.log.info("Done. Returned value was: %s", hide(f"{result!r}"[:10_000]))
        return result

    def environment(self):
        variables = dict(os.environ) if self.inherit_env else {}
        # The task's keeper recognizes the processes of this task by the variable.
        variables.update({name: os.environ[name] for name in ("LEOFLOW_TASK",) if name in os.environ})
        variables.update(self.env_vars or {})
        # The function can import modules beside the DAG file, as in its task.
        variables["PYTHONPATH"] = os.pathsep.join(filter(None, [variables.get("PYTHONPATH"), *roots_of(self.dag.fileloc)]))
        return variables

    def has_pendulum(self):
        """True if the other Python has pendulum. Without it, the times of the context are not passed."""
        raise NotImplementedError

    def with_python(self, use):
        """Calls `use` with the path of the other Python."""
        raise NotImplementedError


def plain_time(value):
    """Converts to a plain datetime, which every Python can read."""
    from datetime import datetime, timezone

    return None if value is None else datetime.fromtimestamp(value.timestamp(), timezone.utc)


class PythonVirtualenvOperator(OtherPythonOperator):
    template_fields = ("index_urls", "index_urls_from_connection_ids", "op_args", "op_kwargs", "requirements", "templates_dict",
                       "venv_cache_path")
    template_ext = (".txt",)

    def __init__(self, *, requirements=None, python_version=None, system_site_packages=True, pip_install_options=None,
                 index_urls=None, index_urls_from_connection_ids=None, venv_cache_path=None, **others):
        if python_version is not None and not isinstance(python_version, str):
            raise AirflowException("Passing non-string types (e.g. int or float) as python_version not supported")
        if index_urls_from_connection_ids:
            raise Unsupported("index_urls_from_connection_ids")
        self.requirements = as_list(requirements) or []
        self.python_version = python_version
        self.system_site_packages = system_site_packages
        self.pip_install_options = pip_install_options
        self.index_urls = as_list(index_urls)
        self.index_urls_from_connection_ids = None
        self.venv_cache_path = venv_cache_path
        super().__init__(**others)

    def has_pendulum(self):
        if self.system_site_packages:
            return True
        lines = "\n".join(self.requirements).splitlines()
        return any(re.match(r"\s*(?:pendulum|apache-airflow)\b(?!-)", line) for line in lines)

    def venv_spec(self):
        requirements = [str(requirement) for requirement in self.requirements]
        if self.serializer != "pickle" and not self.system_site_packages and self.serializer not in requirements:
            requirements.append(self.serializer)
        return virtualenvs.VenvSpec(requirements, self.python_version, self.system_site_packages,
                                  list(self.pip_install_options or ()), self.index_urls)

    def with_python(self, use):
        if not self.venv_cache_path:
            return virtualenvs.with_temporary(self.venv_spec(), use)
        # Imported here, because only cached environments need it.
        from leoflow.authoring.variable import Variable

        key = str(Variable.get("python_virtualenv_operator_cache_key", ""))
        return use(virtualenvs.cached(self.venv_spec(), os.fspath(self.venv_cache_path), key))


class ExternalPythonOperator(OtherPythonOperator):
    template_fields = ("op_args", "op_kwargs", "python", "templates_dict")

    def __init__(self, *, python, expect_pendulum=False, **others):
        if not python:
            raise ValueError("Python Path must be defined in ExternalPythonOperator")
        self.python = python
        self.expect_pendulum = expect_pendulum
        super().__init__(**others)

    def has_pendulum(self):
        self.check()
        has_pendulum = subprocess.run([self.python, "-c", "import pendulum"], capture_output=True).returncode == 0
        if self.expect_pendulum and not has_pendulum:
            self.log.warning("%s has no pendulum: the times of the context are not passed to the function", self.python)
        return has_pendulum

    def check(self):
        if not os.path.exists(self.python):
            raise ValueError(f"Python Path '{self.python}' must exists")
        if not os.path.isfile(self.python):
            raise ValueError(f"Python Path '{self.python}' must be a file")
        if not os.path.isabs(self.python):
            raise ValueError(f"Python Path '{self.python}' must be an absolute path.")

    def with_python(self, use):
        return use(os.fspath(self.python))


class BranchPythonVirtualenvOperator(BranchByResultMixIn, PythonVirtualenvOperator):
    pass


class BranchExternalPythonOperator(BranchByResultMixIn, ExternalPythonOperator):
    pass


class DecoratedVirtualenv(Decorated, PythonVirtualenvOperator):
    operator_name = "@task.virtualenv"
    airflow_name = "_PythonVirtualenvDecoratedOperator"


class DecoratedExternalPython(Decorated, ExternalPythonOperator):
    operator_name = "@task.external_python"
    airflow_name = "_PythonExternalDecoratedOperator"


class DecoratedBranchVirtualenv(Decorated, BranchPythonVirtualenvOperator):
    operator_name = "@task.branch_virtualenv"
    airflow_name = "_BranchPythonVirtualenvDecoratedOperator"


class DecoratedBranchExternalPython(Decorated, BranchExternalPythonOperator):
    operator_name = "@task.branch_external_python"
    airflow_name = "_BranchExternalPythonDecoratedOperator"

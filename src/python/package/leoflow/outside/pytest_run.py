"""`leoflow test`: runs pytest with a project's variables and import folders, a test of each DAG file, and fixtures:

- `dag_bag`: the project's DAGs (`dags`, by id; `get_dag(dag_id)`) and `import_errors`, texts by path;
- `run_dag(dag_id, **arguments)`: runs a DAG with `DAG.test()`, and returns the run;
- `run_task(dag_id, task_id, **arguments)`: runs one task of it, while the others succeed without running; returns its
  instance.
"""

from __future__ import annotations

import os
import re
import sys
import traceback
import types

from leoflow.common import leoflow_server, local_modules, real_sdk
from leoflow.common.settings import image_folder
from leoflow.entry.workspace import Workspace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def main(options: dict[str, Any]) -> None:
    from leoflow.outside import startup

    if "airflow_home" in options:
        startup.use_airflow(options["airflow_home"])
    elif options.get("support"):
        sys.path.append(options["support"])
    settings = options["settings"] or {}
    image_folder.show_if(settings)
    workspace = Workspace(options["roots"])
    workspace.enter(is_outside=True)
    workspace.extend_path()
    if settings.get("airflow_2"):
        sys.meta_path.insert(0, startup.TranslationOnImport())
    # After the environment's packages, which may have a pytest of their own.
    sys.path.append(options["pytest"])
    import pytest

    sys.exit(pytest.main(options["arguments"], plugins=[make_plugin(pytest, options["files"])]))


def make_plugin(pytest, files):
    bag = DagBag(files)

    class DagFile(pytest.Item):
        """The test of one DAG file: it can be imported, and the connections that its tasks name exist."""

        def runtest(self):
            for dag in bag.load(str(self.path)):
                missing = missing_connections(dag)
                assert not missing, f"{dag.dag_id} uses connections that do not exist: {', '.join(missing)}"

        def repr_failure(self, excinfo, style=None):
            return str(excinfo.value).strip()

        def reportinfo(self):
            return self.path, None, f"DAG file {self.name}"

    @pytest.fixture(scope="session")
    def dag_bag():
        return bag.load_all()

    @pytest.fixture(scope="session")
    def run_dag(dag_bag):
        return lambda dag_id, **arguments: dag_bag.get_dag(dag_id).test(**arguments)

    @pytest.fixture(name="run_task", scope="session")
    def run_task_of(dag_bag):
        return lambda dag_id, task_id, **arguments: run_task(dag_bag.get_dag(dag_id), task_id, arguments)

    # First, so that `-k` applies.
    @pytest.hookimpl(tryfirst=True)
    def pytest_collection_modifyitems(session, config, items):
        # Not if the user names the tests to run.
        if config.args_source is not pytest.Config.ArgsSource.ARGS:
            names = [os.path.relpath(file) for file in files]
            items[:0] = [DagFile.from_parent(session, name=name, nodeid=name, path=config.rootpath / name) for name in names]

    plugin = types.ModuleType("leoflow_fixtures")
    vars(plugin).update(dag_bag=dag_bag, run_dag=run_dag, run_task=run_task_of,
                        pytest_collection_modifyitems=pytest_collection_modifyitems)
    return plugin


def run_task(dag, task_id, arguments):
    others = "|".join(re.escape(other) for other in dag.task_ids if other != dag.get_task(task_id).task_id)
    return dag.test(mark_success_pattern=others, **arguments).get_task_instance(task_id)


def missing_connections(dag):
    """Returns the names of connections that tasks use and that neither the environment nor the running Leoflow has; none if
    that is unknown. Airflow's default names are left out: hooks work without many of them."""
    names = {value for task in dag.tasks for name, value in vars(task).items()
             if name.endswith("conn_id") and isinstance(value, str) and not value.endswith("_default") and "{" not in value}
    if os.environ.get("AIRFLOW__SECRETS__BACKEND", "leoflow").startswith("leoflow"):
        try:
            return sorted(name for name in names if f"AIRFLOW_CONN_{name.upper()}" not in os.environ
                          and leoflow_server.read("connections", name) is None)
        except leoflow_server.NotRunning:
            pass
    return []


def shown(error):
    """Formats an error without the calls of this package that led to the DAG file."""
    calls, package = error.__traceback__, os.path.dirname(os.path.dirname(__file__))
    while calls is not None and calls.tb_frame.f_code.co_filename.startswith(package):
        calls = calls.tb_next
    return "".join(traceback.format_exception(type(error), error, calls))


class DagBag:
    """The DAGs of the project, like Airflow's DagBag. Each file is imported once, when it is needed."""

    def __init__(self, files: list[str]) -> None:
        self.files = files
        self.dags: dict[str, Any] = {}
        self.import_errors: dict[str, str] = {}
        self._by_file: dict[str, list[Any]] = {}

    def get_dag(self, dag_id: str) -> Any:
        if dag_id not in self.dags:
            errors = "".join(f"\n{text}" for text in self.import_errors.values())
            raise LookupError(f"no DAG {dag_id!r}; the DAGs are: {', '.join(sorted(self.dags))}{errors}")
        return self.dags[dag_id]

    def load_all(self) -> DagBag:
        for file in self.files:
            try:
                self.load(file)
            except AssertionError:
                pass
        return self

    def load(self, path: str) -> list[Any]:
        """Returns the DAGs of a file; raises an AssertionError with the import error."""
        if path not in self._by_file:
            self._by_file[path] = []
            try:
                self._by_file[path] = self._import(path)
            except Exception as error:
                self.import_errors[path] = shown(error)
        if path in self.import_errors:
            raise AssertionError(self.import_errors[path])
        return self._by_file[path]

    def _import(self, path):
        if real_sdk.is_active():
            # Not the backend, which blocks access to the database of Airflow's own dag.test().
            from leoflow.sdk.dag_file import dags_of
        else:
            from leoflow.entry.small_backend import dags_of
        dags = dags_of(Workspace(local_modules.roots_of(path)), path, None)
        for dag in dags:
            if not real_sdk.is_active():
                dag.check()
            other = self.dags.setdefault(dag.dag_id, dag)
            if other is not dag:
                raise ValueError(f"the DAG {dag.dag_id!r} is also in {other.fileloc}")
        return dags

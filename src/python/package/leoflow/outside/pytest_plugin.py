"""The plugin of pytest that `leoflow test` uses: a test of each DAG file, and fixtures."""

from __future__ import annotations

import json
import os
import re
import sys
import types

import pytest

from leoflow.common import leoflow_server, local_modules, real_sdk
from leoflow.common.reports import explain
from leoflow.entry.workspace import Workspace
from leoflow.outside.pytest_run import FILES

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any


class DagBag:
    """The DAGs of the project, with the attributes of Airflow's DagBag that tests use. Each file is imported once."""

    def __init__(self, files: list[str]) -> None:
        # By their real paths, which pytest may have.
        self.files = {os.path.realpath(file): file for file in files}
        self.dags: dict[str, Any] = {}
        self.import_errors: dict[str, str] = {}
        self._by_file: dict[str, list[Any]] = {}

    @property
    def dag_ids(self) -> list[str]:
        return list(self.dags)

    def size(self) -> int:
        return len(self.dags)

    def get_dag(self, dag_id: str) -> Any:
        return self.dags.get(dag_id)

    def existing_dag(self, dag_id: str) -> Any:
        """Returns a DAG; raises a LookupError with the DAGs and the import errors that there are."""
        if dag_id not in self.dags:
            errors = "".join(f"\n{text}" for text in self.import_errors.values())
            raise LookupError(f"no DAG {dag_id!r}; the DAGs are: {', '.join(sorted(self.dags))}{errors}")
        return self.dags[dag_id]

    def load_all(self) -> DagBag:
        for file in self.files.values():
            if file not in self._by_file and file not in self.import_errors:
                try:
                    self._by_file[file] = self._import(file)
                except (Exception, SystemExit) as error:
                    self.import_errors[file] = explain(error)
        return self

    def dags_of(self, path: str) -> list[Any]:
        """Returns the DAGs of a file; raises an AssertionError with its import error."""
        file = self.files[os.path.realpath(path)]
        self.load_all()
        if file in self.import_errors:
            raise AssertionError(self.import_errors[file])
        return self._by_file[file]

    def _import(self, path):
        dags = import_dags(path)
        for dag in dags:
            other = self.dags.setdefault(dag.dag_id, dag)
            if other is not dag:
                raise ValueError(f"the DAG {dag.dag_id!r} is also in {other.fileloc}")
        return dags


def import_dags(path):
    workspace = Workspace(local_modules.roots_of(path))
    if real_sdk.is_active():
        # Not the backend, which blocks access to the database of Airflow's own dag.test().
        from leoflow.sdk.dag_file import dags_of

        return dags_of(workspace, path, None)
    from leoflow.authoring.dag.dag import created_dags
    from leoflow.entry.small_backend import dags_of

    # A test may have imported the file as a module, whose DAGs are not those of the file.
    before = created_dags[:]
    created_dags.clear()
    try:
        return dags_of(workspace, path, None)
    finally:
        created_dags[:0] = before


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


_bag = DagBag(json.loads(os.environ[FILES]))


class OwnDagBag(DagBag):
    """Airflow's DagBag in tests with the small package: the project's files, or those in `dag_folder`."""

    def __init__(self, dag_folder: Any = None, *_: Any, **__: Any) -> None:
        folder = os.path.realpath(dag_folder) if dag_folder else None
        super().__init__([file for real, file in _bag.files.items() if folder in (None, real) or real.startswith(folder + os.sep)])
        self.load_all()


def provide_dag_bag():
    """Makes the class available under its names in Airflow 2 and in the versions of Airflow 3."""
    import airflow.models

    airflow.models.DagBag = OwnDagBag
    for name in ("airflow.models.dagbag", "airflow.dag_processing", "airflow.dag_processing.dagbag"):
        module = sys.modules.setdefault(name, types.ModuleType(name))
        module.DagBag = OwnDagBag


if not real_sdk.is_active():
    provide_dag_bag()


class DagFile(pytest.File):
    def collect(self):
        yield DagFileItem.from_parent(self, name="import")


class DagFileItem(pytest.Item):
    """The test of one DAG file: it can be imported, and the connections that its tasks name exist."""

    def runtest(self):
        for dag in _bag.dags_of(str(self.path)):
            missing = missing_connections(dag)
            if missing:
                raise AssertionError(f"{dag.dag_id} uses connections that do not exist: {', '.join(missing)}")

    def repr_failure(self, excinfo, style=None):
        return str(excinfo.value)

    def reportinfo(self):
        return self.path, None, f"DAG file {self.parent.nodeid}"


def pytest_configure(config):
    # Else, pytest looks only into the folders of `testpaths`.
    source = getattr(config, "args_source", None)
    if source is not None and source.name == "TESTPATHS":
        config.args = [*config.args, *_bag.files.values()]


def pytest_collect_file(file_path, parent):
    return DagFile.from_parent(parent, path=file_path) if os.path.realpath(file_path) in _bag.files else None


@pytest.fixture(scope="session")
def dag_bag() -> DagBag:
    """The project's DAGs: `dags` by id, `get_dag(dag_id)`, and `import_errors`, texts by path."""
    return _bag.load_all()


@pytest.fixture(scope="session")
def run_dag() -> Callable[..., Any]:
    """`run_dag(dag_id, **arguments)` runs a DAG with `DAG.test()`, and returns the run."""
    return lambda dag_id, **arguments: _bag.load_all().existing_dag(dag_id).test(**arguments)


@pytest.fixture(scope="session")
def run_task() -> Callable[..., Any]:
    """`run_task(dag_id, task_id, **arguments)` runs one task of a DAG, while the others succeed without running; returns
    its instance."""

    def run(dag_id, task_id, **arguments):
        dag = _bag.load_all().existing_dag(dag_id)
        task_id = dag.get_task(task_id).task_id
        others = "|".join(re.escape(other) for other in dag.task_ids if other != task_id)
        return dag.test(mark_success_pattern=others, **arguments).get_task_instance(task_id)

    return run

"""Refuses DAGs with features of Airflow's SDK that Leoflow's scheduler does not support. They fail at parse time
instead of running differently than in Airflow."""

from __future__ import annotations

import re

from leoflow.common import airflow_version
from leoflow.common.exceptions import AirflowException, Unsupported
from leoflow.sdk import structure
from leoflow.sdk.definitions import deadlines, partitions, timetables, weights

TYPE_CHECKING = False
if TYPE_CHECKING:
    from airflow.sdk import DAG

# Names of executors that run tasks as local processes.
OUR_EXECUTORS = (None, "", "LocalExecutor", "airflow.executors.local_executor.LocalExecutor")
# Classes of Airflow's task groups.
GROUPS = ("TaskGroup", "MappedTaskGroup", "LoopTaskGroup")
# Of a loop; `MAX_ITERATIONS` of the scheduler.
MAX_ITERATIONS = 32767
PARTITIONED = ("CronPartitionTimetable", "PartitionedAssetTimetable", "PartitionedAtRuntime")


def line_of(name: str, source: str) -> int:
    """Returns the number of the first line with this name as a string, a function name or a value of YAML; 1 if there is
    no such line."""
    pattern = re.compile(rf"""["']{re.escape(name)}["']|\bdef\s+{re.escape(name)}\b|:\s+{re.escape(name)}\s*$""")
    numbers = (number for number, line in enumerate(source.splitlines(), 1) if pattern.search(line))
    return next(numbers, 1)


def supported() -> list[tuple[int, ...]]:
    """Returns the minor versions of Airflow that this release runs, oldest first."""
    return [tuple(map(int, airflow.split("."))) for airflow, *_ in airflow_version.minors()]


def check_version() -> None:
    """Raises AirflowException for an Airflow version with which this release was not tested."""
    import airflow

    minor_version = tuple(int(part) for part in airflow.__version__.split(".")[:2])
    minors = supported()
    if minor_version not in minors:
        oldest, newest = (".".join(map(str, version)) for version in (minors[0], minors[-1]))
        limit = f"{minors[-1][0]}.{minors[-1][1] + 1}"
        raise AirflowException(
            f"Apache Airflow {airflow.__version__} is installed for this project, and this release of Leoflow runs {oldest} to "
            f"{newest}. Wherever the project lists what it depends on, its leoflow.yaml may limit the versions of Airflow and of "
            f"providers:\n    constraints: ['apache-airflow<{limit}', 'apache-airflow-core<{limit}']"
        )


def check(dag: DAG, source: str) -> None:
    """Raises Unsupported, with file and line, for the first unsupported feature of a DAG."""

    def refuse(feature, name):
        raise Unsupported(feature, (dag.fileloc, line_of(name, source)))

    kind = type(dag.timetable)
    if kind.__module__.partition(".")[0] != "airflow" and any(base.__name__ in PARTITIONED for base in kind.__mro__):
        refuse(f"the schedule {kind.__name__} of DAG {dag.dag_id!r} (a custom partition timetable)", dag.dag_id)
    try:
        timetables.convert(dag.timetable).to_structure()
    except partitions.UnknownMapper as error:
        refuse(f"{error} in the schedule of DAG {dag.dag_id!r} (a custom partition mapper or window)",
               dag.dag_id)
    except timetables.UnknownTimetable as error:
        refuse(f"{error} of DAG {dag.dag_id!r} (it is newer than this release)", dag.dag_id)
    for name, group in structure.groups(dag).items():
        if type(group).__module__.startswith("airflow.sdk.") and type(group).__name__ not in GROUPS:
            refuse(f"the task group {name!r} of DAG {dag.dag_id!r} (a {type(group).__name__})", (name or dag.dag_id).rpartition(".")[2])
        if structure.is_loop(group) and group.max_iterations > MAX_ITERATIONS:
            refuse(f"max_iterations={group.max_iterations} of the loop {name!r} in DAG {dag.dag_id!r} (at most {MAX_ITERATIONS})",
                   name.rpartition(".")[2])
    if not hasattr(dag.timetable, "next_dagrun_info") and kind.__module__.partition(".")[0] != "airflow":
        refuse(f"the schedule {kind.__name__} of DAG {dag.dag_id!r} (it extends the SDK's class; extend the one "
               "of airflow.timetables, which defines when runs are due)", dag.dag_id)
    for feature in filter(None, map(deadlines.unsupported, deadlines.alerts(dag))):
        refuse(f"{feature} of DAG {dag.dag_id!r}", dag.dag_id)
    for task in dag.tasks:
        def refuse_task(feature, task=task):
            refuse(f"{feature} of task {task.task_id!r} in DAG {dag.dag_id!r}", task.task_id)

        if getattr(task, "is_stub", False):
            refuse_task("the code in another language")
        if getattr(task, "run_as_user", None):
            refuse_task(f"run_as_user={task.run_as_user!r}")
        if task.executor not in OUR_EXECUTORS:
            refuse_task(f"executor={task.executor!r} (tasks are processes of this machine)")
        rule = weights.rule_of(task)
        try:
            # Only custom strategies can fail; the standard rules are evaluated for the structure.
            if rule not in weights.RULES:
                weights.weight(task, rule, dag)
        except weights.UnknownWeight as error:
            refuse_task(f"weight_rule={task.weight_rule!r} ({error})")


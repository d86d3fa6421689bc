"""What Airflow's own SDK lets a DAG ask for, and Leoflow's scheduler does not do: refused where the DAG is parsed, never run
otherwise."""

from __future__ import annotations

import re

from leoflow.common.exceptions import AirflowException, Unsupported
from leoflow.sdk import partitions, timetables, weights

TYPE_CHECKING = False
if TYPE_CHECKING:
    from airflow.sdk import DAG

# What an executor may be called that runs tasks as processes of this machine.
OUR_EXECUTORS = (None, "", "LocalExecutor", "airflow.executors.local_executor.LocalExecutor")
PARTITIONED = ("CronPartitionTimetable", "PartitionedAssetTimetable", "PartitionedAtRuntime")


def line_of(name: str, source: str) -> int:
    """The first line that has this name, as a text or as a function's; 1 without one."""
    pattern = re.compile(rf"""["']{re.escape(name)}["']|\bdef\s+{re.escape(name)}\b""")
    numbers = (number for number, line in enumerate(source.splitlines(), 1) if pattern.search(line))
    return next(numbers, 1)


# What `scripts/compare-airflow` has been run with. `environments/airflow_versions.rs` has the same.
OLDEST, NEWEST = (3, 0), (3, 3)


def check_version() -> None:
    """Raises for an Airflow that this release has not been tried with: what has changed there nobody knows."""
    import airflow

    found = tuple(int(part) for part in airflow.__version__.split(".")[:2])
    if not OLDEST <= found <= NEWEST:
        oldest, newest = (".".join(map(str, one)) for one in (OLDEST, NEWEST))
        limit = f"{NEWEST[0]}.{NEWEST[1] + 1}"
        raise AirflowException(
            f"Apache Airflow {airflow.__version__} is installed for this project, and this release of Leoflow runs {oldest} to "
            f"{newest}. Wherever the project lists what it depends on, its leoflow.yaml may limit the versions of Airflow and of "
            f"providers:\n    constraints: ['apache-airflow<{limit}', 'apache-airflow-core<{limit}']"
        )


def check(dag: DAG, source: str) -> None:
    """Raises Unsupported with the place."""

    def refuse(thing, name):
        raise Unsupported(thing, (dag.fileloc, line_of(name, source)))

    kind = type(dag.timetable)
    if kind.__module__.partition(".")[0] != "airflow" and any(one.__name__ in PARTITIONED for one in kind.__mro__):
        refuse(f"the schedule {kind.__name__} of DAG {dag.dag_id!r} (one of partitions that is not Airflow's own)", dag.dag_id)
    try:
        timetables.of(dag.timetable).described()
    except partitions.UnknownMapper as error:
        refuse(f"{error} in the schedule of DAG {dag.dag_id!r} (a mapper or window of partitions that is not Airflow's own)",
               dag.dag_id)
    if not hasattr(dag.timetable, "next_dagrun_info") and kind.__module__.partition(".")[0] != "airflow":
        refuse(f"the schedule {kind.__name__} of DAG {dag.dag_id!r} (it extends the SDK's class; extend the one "
               "of airflow.timetables, which says when runs are due)", dag.dag_id)
    if getattr(dag, "deadline", None):
        refuse(f"the deadline of DAG {dag.dag_id!r}", dag.dag_id)
    for task in dag.tasks:
        def refuse_task(thing, task=task):
            refuse(f"{thing} of task {task.task_id!r} in DAG {dag.dag_id!r}", task.task_id)

        if getattr(task, "run_as_user", None):
            refuse_task(f"run_as_user={task.run_as_user!r}")
        if task.executor not in OUR_EXECUTORS:
            refuse_task(f"executor={task.executor!r} (tasks are processes of this machine)")
        rule = weights.rule_of(task)
        try:
            # Airflow's own always say it, and it is worked out for the structure.
            if rule not in weights.RULES:
                weights.weight(task, rule, dag)
        except weights.UnknownWeight as error:
            refuse_task(f"weight_rule={task.weight_rule!r} ({error})")


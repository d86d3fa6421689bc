"""Prints examples of the messages that the package sends to Leoflow, as JSON lines `{"of": DEFINITION, "message": …}`.
DEFINITION is the name of a definition in `messages.schema.json`.

`cargo test` deserializes the messages with Leoflow's own types and validates them against the schema.
"""

import contextlib
import io
import json
import sys
from datetime import datetime, timedelta, timezone
from pathlib import Path

from leoflow.authoring.assets.definitions import Asset, AssetAlias
from leoflow.authoring.dag.dag import DAG
from leoflow.authoring.operators.standard import EmptyOperator, PythonOperator
from leoflow.authoring.timetables.standard import DagRunInfo, DataInterval, TimeRestriction, Timetable
from leoflow.common.exceptions import (
    AirflowFailException,
    AirflowRescheduleException,
    AirflowSkipException,
    DownstreamTasksSkipped,
)
from leoflow.entry import ask, structure
from leoflow.entry.foreground import Run
from leoflow.entry.small_backend import dags_of
from leoflow.entry.workspace import Workspace
from leoflow.running.context import build_context
from leoflow.running.offline import InMemoryXComs, Offline
from leoflow.running.task_try import Try

FOLDER = Path(sys.argv[1])


def print_message(definition, message):
    print(json.dumps({"of": definition, "message": message}))


def structures():
    """Prints the structures of all DAGs in the folder."""
    for path in sorted(FOLDER.glob("*.py")):
        # Discards the output of the DAG files.
        with contextlib.redirect_stdout(io.StringIO()):
            dags = dags_of(Workspace([str(FOLDER)]), str(path))
        for dag in dags:
            print_message("dag", structure.dag_structure(dag, True))


def results():
    """Prints the results of tries, one for each way in which a try can end."""

    def fails():
        raise ValueError("no")

    def gives_up():
        raise AirflowFailException("no more")

    def skips():
        raise AirflowSkipException("not today")

    def waits():
        raise AirflowRescheduleException(datetime(2026, 1, 1, tzinfo=timezone.utc))

    def decides():
        raise DownstreamTasksSkipped(tasks=["a", "b"])

    def tells(outlet_events):
        outlet_events[Asset("made")].extra = {"rows": 5}
        outlet_events[AssetAlias("alias")].add(Asset("other"), extra={"of": "alias"})
        return {"a": [1, 2.5, None]}

    with DAG("results") as dag:
        for function in (fails, gives_up, skips, waits, decides):
            PythonOperator(task_id=function.__name__, python_callable=function)
        PythonOperator(task_id="tells", python_callable=tells, outlets=[Asset("made"), AssetAlias("alias")],
                       multiple_outputs=True, map_index_template="of {{ task.task_id }}")
    spec = {"dag_id": "results", "run_id": "r", "map_index": -1, "try_number": 1, "max_tries": 0, "may_retry": False,
            "run_type": "manual", "conf": {}, "logical_date": "2026-01-01T00:00:00Z"}
    for task in dag.tasks:
        memory = InMemoryXComs(None)
        memory.begin((task.task_id, -1), False)
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            result = Try(task, build_context(spec, dag, task, memory, Offline(memory))).run()
        print_message("task_result", result)


class EveryDay(Timetable):
    def infer_manual_data_interval(self, *, run_after):
        return DagRunInfo.interval(run_after - timedelta(days=1), run_after).data_interval

    def next_dagrun_info(self, *, last_automated_data_interval, restriction):
        start = last_automated_data_interval.end if last_automated_data_interval else restriction.earliest
        return DagRunInfo.interval(start, start + timedelta(days=1))


def answers():
    day = "2026-01-01T00:00:00Z".replace("Z", "+00:00")
    question = {"kind": "next", "last": None, "earliest": day, "latest": None, "catchup": True, "count": 2}
    print_message("answer", ask.ask(EveryDay(), DataInterval, TimeRestriction, "scheduled", question))
    print_message("answer", ask.ask(EveryDay(), DataInterval, TimeRestriction, "scheduled", {"kind": "manual", "run_after": day}))


class SilentPlanner:
    """Prints each question, and answers that the run has succeeded."""

    def ask(self, question):
        print_message("planner_question", question)
        return {"expanded": [], "added": [], "transitions": [], "run": "success"}


def questions():
    with DAG("asked") as dag:
        EmptyOperator(task_id="t", retries=2)
    run = Run(dag, {"logical_date": None}, SilentPlanner())
    run.instances[0]["ended"] = {"state": "failed", "retry": True, "skips": []}
    run.memory.xcoms = {("n", -1, "return_value"): "[1, 2]", ("b", -1, "skipmixin_key"): '{"followed": ["t"]}'}
    run.run_to_end()


if __name__ == "__main__":
    structures()
    results()
    answers()
    questions()

"""`python -m leoflow.outside.run FILE [TASK_ID]`, for the debugger of an editor: runs the DAGs of a file with
`DAG.test()`. With a task, runs the DAG that has it: the task and those before it, while all others succeed without
running."""

from __future__ import annotations

import os
import re
import sys

from leoflow.common import local_modules, real_sdk
from leoflow.entry.workspace import Workspace


def main(path: str, task_id: str | None = None) -> int:
    if real_sdk.is_active():
        # Not the backend, which blocks access to the database of Airflow's own dag.test().
        from leoflow.sdk.dag_file import dags_of
    else:
        from leoflow.entry.small_backend import dags_of
    path = os.path.abspath(path)
    dags = dags_of(Workspace(local_modules.roots_of(path)), path, None)
    chosen = [dag for dag in dags if task_id is None or dag.has_task(task_id)]
    if not chosen:
        what = "no DAG" if task_id is None else f"no DAG with a task {task_id!r}; its DAGs are: " + ", ".join(dag.dag_id for dag in dags)
        sys.exit(f"error: {path} defines {what}")
    return max(test(dag, task_id) for dag in chosen)


def test(dag, task_id):
    needed = dag.task_ids if task_id is None else {task_id, *dag.get_task(task_id).get_flat_relative_ids(upstream=True)}
    others = "|".join(re.escape(other) for other in dag.task_ids if other not in needed)
    return int(dag.test(mark_success_pattern=others).state == "failed")


if __name__ == "__main__":
    if len(sys.argv) not in (2, 3):
        sys.exit("usage: python -m leoflow.outside.run FILE [TASK_ID]")
    sys.exit(main(*sys.argv[1:]))

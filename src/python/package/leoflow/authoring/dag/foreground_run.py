"""`DAG.test()`: runs `leoflow dags test`, whose process has the scheduler that decides which task is next."""

from __future__ import annotations

import json
import os
from datetime import datetime, timezone
from types import SimpleNamespace

from leoflow.authoring.states import DagRunState
from leoflow.common import local_modules
from leoflow.common.dates import aware, parse_time
from leoflow.common.exceptions import AirflowException, Unsupported
from leoflow.common.hints.commands import command, home

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from leoflow.common.graph import Dag


def run(dag: Dag, logical_date: datetime | str | None, run_conf: dict[str, Any] | None, **unsupported: Any) -> SimpleNamespace:
    """Runs the DAG of a file on this terminal; returns the run with `state` and `task_instances`."""
    for name, value in unsupported.items():
        if value:
            raise Unsupported(f"the argument {name} of DAG.test()")
    advice = f"use `{command('dags test')}`, or call it below `if __name__ == \"__main__\":`"
    if local_modules.is_entered():
        raise Unsupported(f"DAG.test() in code that Leoflow runs ({advice})")
    if dag.fileloc is None:
        raise Unsupported("DAG.test() of a DAG that no file defines")
    import shlex
    import subprocess

    arguments = [*program(), "dags", "test", dag.dag_id, "--file", os.path.abspath(dag.fileloc), "--json",
                 f"--conf={json.dumps(run_conf or {})}"]
    date = aware("logical_date", logical_date)
    if date is not None:
        arguments.append(f"--logical-date={date.astimezone(timezone.utc).isoformat()}")
    # Standard error has the output of the tasks, and standard output has the result.
    done = subprocess.run(arguments, stdout=subprocess.PIPE, check=False)
    try:
        result = json.loads(done.stdout)
    except ValueError:
        raise AirflowException(f"`{shlex.join(arguments)}` failed with exit code {done.returncode}; its output has the reason") from None
    instances = [SimpleNamespace(**instance) for instance in result["task_instances"]]
    return SimpleNamespace(**{
        **result, "state": DagRunState(result["state"]), "logical_date": parse_time(result["logical_date"]), "conf": run_conf or {},
        "task_instances": instances, "get_task_instances": lambda: instances,
    })


def program() -> list[str]:
    """Returns the program of this package's home, with the option that chooses the home; else the one on the PATH."""
    import shutil

    option = ["--home", home()] if home() is not None else []
    names = [os.path.join(home(), "bin", "leoflow")] if option else []
    found = next(filter(None, map(shutil.which, (*names, "leoflow"))), None)
    if found is None:
        raise AirflowException(f"DAG.test() runs `leoflow dags test`, and the program leoflow is not in the folders of PATH "
                               f"({os.environ.get('PATH', '')}): add its folder to PATH")
    return [found, *option]

"""`leoflow env shell`: runs a command with the variables and import folders that a project's tasks have."""

from __future__ import annotations

import os
import subprocess
import sys

from leoflow.common import real_sdk
from leoflow.entry.workspace import Workspace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

DATABASE = "airflow.db"
SETTING = "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"
SECRETS = "AIRFLOW__SECRETS__BACKEND"
# Number of lines of Airflow's output that a warning quotes.
QUOTED_LINES = 5


def main(options: dict[str, Any]) -> None:
    workspace = Workspace(options["roots"])
    workspace.enter()
    own_path = [path for path in workspace.paths_before_packages if path]
    if real_sdk.is_active():
        use_database(real_sdk.home())
    else:
        # `airflow` is the small package, which is beside this one.
        own_path += [path for path in (*sys.path[:2], options.get("support")) if path]
    os.environ["PYTHONPATH"] = os.pathsep.join(dict.fromkeys(own_path))
    if options["cwd"]:  # Empty if the user's current folder was removed: then the shell stays in the project's folder.
        os.chdir(options["cwd"])
    command = options["command"]
    sys.stdout.flush()
    sys.stderr.flush()
    try:
        os.execvp(command[0], command)
    except OSError as error:
        sys.exit(f"error: cannot run {command[0]}: {error.strerror}")


def use_database(home: str) -> None:
    """Configures a database below `home`, which Airflow's `dag.test()` needs. Overrides the user's own setting, which
    may be the database of a real Airflow."""
    path = os.path.join(home, DATABASE)
    os.environ.pop("_AIRFLOW_PROCESS_CONTEXT", None)
    # SQLite creates an empty file for a database that is not there.
    if not os.path.exists(path) or os.path.getsize(path) == 0:
        create_database(home, path)
    os.environ[SETTING] = f"sqlite:///{path}"


def create_database(home, path):
    """Creates the database with Airflow's own command. Does nothing if only the SDK is installed, which lacks the
    command."""
    import importlib.util

    if importlib.util.find_spec("airflow.migrations") is None:
        return
    sys.stderr.write("Creating the database of this environment that dag.test() uses ...\n")
    os.makedirs(home, mode=0o700, exist_ok=True)
    # The file is renamed when it is complete, because another shell may start meanwhile.
    partial = f"{path}.{os.getpid()}"
    variables = {**os.environ, SETTING: f"sqlite:///{partial}"}
    if variables.get(SECRETS, "").startswith("leoflow."):
        # A class of this package, which the command does not import.
        del variables[SECRETS]
    done = subprocess.run([sys.executable, "-m", "airflow", "db", "migrate"], env=variables, stdin=subprocess.DEVNULL,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False)
    if done.returncode == 0:
        os.replace(partial, path)
        return
    lines = done.stdout.decode(errors="replace").splitlines()[-QUOTED_LINES:]
    sys.stderr.write("\n".join(["warning: `airflow db migrate` failed, and dag.test() will fail, too:", *lines, ""]))

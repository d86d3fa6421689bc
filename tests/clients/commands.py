"""Calls every command of airflowctl, Apache Airflow's command line for remote servers.

    python commands.py URL USERNAME PASSWORD

A command works if it exits with 0. FAILING lists the commands that also fail with Airflow itself, with their errors. A
command of airflowctl that is missing in COMMANDS is an error. All commands run in this process, one after another,
because a new process takes longer to start than a command to run. The exit code is 1 if a command does not work."""

import contextlib
import io
import json
import os
import sys
import tempfile
from pathlib import Path

import fixtures

DATES = ["--from-date", "2026-01-01T00:00:00Z", "--to-date", "2026-01-20T00:00:00Z"]
BACKFILL = ["--dag-id", "weekly", *DATES, "--max-active-runs", "1", "--reprocess-behavior", "none"]
LATER = "2030-01-01T00:00:00Z"
XCOM = ["shown", "first", "group.one"]
# In the order of the calls: name and arguments. `{…}` is replaced by a value of the server.
COMMANDS = [
    ("version", ["--remote"]),
    ("auth token", ["--api-url", "{url}", "--username", "{username}", "--password", "{password}"]),
    ("auth list-envs", []),
    ("assets list", []), ("assets get", ["{asset}"]), ("assets list-by-alias", []), ("assets get-by-alias", ["1"]),
    ("assets create-event", ["--asset-id", "{asset}"]),
    ("assets get-queued-events", ["{asset}"]), ("assets get-dag-queued-events", ["waiting", LATER]),
    ("assets get-dag-queued-event", ["waiting", "{asset}"]),
    ("assets delete-queued-event", ["waiting", "{asset}"]),
    ("assets create-event", ["--asset-id", "{asset}"]), ("assets delete-queued-events", ["{asset}"]),
    ("assets create-event", ["--asset-id", "{asset}"]),
    ("assets delete-dag-queued-events", ["waiting", LATER]),
    ("assets materialize", ["{alone}"]),
    ("backfill list", ["daily"]), ("backfill get", ["1"]), ("backfill pause", ["1"]), ("backfill unpause", ["1"]),
    ("backfill cancel", ["1"]), ("backfill create-dry-run", BACKFILL), ("backfill create", BACKFILL),
    ("config list", []), ("config get", ["core", "parallelism"]), ("config lint", []),
    ("connections list", []), ("connections get", ["there"]),
    ("connections create", ["--connection-id", "new", "--conn-type", "http"]),
    ("connections update", ["--connection-id", "new", "--conn-type", "http", "--host", "h"]),
    ("connections delete", ["new"]), ("connections create-defaults", []),
    ("connections import", ["{connections}"]),
    ("connections test", ["--connection-id", "there", "--conn-type", "sqlite"]),
    ("dags list", []), ("dags get", ["shown"]), ("dags get-details", ["shown"]), ("dags get-stats", ["shown"]),
    ("dags get-tags", []), ("dags get-version", ["shown", "1"]), ("dags list-version", ["shown"]),
    ("dags list-import-errors", []), ("dags get-import-error", ["{import_error}"]), ("dags list-warning", []),
    ("dags next-execution", ["daily"]), ("dags pause", ["shown"]), ("dags unpause", ["shown"]),
    ("dags update", ["shown", "--no-is-paused"]), ("dags trigger", ["shown", "--dag-run-id", "third"]),
    ("dagrun list", ["--dag-id", "shown", "--state", "success", "--limit", "5"]), ("dagrun get", ["shown", "first"]),
    ("jobs list", []), ("plugins list", []), ("plugins list-import-errors", []), ("providers list", []),
    ("pools list", []), ("pools get", ["there"]), ("pools create", ["--name", "new", "--slots", "1"]),
    ("pools update", ["--pool", "new", "--slots", "2", "--description", "two"]), ("pools delete", ["new"]),
    ("pools export", ["{folder}/exported.json"]), ("pools import", ["{pools}", "-a", "overwrite"]),
    ("variables list", []), ("variables get", ["there"]), ("variables create", ["--key", "new", "--value", "1"]),
    ("variables update", ["--key", "new", "--value", "2"]), ("variables delete", ["new"]),
    ("variables import", ["{variables}"]),
    ("xcom list", XCOM), ("xcom get", [*XCOM, "return_value"]), ("xcom add", [*XCOM, "new", "1"]),
    ("xcom edit", [*XCOM, "new", "2"]), ("xcom delete", [*XCOM, "new"]),
    ("dags delete", ["makes"]),
]
# Commands of this version of airflowctl that fail with any server, also with Airflow 3.3.2, and a part of their errors.
FAILING = {
    # airflowctl sends POST where the API has PUT.
    "backfill pause": "Method Not Allowed", "backfill unpause": "Method Not Allowed", "backfill cancel": "Method Not Allowed",
    # airflowctl uses paths that the API does not have.
    "assets delete-queued-event": "Method Not Allowed", "assets delete-queued-events": "Method Not Allowed",
    "assets delete-dag-queued-events": "Method Not Allowed",
    # airflowctl expects another answer than the API describes, or fails to display the answer.
    "backfill create-dry-run": "validation errors for BackfillResponse",
    "auth list-envs": "AttributeError", "assets materialize": "AttributeError",
    "connections create-defaults": "AttributeError", "connections test": "AttributeError", "dags get-tags": "ValueError",
}


def main(url, username, password, *_):
    server = fixtures.Server(url, username, password)
    server.prepare()
    with tempfile.TemporaryDirectory() as folder:
        # Debug mode uses no keyring: the token is stored in this folder.
        os.environ |= {"AIRFLOW_CLI_DEBUG_MODE": "true", "AIRFLOW_HOME": folder, "COLUMNS": "200", "NO_COLOR": "1"}
        # airflowctl waits 5 s for an answer, which a busy machine may exceed; this test does not measure speed.
        os.environ["AIRFLOW_CLI_API_RETRIES"] = "6"
        login = ["--api-url", url, "--username", username, "--password", password]
        wrong = [f"auth login: {problem}"] if (problem := call("auth login", login)) else []
        values = files(Path(folder)) | {
            "url": url, "username": username, "password": password, "folder": folder, "asset": server.asset("made"),
            "alone": server.asset("alone"), "import_error": server.ids("get_import_error")["import_error_id"],
        }
        for name, arguments in COMMANDS:
            problem = call(name, [argument.format(**values) for argument in arguments])
            if FAILING.get(name, "") not in (problem or ""):
                wrong.append(f"{name}: {problem or 'works, but is listed as failing'}")
            elif problem and name not in FAILING:
                wrong.append(f"{name}: {problem}")
    unknown = every_command() - {name for name, _ in COMMANDS} - {"auth login"}
    wrong += [f"{name}: is not in the list of commands" for name in sorted(unknown)]
    tried = {name for name, _ in COMMANDS} - set(FAILING)
    print(f"{len(FAILING)} commands that fail in this airflowctl with any server are not counted")
    return fixtures.report("commands of airflowctl", wrong, len(tried) + 1)


def files(folder):
    """Writes the files for the import commands; returns their paths by name."""
    contents = {
        "connections": {"imported": {"conn_type": "http", "host": "h"}},
        "variables": {"imported": "1"},
        "pools": [{"name": "imported", "slots": 1, "description": "", "include_deferred": False}],
    }
    for name, content in contents.items():
        (folder / f"{name}-in.json").write_text(json.dumps(content))
    return {name: str(folder / f"{name}-in.json") for name in contents}


def call(name, arguments):
    """Calls a command; returns an error message, or None."""
    from airflowctl.__main__ import main as airflowctl

    sys.argv = ["airflowctl", *name.split(), *arguments]
    output = io.StringIO()
    with contextlib.redirect_stdout(output), contextlib.redirect_stderr(output):
        try:
            airflowctl()
        except SystemExit as end:
            if end.code:
                return f"{end.code}: {output.getvalue()[-600:]}"
        except Exception as error:
            return f"{type(error).__name__}: {str(error)[:300]}"
    return None


def every_command():
    """Returns the names of all commands of airflowctl."""
    import argparse

    from airflowctl.ctl.cli_parser import get_parser

    def subcommands(parser):
        choices = (action.choices for action in parser._actions if isinstance(action, argparse._SubParsersAction))
        return next(choices, {})

    groups = subcommands(get_parser())
    return {" ".join([group, name]).strip() for group, group_parser in groups.items() for name in subcommands(group_parser) or [""]}


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))

"""Calls every command of Apache Airflow's command line for servers elsewhere, airflowctl.

    python commands.py URL USERNAME PASSWORD

A command works when it ends with 0. Those that this airflowctl cannot do with Airflow itself are listed with what they say.
Commands that it has and the list below has not are an error. They run in this process, one after another: each would load
for longer than it runs. The exit code is 1 when one does not work."""

import contextlib
import io
import json
import os
import sys
import tempfile
from pathlib import Path

import world

DATES = ["--from-date", "2026-01-01T00:00:00Z", "--to-date", "2026-01-20T00:00:00Z"]
BACKFILL = ["--dag-id", "weekly", *DATES, "--max-active-runs", "1", "--reprocess-behavior", "none"]
LATER = "2030-01-01T00:00:00Z"
XCOM = ["shown", "first", "group.one"]
# In the order in which they are called; `{…}` is what the server calls it.
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
# What this airflowctl cannot do with any server, Airflow 3.3.2 among them, and what it says then; and what is refused until
# somebody allows it, which is the last.
ITS_OWN = {
    # It sends POST where the API has PUT.
    "backfill pause": "Method Not Allowed", "backfill unpause": "Method Not Allowed", "backfill cancel": "Method Not Allowed",
    # It sends to addresses that the API has not.
    "assets delete-queued-event": "Method Not Allowed", "assets delete-queued-events": "Method Not Allowed",
    "assets delete-dag-queued-events": "Method Not Allowed",
    # It reads an answer of another form than the API describes, or shows it in a form that it cannot.
    "backfill create-dry-run": "validation errors for BackfillResponse",
    "auth list-envs": "AttributeError", "assets materialize": "AttributeError",
    "connections create-defaults": "AttributeError", "dags get-tags": "ValueError",
    # Nobody has allowed it.
    "connections test": "Testing connections is disabled",
}


def main(url, username, password, *_):
    there = world.World(url, username, password)
    there.prepare()
    with tempfile.TemporaryDirectory() as folder:
        # Without a keyring of the machine: the token lies in that folder.
        os.environ |= {"AIRFLOW_CLI_DEBUG_MODE": "true", "AIRFLOW_HOME": folder, "COLUMNS": "200", "NO_COLOR": "1"}
        # What a command gets is looked at here, and not how fast it is: a busy machine answers late, and it waits 5 s.
        os.environ["AIRFLOW_CLI_API_RETRIES"] = "6"
        login = ["--api-url", url, "--username", username, "--password", password]
        wrong = [f"auth login: {problem}"] if (problem := call("auth login", login)) else []
        values = files(Path(folder)) | {
            "url": url, "username": username, "password": password, "folder": folder, "asset": there.asset("made"),
            "alone": there.asset("alone"), "import_error": there.ids("get_import_error")["import_error_id"],
        }
        for name, arguments in COMMANDS:
            problem = call(name, [argument.format(**values) for argument in arguments])
            if ITS_OWN.get(name, "") not in (problem or ""):
                wrong.append(f"{name}: {problem or 'works, and is listed as one that cannot'}")
            elif problem and name not in ITS_OWN:
                wrong.append(f"{name}: {problem}")
    unknown = every_command() - {name for name, _ in COMMANDS} - {"auth login"}
    wrong += [f"{name}: is not among those that are tried" for name in sorted(unknown)]
    tried = {name for name, _ in COMMANDS} - set(ITS_OWN)
    print(f"{len(ITS_OWN)} commands that this airflowctl can do with no server are not counted")
    return world.report("commands of airflowctl", wrong, len(tried) + 1)


def files(folder):
    contents = {
        "connections": {"imported": {"conn_type": "http", "host": "h"}},
        "variables": {"imported": "1"},
        "pools": [{"name": "imported", "slots": 1, "description": "", "include_deferred": False}],
    }
    for name, content in contents.items():
        (folder / f"{name}-in.json").write_text(json.dumps(content))
    return {name: str(folder / f"{name}-in.json") for name in contents}


def call(name, arguments):
    """What is wrong with it, if anything is."""
    from airflowctl.__main__ import main as airflowctl

    sys.argv = ["airflowctl", *name.split(), *arguments]
    said = io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        try:
            airflowctl()
        except SystemExit as end:
            if end.code:
                return f"{end.code}: {said.getvalue()[-600:]}"
        except Exception as error:
            return f"{type(error).__name__}: {str(error)[:300]}"
    return None


def every_command():
    import argparse

    from airflowctl.ctl.cli_parser import get_parser

    def subcommands(parser):
        choices = (action.choices for action in parser._actions if isinstance(action, argparse._SubParsersAction))
        return next(choices, {})

    groups = subcommands(get_parser())
    return {" ".join([group, name]).strip() for group, one in groups.items() for name in subcommands(one) or [""]}


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))

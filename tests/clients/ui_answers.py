"""Compares the answers to Airflow's web UI with those of Apache Airflow 3.3.2, for the same DAGs and runs.

    python ui_answers.py URL USERNAME PASSWORD WHEEL            compares with ui_answers.json
    python ui_answers.py URL USERNAME PASSWORD WHEEL record     writes ui_answers.json; the URL must be Airflow's

Times, ids and durations differ between servers, so only their types are compared. The DAGs are those of `ui_dags.py`.
The exit code is 1 if there is a difference."""

import json
import re
import sys
import urllib.parse
from pathlib import Path

import fixtures

RECORDED = Path(__file__).with_suffix(".json")
DAGS = ["ui_groups", "ui_mapped", "ui_setups", "ui_branches", "ui_makes", "ui_waits"]
RUN = ["ui_groups", "ui_mapped", "ui_setups", "ui_branches", "ui_makes"]
PATHS = [
    "/ui/auth/menus",
    "/ui/backfills?limit=10",
    "/ui/dashboard/dag_stats",
    "/ui/dashboard/historical_metrics_data?start_date=2026-01-01T00:00:00Z",
    "/ui/dags?" + urllib.parse.urlencode([("dag_ids", name) for name in DAGS] + [("dag_runs_limit", 2)]),
    "/ui/dependencies",
    "/ui/next_run_assets/ui_waits",
    "/ui/teams",
    *(f"/ui/dags/{name}/latest_run" for name in [*RUN, "ui_waits"]),
    *(f"/ui/dags/{name}/dagRuns/recorded/stats" for name in RUN),
    *(f"/ui/dags/{name}/dagRuns/recorded/deadlines" for name in RUN),
    *(f"/ui/dags/{name}/deadlineAlerts" for name in RUN),
    *(f"/ui/calendar/{name}?granularity=daily" for name in RUN),
    *(f"/ui/gantt/{name}/recorded" for name in RUN),
    *(f"/ui/grid/structure/{name}" for name in DAGS),
    *(f"/ui/grid/runs/{name}" for name in DAGS),
    *(f"/ui/grid/ti_summaries/{name}?run_ids=recorded" for name in RUN),
    *(f"/ui/structure/structure_data?dag_id={name}" for name in DAGS),
    *(f"/ui/structure/structure_data?dag_id={name}&external_dependencies=true" for name in DAGS),
]
DATE = "2026-01-05T00:00:00Z"
TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|\+00:00)")
# Lists whose order does not matter, because the UI looks up their items by name.
UNORDERED = ("task_instances", "nodes", "edges", "gantt")
UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")


def main(url, username, password, _wheel, record=None):
    server = fixtures.Server(url, username, password)
    prepare(server)
    answers = {path: answer(server, path) for path in PATHS}
    if record:
        RECORDED.write_text(json.dumps(answers, indent=1, sort_keys=True) + "\n")
        print(f"{len(answers)} answers are in {RECORDED}")
        return 0
    expected = json.loads(RECORDED.read_text())
    wrong = [line for path in PATHS for line in differences(expected[path], answers[path], path)]
    return fixtures.report("answers to the UI", wrong, len(PATHS))


def prepare(server):
    found = lambda: {dag["dag_id"] for dag in server.expect_success("GET", "/api/v2/dags?limit=100")["dags"]}  # noqa: E731
    fixtures.wait_for("the DAGs", lambda: set(DAGS) <= found())
    for name in DAGS:
        server.expect_success("PATCH", f"/api/v2/dags/{name}", {"is_paused": False})
    for name in RUN:
        server.expect_success("POST", f"/api/v2/dags/{name}/dagRuns", {"dag_run_id": "recorded", "logical_date": DATE})
        server.wait_for_run(f"/api/v2/dags/{name}/dagRuns/recorded")


def answer(server, path):
    status, body = server.request("GET", path)
    if isinstance(body, str) and body.endswith("\n"):
        body = [json.loads(line) for line in body.splitlines()]
    return {"status": status, "body": masked(body)}


def masked(value, key=""):
    """Replaces values that differ between servers by the name of their type."""
    if isinstance(value, dict):
        # The UI treats null like a missing field. `bundle_version` is null for Airflow's local bundles; in Leoflow it
        # is the number of the DAG version, so that the UI offers to rerun the newest version.
        kept = {name: item for name, item in value.items() if item is not None and name != "bundle_version"}
        return {name: masked(item, name) for name, item in kept.items()}
    if isinstance(value, list):
        shown = [masked(item, key) for item in value]
        return sorted(shown, key=json.dumps) if key in UNORDERED else shown
    if isinstance(value, float) or (isinstance(value, int) and key in ("duration", "file_token")):
        return "a number"
    if isinstance(value, int) and not isinstance(value, bool) and key in ("id", "asset_id", "version_number"):
        return "a number"
    if isinstance(value, str):
        if key in ("id", "source_id", "target_id") and value.isdigit():
            return "a number"
        if key in ("fileloc", "relative_fileloc", "file_token", "bundle_name", "bundle_version"):
            return "a text"
        value = UUID.sub("a uuid", TIME.sub("a time", value))
        return re.sub(r"^(asset|asset-alias|asset-uri-ref):\d+", r"\1:a number", value)
    return value


# Fields of Airflow 3.4, which the recorded answers of 3.3 lack.
NEWER = ("has_unfinished_runs", "id", "loop_iteration", "map_index", "region_id", "region_index", "scheduling_asset_count",
         "scheduling_state")


def differences(expected, found, where):
    if isinstance(expected, dict) and isinstance(found, dict):
        for name in sorted(set(expected) | set(found)):
            if name not in found:
                yield f"{where}.{name}: is missing, Airflow's {expected[name]!r}"
            elif name not in expected:
                if name not in NEWER:
                    yield f"{where}.{name}: {found[name]!r}, Airflow has no such field"
            else:
                yield from differences(expected[name], found[name], f"{where}.{name}")
    elif isinstance(expected, list) and isinstance(found, list) and len(expected) == len(found):
        for index, (expected_item, found_item) in enumerate(zip(expected, found, strict=True)):
            yield from differences(expected_item, found_item, f"{where}[{index}]")
    elif expected != found:
        yield f"{where}: {found!r}, Airflow's {expected!r}"


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))

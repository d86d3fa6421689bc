"""The objects that a test of a client needs, and the arguments of each API operation: the ids in its path, and its
body.

The objects are created through the API, so that the tests run with both Leoflow and Airflow. The server must have the
DAGs of `dags.py` and a DAG file that cannot be imported."""

import json
import time
import urllib.error
import urllib.parse
import urllib.request

# Time limit of one request, and of waiting for a condition, seconds.
TIMEOUT = 30
WAIT = 90
# Attempts of a request that the server answers with 503.
ATTEMPTS = 8
# Ids in paths.
IDS = {
    "dag_id": "shown", "dag_run_id": "first", "task_id": "group.one", "map_index": "-1", "xcom_key": "return_value",
    "asset_alias_id": "1", "backfill_id": "1", "connection_id": "there", "pool_name": "there",
    "variable_key": "there", "event_log_id": "1", "version_number": "1", "try_number": "1",
    "task_try_number": "1", "run_id": "first", "group_id": "group", "bundle_name": "workspace",
    "callback_id": "00000000-0000-0000-0000-000000000000", "section": "core", "option": "parallelism",
    "key": "there", "identifier": "group", "airflow_connection_test_token": "none",
}
# Statuses of operations that the server refuses by default, as Airflow does.
REFUSED = {
    "get_callback_logs": [404], "get_loop_summary": [422], "get_loop_history": [422],
    "list_teams": [403], "get_pending_partitioned_dag_run": [404], "get_external_log_url": [400],
    "test_connection": [403], "enqueue_connection_test": [403], "get_connection_test": [403, 404, 422],
}
BACKFILL = {"dag_id": "weekly", "from_date": "2026-01-01T00:00:00Z", "to_date": "2026-01-20T00:00:00Z"}
# Bodies by operationId; other operations send none.
BODIES = {
    "create_asset_event": {"asset_id": 1, "extra": {}},
    "materialize_asset": {},
    "create_backfill": BACKFILL, "create_backfill_dry_run": BACKFILL,
    "post_connection": {"connection_id": "new", "conn_type": "http"},
    "patch_connection": {"connection_id": "there", "conn_type": "http", "host": "h"},
    "bulk_connections": {"actions": [{"action": "create", "entities": [{"connection_id": "bulk", "conn_type": "http"}]}]},
    "test_connection": {"connection_id": "there", "conn_type": "sqlite"},
    "enqueue_connection_test": {"connection_id": "there", "conn_type": "sqlite"},
    "patch_dag_run": {"note": "seen"},
    "bulk_dag_runs": {"actions": []},
    "trigger_dag_run": {"logical_date": None},
    "clear_dag_run": {"dry_run": False},
    "get_list_dag_runs_batch": {}, "get_task_instances_batch": {},
    "clear_dag_runs": {"dry_run": False, "dag_runs": [{"dag_run_id": "second"}]},
    "clear_dag_run_partitions": {"dry_run": True, "run_id": "first"},
    "bulk_dags": {"actions": [{"action": "update", "entities": [{"dag_id": "shown", "scheduling_state": "active"}]}]},
    "patch_dags": {"is_paused": False}, "patch_dag": {"is_paused": False},
    "patch_pool": {"pool": "there", "slots": 3, "include_deferred": True}, "post_pool": {"name": "new", "slots": 1},
    "bulk_pools": {"actions": [{"action": "create", "entities": [{"name": "bulk", "slots": 1}]}]},
    "patch_variable": {"key": "there", "value": "2"}, "post_variable": {"key": "new", "value": "1"},
    "bulk_variables": {"actions": [{"action": "create", "entities": [{"key": "bulk", "value": "1"}]}]},
    "patch_task_instance": {"new_state": "failed"}, "patch_task_instance_by_map_index": {"new_state": "success"},
    "patch_task_instance_dry_run": {"new_state": "failed"},
    "patch_task_instance_dry_run_by_map_index": {"new_state": "failed"},
    "patch_task_group_instances": {"new_state": "skipped"}, "patch_task_group_instances_dry_run": {"new_state": "failed"},
    "bulk_task_instances": {"actions": []},
    "post_clear_task_instances": {"dry_run": True, "dag_run_id": "first", "only_failed": False},
    "set_asset_state_store": {"value": 1}, "set_task_state_store": {"value": 1}, "patch_task_state_store": {"value": 2},
    "create_xcom_entry": {"key": "new", "value": 1}, "update_xcom_entry": {"value": 2}, "generate_token": {},
    "update_hitl_detail": {"chosen_options": ["yes"]},
}
# Required query parameters.
QUERIES = {
    "wait_dag_run_until_finished": {"interval": 0.1}, "list_backfills": {"dag_id": "daily"},
    "historical_metrics": {"start_date": "2026-01-01T00:00:00Z"},
    "structure_data": {"dag_id": "shown", "external_dependencies": "true"},
    "get_grid_ti_summaries_stream": {"run_ids": "first"},
    "get_pending_partitioned_dag_run": {"partition_key": "2026-01-01"},
    "get_dag_version_diff": {"base_version_number": 1, "target_version_number": 1},
    "get_dag_run_state_counts_ui": {"dag_ids": "shown"},
    "get_recent_task_instance_state_counts_ui": {"dag_run_ids": "first"},
}


class NoRedirects(urllib.request.HTTPRedirectHandler):
    """Does not follow redirects."""

    def redirect_request(self, *_):
        return None


class Server:
    def __init__(self, url, username, password):
        self.url, self.username, self.password, self.token = url, username, password, None
        self.log_in()

    def log_in(self):
        self.token = None
        credentials = {"username": self.username, "password": self.password}
        self.token = self.request("POST", "/auth/token", credentials)[1]["access_token"]

    def request(self, method, path, body=None):
        """Returns status and body; the body is decoded if it is JSON."""
        headers = {"Content-Type": "application/json"}
        if self.token:
            headers["Authorization"] = f"Bearer {self.token}"
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(f"{self.url}{path}", data, headers, method=method)
        try:
            with urllib.request.build_opener(NoRedirects).open(request, timeout=TIMEOUT) as response:
                return response.status, parsed(response.read())
        except urllib.error.HTTPError as error:
            return error.code, parsed(error.read())

    def expect_success(self, method, path, body=None):
        for attempt in range(ATTEMPTS):
            status, answer = self.request(method, path, body)
            # Airflow answers 503 while another of its processes locks the SQLite database.
            if status != 503:
                break
            time.sleep(attempt)
        if status >= 300:
            raise SystemExit(f"{method} {path} answered {status}: {answer}")
        return answer

    def prepare(self):
        if self.request("GET", "/api/v2/variables/there")[0] == 200:
            # `bad_input.py` has prepared this server.
            self.expect_success("PATCH", "/api/v2/dags?dag_id_pattern=~", {"is_paused": False})
            return
        dag_ids = {"shown", "makes", "waiting", "daily", "weekly", "asks"}
        wait_for("the DAGs", lambda: dag_ids <= {dag["dag_id"] for dag in self.expect_success("GET", "/api/v2/dags")["dags"]})
        wait_for("the import error", lambda: self.expect_success("GET", "/api/v2/importErrors")["import_errors"])
        self.expect_success("PATCH", "/api/v2/dags?dag_id_pattern=~", {"is_paused": False})
        for dag_id, run_id in [("shown", "first"), ("shown", "second"), ("asks", "first")]:
            self.expect_success("POST", f"/api/v2/dags/{dag_id}/dagRuns", {"dag_run_id": run_id, "logical_date": None})
        for run_id in ["first", "second"]:
            self.wait_for_run(f"/api/v2/dags/shown/dagRuns/{run_id}")
        wait_for("the question", lambda: self.expect_success("GET", "/api/v2/dags/~/dagRuns/~/hitlDetails")["hitl_details"])
        self.expect_success("POST", "/api/v2/variables", {"key": "there", "value": "1"})
        self.expect_success("POST", "/api/v2/connections", {"connection_id": "there", "conn_type": "sqlite"})
        self.expect_success("POST", "/api/v2/pools", {"name": "there", "slots": 2, "description": "for tests"})
        long = {**BACKFILL, "dag_id": "daily", "to_date": "2026-09-01T00:00:00Z", "max_active_runs": 1}
        self.expect_success("POST", "/api/v2/backfills", long)
        for path in (f"assets/{self.asset('made')}", "dags/shown/dagRuns/first/taskInstances/group.one"):
            self.expect_success("PUT", f"/api/v2/{path}/state-store/there", {"value": 1})

    def wait_for_run(self, path):
        wait_for("the run", lambda: self.expect_success("GET", path)["state"] == "success")

    def asset(self, name):
        assets = self.expect_success("GET", "/api/v2/assets")["assets"]
        return next(asset["id"] for asset in assets if asset["name"] == name)

    def ids(self, name):
        """Returns the ids in the path of an operation. Creates objects that the operation consumes."""
        ids = dict(IDS)
        if name.startswith("get_mapped_task_instance"):
            ids |= {"task_id": "many", "map_index": "-1" if name == "get_mapped_task_instances" else "0"}
        ids["asset_id"] = self.asset("alone" if name == "materialize_asset" else "made")
        if "queued_event" in name:
            ids["dag_id"] = "waiting"
            self.expect_success("POST", "/api/v2/assets/events", {"asset_id": ids["asset_id"]})
        if name == "clear_dag_run":
            # Other operations need the first run unchanged.
            ids["dag_run_id"] = "second"
        if name.endswith("_batch"):
            ids |= {"dag_id": "~", "dag_run_id": "~"}
        if "hitl" in name:
            ids |= {"dag_id": "asks", "dag_run_id": "first", "task_id": "ask"}
        if name == "get_hitl_detail_try_detail":
            ids["try_number"] = "1"
        if name == "get_import_error":
            errors = self.expect_success("GET", "/api/v2/importErrors")["import_errors"]
            ids["import_error_id"] = errors[0]["import_error_id"]
        ids["file_token"] = self.expect_success("GET", "/api/v2/dags/daily")["file_token"]
        return ids


def parsed(text):
    try:
        return json.loads(text)
    except ValueError:
        return text.decode(errors="replace")


def wait_for(name, condition):
    deadline = time.monotonic() + WAIT
    while not condition():
        if time.monotonic() > deadline:
            raise SystemExit(f"after {WAIT} seconds, still waiting for {name}")
        time.sleep(0.2)


def sort_key(name, depth):
    """Returns the sort key of an operation: deletions come last; among them, those of the most nested objects come
    first."""
    takes_away = name.startswith(("delete_", "clear_asset_state", "clear_task_state", "cancel_"))
    return takes_away, -depth * takes_away


def report(kind, wrong, count):
    """Prints the errors and a summary; returns the exit code."""
    for line in wrong:
        print(line)
    print(f"{count - len(wrong)} of {count} {kind} work")
    return 1 if wrong else 0

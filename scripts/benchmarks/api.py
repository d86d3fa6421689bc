"""Measures the REST API and the web UI's home page of Leoflow and `airflow standalone`, with the same 100 DAGs.

Requests per second: `GET /api/v2/dags?limit=100` over four keep-alive connections. Slowest of 100: the same request,
one after the other, each over a new connection. First page: from the navigation to the drawn home page with its data,
with a warm cache, in headless Chromium (median of seven; skipped without Chromium or npm).
"""

import http.client
import json
import shutil
import subprocess
import threading
import time
import urllib.request
from pathlib import Path

from benchmarks.machine import dag_file, wait_for
from benchmarks.subjects import ROOT, Airflow, Leoflow

DAGS, CONNECTIONS, LOAD_SECONDS, WARM_UP_SECONDS = 100, 4, 8, 2
FIGURES = [("GET dags", "requests/s"), ("GET dags, slowest of 100", "ms"), ("first page drawn", "ms")]
PATH = f"/api/v2/dags?limit={DAGS}"


def write_dags(folder):
    folder.mkdir(exist_ok=True)
    for n in range(DAGS):
        (folder / f"dag_{n}.py").write_text(dag_file(f"dag_{n}", 5, True))


def get_json(port, token, path=PATH):
    request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", headers={"Authorization": f"Bearer {token}"})
    with urllib.request.urlopen(request, timeout=30) as response:
        return json.load(response)


def measure_api(port, token, password):
    wait_for(lambda: get_json(port, token)["total_entries"] >= DAGS, pause=0.5)
    time.sleep(WARM_UP_SECONDS)
    load(port, token, WARM_UP_SECONDS)
    yield "GET dags", load(port, token, LOAD_SECONDS)
    yield "GET dags, slowest of 100", 1000 * max(timed(port, token) for _ in range(100))
    if shutil.which("npm") and Path("/usr/bin/chromium").exists():
        command = [ROOT / "scripts/walk-ui.mjs", "--drawn", f"http://127.0.0.1:{port}", password]
        yield "first page drawn", float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def timed(port, token):
    begun = time.monotonic()
    get_json(port, token)
    return time.monotonic() - begun


def load(port, token, seconds):
    """Sends requests over all connections for `seconds`. Returns the requests per second."""
    until, counts = time.monotonic() + seconds, []

    def send_requests():
        connection, count = http.client.HTTPConnection("127.0.0.1", port, timeout=30), 0
        while time.monotonic() < until:
            connection.request("GET", PATH, headers={"Authorization": f"Bearer {token}"})
            response = connection.getresponse()
            response.read()
            if response.status != 200:
                raise SystemExit(f"{PATH} answered {response.status}")
            count += 1
        counts.append(count)

    def send_and_record_errors():
        try:
            send_requests()
        except (OSError, http.client.HTTPException, SystemExit) as error:
            errors.append(error)

    errors = []
    threads = [threading.Thread(target=send_and_record_errors) for _ in range(CONNECTIONS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise SystemExit(f"{len(errors)} connections failed: {errors[0]}")
    return sum(counts) / seconds


class LeoflowApi(Leoflow):
    def run(self):
        self.environment.pop("LEOFLOW_UI", None)
        write_dags(self.folder / "leoflow")
        made = json.loads(self.command("lite", "start", "--port", str(self.port), "--json"))
        credentials = {"username": made["admin_email"], "password": made["admin_password"]}
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}/auth/token", json.dumps(credentials).encode(),
                                         {"Content-Type": "application/json"})
        token = json.load(urllib.request.urlopen(request, timeout=10))["access_token"]
        wait_for(lambda: any((self.home / "ui").glob("*/index.html")), limit=60, pause=0.5)
        yield from measure_api(self.port, token, made["admin_password"])


class AirflowApi(Airflow):
    def run(self):
        write_dags(self.folder / "dags")
        self.start()
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/auth/token", timeout=30) as response:
            token = json.load(response)["access_token"]
        yield from measure_api(self.port, token, "")

    def variables(self):
        return {**super().variables(), "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_ALL_ADMINS": "True"}

"""Measures five instances of one user: the idle memory of each, and `upgrade --all` under load, between two releases
made from the release build. Part of scripts/bench; also `cd scripts && python3 -m benchmarks.instances`.

Each instance gets 50 requests per second, each on a connection of its own. Memory is the PSS of an instance's whole
process tree, twenty seconds after the last instance has started.
"""

import json
import os
import statistics
import subprocess
import tempfile
import time
from pathlib import Path

from benchmarks.load import Load, log_in
from benchmarks.machine import free_port, pss_mib, tree
from benchmarks.upgrade import old_and_new

INSTANCES, RATE, IDLE_SECONDS = 5, 50, 20
NAMES = [f"bench-{letter}" for letter in "abcde"]


class User:
    def __init__(self, folder, binary, postgres):
        self.binary = binary
        bin_folder = postgres / "bin" if (postgres / "bin").is_dir() else postgres
        self.environment = {
            "HOME": str(folder), "PATH": f"{bin_folder}:{os.environ['PATH']}",
            "LEOFLOW_POSTGRES_SOURCE": "system", "LEOFLOW_UI": "none", "LEOFLOW_PYTHON_PACKAGES": "none",
        }

    def run(self, *arguments, check=True):
        return subprocess.run([self.binary, *map(str, arguments)], env=self.environment, check=check, stdin=subprocess.DEVNULL, capture_output=True, text=True)

    def json(self, *arguments):
        return json.loads(self.run(*arguments, "--json").stdout)


def measure(postgres):
    with tempfile.TemporaryDirectory(prefix="leoflow-bench-") as folder:
        folder = Path(folder)
        _, _, _, new = old_and_new(folder, postgres)
        home = folder / "user"
        home.mkdir()
        user = User(home, folder / "leoflow-0.1.0", Path(postgres))
        try:
            return upgrade_all_under_load(user, new)
        finally:
            user.run("lite", "stop", "--all", "--yes", check=False)


def upgrade_all_under_load(user, new):
    ports, passwords = {}, {}
    for name in NAMES:
        ports[name] = free_port()
        user.run("instances", "create", name, "--port", ports[name])
        passwords[name] = user.json("--instance", name, "lite", "reset-password", "--generate")["admin_password"]
        user.run("--instance", name, "lite", "start")
    time.sleep(IDLE_SECONDS)
    idle = []
    for name in NAMES:
        idle.append(pss_mib(tree(user.json("--instance", name, "lite", "status")["pid"])))
    loads = {name: Load(ports[name], log_in(ports[name], passwords[name]), RATE) for name in NAMES}
    time.sleep(2)
    begun = time.monotonic()
    done = user.run("upgrade", "--all", "--yes", "--from", new, "--json", check=False)
    seconds = time.monotonic() - begun
    time.sleep(1)
    for load in loads.values():
        load.end()
    results = json.loads(done.stdout)["instances"]
    problems = [result for result in results if (result["result"] or {}).get("status") != "upgraded"]
    for name, load in loads.items():
        kept = user.run("--instance", name, "lite", "psql", "--", "-X", "-A", "-t", "-c", "SELECT count(*) FROM variable WHERE key LIKE 'load%'")
        if int(kept.stdout) < len(load.written):
            problems.append(f"{name}: {len(load.written) - int(kept.stdout)} acknowledged rows are lost")
        problems += load.failed[:3]
    return {
        "idle": idle, "seconds": seconds, "problems": problems,
        "pauses": [result["result"]["pause"] for result in results if result["result"]],
        "requests": sum(load.sent for load in loads.values()),
        "failed": sum(len(load.failed) for load in loads.values()),
        "slowest": max(max(load.seconds) for load in loads.values()),
    }


def show(values):
    idle = values["idle"]
    print(f"{INSTANCES} instances, idle each         {statistics.median(idle):8.1f} MiB PSS   from {min(idle):.1f} to {max(idle):.1f}")
    print(f"upgrade --all, {RATE} requests/s each {values['seconds']:8.1f} s   pauses {min(values['pauses']):.2f} to {max(values['pauses']):.2f} s")
    print(f"failed requests              {values['failed']:8} of {values['requests']}, slowest {values['slowest']:.2f} s")
    for problem in values["problems"]:
        print(f"   {problem}")


if __name__ == "__main__":
    import argparse

    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--postgres", required=True, help="folder with PostgreSQL")
    show(measure(arguments.parse_args().postgres))

"""Shared functions of the benchmarks: DAG files, process statistics and waiting."""

import os
import signal
import socket
import time
import urllib.request
from pathlib import Path

IDLE_SECONDS = 10


def dag_file(dag_id, count, is_chain):
    """Returns a DAG file for Airflow and Leoflow, with `count` tasks in a chain or independent of each other."""
    arrow = "previous >> one" if is_chain else "one"
    return (f"from airflow.sdk import DAG, task\n@task\ndef nothing():\n    return None\n"
            f"with DAG({dag_id!r}, max_active_tasks=100):\n    previous = None\n    for n in range({count}):\n"
            f"        one = nothing.override(task_id=f't{{n}}')()\n        if previous is not None: {arrow}\n        previous = one\n")


def stat(pid):
    """Returns the fields of /proc/PID/stat from the state on; None if the process does not exist."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    return text[text.rindex(")") + 2:].split()


def tree(root):
    """Returns the pid and the pids of all its descendants."""
    parents = {int(p.name): stat(p.name) for p in Path("/proc").iterdir() if p.name.isdigit()}
    found = [root]
    for pid in found:
        found += [child for child, fields in parents.items() if fields and int(fields[1]) == pid]
    return found


def pss_mib(pids):
    total = 0
    for pid in pids:
        try:
            lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
        except OSError:
            continue
        total += sum(int(line.split()[1]) for line in lines if line.startswith("Pss:"))
    return total / 1024


def cpu_seconds(pids):
    """Returns the CPU seconds of each pid, without processes that have ended."""
    fields = {pid: stat(pid) for pid in pids}
    return {pid: (int(f[11]) + int(f[12])) / os.sysconf("SC_CLK_TCK") for pid, f in fields.items() if f}


def idle(root):
    time.sleep(IDLE_SECONDS)
    pids = tree(root)
    before, begun = cpu_seconds(pids), time.monotonic()
    time.sleep(IDLE_SECONDS)
    yield "idle memory", pss_mib(tree(root))
    used = sum(after - before.get(pid, after) for pid, after in cpu_seconds(pids).items())
    yield "idle cpu", 100 * used / (time.monotonic() - begun)


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def fetch(url):
    """Returns whether the status is 200, and the body."""
    try:
        with urllib.request.urlopen(url, timeout=2) as response:
            return response.status == 200, response.read()
    except OSError:
        return False, b""


def wait_for(condition, limit=240, pause=0.002):
    """Polls until the condition is true. Returns the seconds; ends the program after `limit` seconds."""
    begun = time.monotonic()
    while not condition():
        if time.monotonic() - begun > limit:
            raise SystemExit("not within the time limit")
        time.sleep(pause)
    return time.monotonic() - begun


def stop(process, number=signal.SIGTERM):
    """Sends the signal `number` to a process group. Returns the seconds until its process tree has ended, or None if it
    had to be killed after 30 seconds."""
    pids, begun = tree(process.pid), time.monotonic()
    os.killpg(process.pid, number)
    while time.monotonic() - begun < 30:
        process.poll()
        if not any(fields and fields[0] != "Z" for fields in map(stat, pids)):
            return time.monotonic() - begun
        time.sleep(0.005)
    for pid in pids:
        if stat(pid):
            os.kill(pid, signal.SIGKILL)
    process.wait()
    return None

"""Sends invalid requests to every operation of Apache Airflow's API. The server must refuse requests without a token,
with invalid tokens and with invalid bodies; it may answer invalid ids and query parameters with any status except 5xx.

    python bad_input.py URL USERNAME PASSWORD WHEEL

With LEOFLOW_SOAK, sends all requests; otherwise one in FEW, different ones each day.

A refusal is correct if its status is 4xx, its body is JSON with a `detail`, and the lists in LISTS have not changed.
The exit code is 1 if an answer is not correct."""

import base64
import http.client
import os
import re
import sys
import time
import urllib.parse

import fixtures
import operations

# Values for each id in a path.
IDS = ["a/b", "%", "a b", "x" * 250, "x" * 300, "\0", "ü☃", "..", "-9223372036854775809"]
NUMBERS = ["x", "", "-1", "9" * 30, "1.5", "\0"]
BODIES = [b"", b"{", b"[]", b"1", b'"x"', b"null", b'{"nothing_of_that_name": 1}', b"\xff\xfe", b"[" * 2000]
LARGE = 17 * 1024 * 1024
# An ordinary test run sends one in FEW requests.
FEW = 4
# Operations that need no token.
OPEN = {"get_health", "get_version", "login", "logout"}
# Empty bodies, and the operations that accept an empty body.
EMPTY_BODIES = [b"", b"null"]
BODY_OPTIONAL = {"materialize_asset"}
# Lists that are compared before and after the requests.
LISTS = ["variables", "connections", "pools", "dags", "dags/~/dagRuns", "dags/~/dagRuns/~/taskInstances", "backfills?dag_id=daily",
         "dags/~/dagRuns/~/taskInstances/~/xcomEntries", "assets", "dags/~/dagRuns/~/hitlDetails"]


def main(url, username, password, wheel):
    server = fixtures.Server(url, username, password)
    server.prepare()
    # Scheduled runs would change the lists.
    server.expect_success("PATCH", "/api/v2/dags?dag_id_pattern=~", {"is_paused": True})
    fixtures.wait_for("the end of all activity", lambda: is_idle(server))
    before = snapshot(server)
    wrong, count, number = [], 0, 0
    every = 1 if "LEOFLOW_SOAK" in os.environ else FEW
    seed = int(os.environ.get("LEOFLOW_TEST_SEED", time.time() // 86_400))
    for description in operations.described(wheel):
        for path, item in description["paths"].items():
            for method, operation in item.items():
                if method == "parameters":
                    continue
                name = operation["operationId"]
                # For operations on queued events, `server.ids` would create an event, which changes the lists.
                ids = server.ids(name) if "queued_event" not in name else server.ids("get_dag") | {"dag_id": "waiting"}
                for reason, *request in requests(server, method.upper(), path, operation, ids):
                    number += 1
                    if (number + seed) % every:
                        continue
                    count += 1
                    problem = refused(server.url, *request)
                    if problem:
                        wrong.append(f"{name}: {reason}: {problem}")
    after = snapshot(server)
    wrong += [f"{name} has changed: {first_change(before[name], after[name])}" for name in before if before[name] != after[name]]
    return fixtures.report("bad requests", wrong, count)


def is_idle(server):
    """True if no task runs and the lists stay the same for a second. A task can run for longer without a change."""
    before = snapshot(server)
    time.sleep(1)
    occupied = any(pool["occupied_slots"] for pool in before["pools"]["pools"])
    return not occupied and snapshot(server) == before


def snapshot(server):
    return {name: server.expect_success("GET", f"/api/v2/{name}") for name in LISTS}


def first_change(before, after):
    """Describes the first difference, with the path of its field."""
    if isinstance(before, list) and isinstance(after, list) and len(before) == len(after):
        before, after = dict(enumerate(before)), dict(enumerate(after))
    if isinstance(before, dict) and isinstance(after, dict) and before.keys() == after.keys():
        name = next(name for name in before if before[name] != after[name])
        return f"{name}.{first_change(before[name], after[name])}"
    return f"{str(before)[:200]} is now {str(after)[:200]}"


def requests(server, method, path, operation, ids):
    """Yields tuples of description, method, path, headers, body and allowed statuses; `None` allows all except server
    errors."""
    name = operation["operationId"]
    filled = fill(path, ids)
    own = {"Authorization": f"Bearer {server.token}", "Content-Type": "application/json"}
    if name not in OPEN:
        for reason, headers in foreign_tokens(server.token):
            yield f"{reason} token", method, filled, {**own, **headers}, b"{}", [401]
    if name == "logout":
        return
    takes_body = "requestBody" in operation
    for parameter_name in re.findall(r"{(\w+)}", path):
        for bad in IDS:
            # The body is empty, so an operation that requires one is refused for any id.
            yield f"{parameter_name}={bad[:9]!r}", method, fill(path, {**ids, parameter_name: bad}), own, b"", None
    if method == "GET":
        for parameter in operation.get("parameters", []):
            if parameter["in"] == "query" and name != "wait_dag_run_until_finished":
                required = fixtures.QUERIES.get(name, {})
                for bad in NUMBERS:
                    query = urllib.parse.urlencode({**required, parameter["name"]: bad})
                    yield f"{parameter['name']}={bad[:9]!r}", method, f"{filled}?{query}", own, b"", None
    if takes_body:
        for bad in BODIES:
            if bad not in EMPTY_BODIES or name not in BODY_OPTIONAL:
                yield f"body {bad[:9]!r}", method, filled, own, bad, range(400, 500)
        yield "a large body", method, filled, own, b'{"x": "' + b"x" * LARGE + b'"}', range(400, 500)


def fill(path, ids):
    return re.sub(r"{(\w+)}", lambda match: urllib.parse.quote(str(ids[match[1]]), safe="~"), path)


def foreign_tokens(token):
    """Yields pairs of description and headers, with invalid tokens made from a valid one."""
    head, claims, signature = token.split(".")
    none = base64.urlsafe_b64encode(b'{"alg":"none","typ":"JWT"}').decode().rstrip("=")
    yield "no", {"Authorization": ""}
    yield "an altered", {"Authorization": f"Bearer {head}.{claims}.{signature[::-1]}"}
    yield "an unsigned", {"Authorization": f"Bearer {none}.{claims}."}
    yield "a basic", {"Authorization": "Basic YTpi"}


def refused(url, method, path, headers, body, statuses):
    """Sends a request; returns an error message if the answer is not correct, or None."""
    connection = http.client.HTTPConnection(urllib.parse.urlsplit(url).netloc, timeout=fixtures.TIMEOUT)
    try:
        connection.request(method, path, body, headers)
        response = connection.getresponse()
        status, text = response.status, response.read()
    except (ConnectionError, http.client.HTTPException) as error:
        # The server may close the connection of a large request before it answers.
        return None if len(body) >= LARGE else f"{type(error).__name__}: {error}"
    finally:
        connection.close()
    if statuses is not None and status not in statuses:
        return f"{status} {text[:200]!r}"
    if status >= 500:
        return f"{status} {text[:200]!r}"
    answer = fixtures.parsed(text)
    if status >= 400 and not (isinstance(answer, dict) and "detail" in answer):
        return f"{status} without a detail: {text[:200]!r}"
    return None


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))

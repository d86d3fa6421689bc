"""Asks every operation of Apache Airflow's API what it must refuse: without a token or with one that is none, and with bodies
that are none. With ids and queries that are none it may answer as it likes, but for an error of the server's.

    python bad_input.py URL USERNAME PASSWORD WHEEL

With LEOFLOW_SOAK all of them; otherwise one in FEW, others each day.

A refusal is well when its status is one of 4xx, its answer is JSON with a `detail`, and nothing has changed afterwards. The
exit code is 1 when one is not."""

import base64
import http.client
import os
import re
import sys
import time
import urllib.parse

import operations
import world

# In the place of each id of a path.
IDS = ["a/b", "%", "a b", "x" * 250, "x" * 300, "\0", "ü☃", "..", "-9223372036854775809"]
NUMBERS = ["x", "", "-1", "9" * 30, "1.5", "\0"]
BODIES = [b"", b"{", b"[]", b"1", b'"x"', b"null", b'{"nothing_of_that_name": 1}', b"\xff\xfe", b"[" * 2000]
LARGE = 17 * 1024 * 1024
# One in so many is asked where a change is tested.
FEW = 4
# Open to everybody, or there to end a login.
OPEN = {"get_health", "get_version", "login", "logout"}
# Bodies that may be left out, and of what.
NOTHING = [b"", b"null"]
MAY_HAVE_NONE = {"materialize_asset"}
# What is looked at afterwards.
LISTS = ["variables", "connections", "pools", "dags", "dags/~/dagRuns", "dags/~/dagRuns/~/taskInstances", "backfills?dag_id=daily",
         "dags/~/dagRuns/~/taskInstances/~/xcomEntries", "assets", "dags/~/dagRuns/~/hitlDetails"]


def main(url, username, password, wheel):
    there = world.World(url, username, password)
    there.prepare()
    # Runs of its own would change what is looked at.
    there.sure("PATCH", "/api/v2/dags?dag_id_pattern=~", {"is_paused": True})
    world.wait_for("an end of what goes on", lambda: seen(there) == (time.sleep(1), seen(there))[1])
    before = seen(there)
    wrong, count, number = [], 0, 0
    every = 1 if "LEOFLOW_SOAK" in os.environ else FEW
    seed = int(os.environ.get("LEOFLOW_TEST_SEED", time.time() // 86_400))
    for description in operations.described(wheel):
        for path, item in description["paths"].items():
            for method, operation in item.items():
                if method == "parameters":
                    continue
                name = operation["operationId"]
                ids = there.ids(name) if "queued_event" not in name else there.ids("get_dag") | {"dag_id": "waiting"}
                for what, *request in requests(there, method.upper(), path, operation, ids):
                    number += 1
                    if (number + seed) % every:
                        continue
                    count += 1
                    problem = refused(there.url, *request)
                    if problem:
                        wrong.append(f"{name}: {what}: {problem}")
    after = seen(there)
    wrong += [f"{name} has changed: {first_change(before[name], after[name])}" for name in before if before[name] != after[name]]
    return world.report("bad requests", wrong, count)


def seen(there):
    return {name: there.sure("GET", f"/api/v2/{name}") for name in LISTS}


def first_change(before, after):
    """Down to the field, as far as the two are alike."""
    if isinstance(before, list) and isinstance(after, list) and len(before) == len(after):
        before, after = dict(enumerate(before)), dict(enumerate(after))
    if isinstance(before, dict) and isinstance(after, dict) and before.keys() == after.keys():
        name = next(name for name in before if before[name] != after[name])
        return f"{name}.{first_change(before[name], after[name])}"
    return f"{str(before)[:200]} is now {str(after)[:200]}"


def requests(there, method, path, operation, ids):
    """What it is, method, address, headers, body, and the statuses that are right; `None` for any that is no fault of the
    server's."""
    name = operation["operationId"]
    filled = fill(path, ids)
    own = {"Authorization": f"Bearer {there.token}", "Content-Type": "application/json"}
    if name not in OPEN:
        for what, headers in foreign_tokens(there.token):
            yield f"{what} token", method, filled, {**own, **headers}, b"{}", [401]
    if name == "logout":
        return
    takes_body = "requestBody" in operation
    for place in re.findall(r"{(\w+)}", path):
        for bad in IDS:
            # Without a body, what has one is refused whatever its id is.
            yield f"{place}={bad[:9]!r}", method, fill(path, {**ids, place: bad}), own, b"", None
    if method == "GET":
        for parameter in operation.get("parameters", []):
            if parameter["in"] == "query" and name != "wait_dag_run_until_finished":
                required = world.QUERIES.get(name, {})
                for bad in NUMBERS:
                    query = urllib.parse.urlencode({**required, parameter["name"]: bad})
                    yield f"{parameter['name']}={bad[:9]!r}", method, f"{filled}?{query}", own, b"", None
    if takes_body:
        for bad in BODIES:
            if bad not in NOTHING or name not in MAY_HAVE_NONE:
                yield f"body {bad[:9]!r}", method, filled, own, bad, range(400, 500)
        yield "a large body", method, filled, own, b'{"x": "' + b"x" * LARGE + b'"}', range(400, 500)


def fill(path, ids):
    return re.sub(r"{(\w+)}", lambda match: urllib.parse.quote(str(ids[match[1]]), safe="~"), path)


def foreign_tokens(token):
    head, claims, signature = token.split(".")
    none = base64.urlsafe_b64encode(b'{"alg":"none","typ":"JWT"}').decode().rstrip("=")
    yield "no", {"Authorization": ""}
    yield "an altered", {"Authorization": f"Bearer {head}.{claims}.{signature[::-1]}"}
    yield "an unsigned", {"Authorization": f"Bearer {none}.{claims}."}
    yield "somebody's", {"Authorization": "Basic YTpi"}


def refused(url, method, path, headers, body, statuses):
    """What is wrong with the refusal, if anything is."""
    connection = http.client.HTTPConnection(urllib.parse.urlsplit(url).netloc, timeout=world.TIMEOUT)
    try:
        connection.request(method, path, body, headers)
        response = connection.getresponse()
        status, text = response.status, response.read()
    except (ConnectionError, http.client.HTTPException) as error:
        # Who sends too much may be cut off before the answer.
        return None if len(body) >= LARGE else f"{type(error).__name__}: {error}"
    finally:
        connection.close()
    if statuses is not None and status not in statuses:
        return f"{status} {text[:200]!r}"
    if status >= 500:
        return f"{status} {text[:200]!r}"
    answer = world.parsed(text)
    if status >= 400 and not (isinstance(answer, dict) and "detail" in answer):
        return f"{status} without a detail: {text[:200]!r}"
    return None


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))

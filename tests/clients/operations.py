"""Calls every operation that Apache Airflow describes in its OpenAPI files, and checks each answer by its schema.

    python operations.py URL USERNAME PASSWORD WHEEL

The files are those in the wheel of apache-airflow-core: of the REST API, and of what the web UI asks. An answer counts when
its status is one of success and its body fits the schema. The exit code is 1 when one does not."""

import json
import re
import sys
import urllib.parse
import zipfile

import jsonschema
import world
import yaml

FOLDER = "airflow/api_fastapi/core_api/openapi"
# What Airflow itself answers, and does not describe.
UNDESCRIBED = {("delete_dag", 204), ("logout", 307), ("login", 307)}
FILES = ("v2-rest-api-generated.yaml", "_private_ui.yaml")


def main(url, username, password, wheel):
    there = world.World(url, username, password)
    there.prepare()
    operations = [
        (description, method, path, operation)
        for description in described(wheel)
        for path, item in description["paths"].items() for method, operation in item.items() if method != "parameters"
    ]
    operations.sort(key=lambda one: world.place(one[3]["operationId"], one[2].count("/")))
    wrong = []
    for description, method, path, operation in operations:
        problem = call(there, description, method, path, operation)
        if problem:
            wrong.append(f"{operation['operationId']}: {method.upper()} {path}: {problem}")
    return world.report("operations", wrong, len(operations))


def described(wheel):
    with zipfile.ZipFile(wheel) as files:
        texts = [files.read(f"{FOLDER}/{name}").decode() for name in FILES]
    for text in texts:
        # One place says that exactly one of two schemas fits, of which one takes whatever the other does.
        whole = yaml.load(text.replace("oneOf:", "anyOf:"), yaml.CSafeLoader)
        description = json.loads(json.dumps(whole, default=str))
        # Airflow itself leaves it out where it is null.
        node = description["components"]["schemas"].get("GridNodeResponse", {})
        node["required"] = [name for name in node.get("required", []) if name != "is_mapped"]
        yield description


def call(there, description, method, path, operation):
    """What is wrong with it, if anything is."""
    name = operation["operationId"]
    ids = there.ids(name)
    filled = re.sub(r"{(\w+)}", lambda match: urllib.parse.quote(str(ids[match[1]]), safe="~"), path)
    query = urllib.parse.urlencode(world.QUERIES.get(name, {}))
    status, answer = there.request(method.upper(), f"{filled}?{query}" if query else filled, world.BODIES.get(name))
    if name == "logout":
        # The token is good no more.
        there.log_in()
    if status in world.REFUSED.get(name, []):
        return None
    if status >= 400:
        return f"{status} {json.dumps(answer)[:300]}"
    expected = operation["responses"].get(str(status))
    if expected is None and (name, status) not in UNDESCRIBED:
        return f"{status} is not among what it may answer"
    schema = (expected or {}).get("content", {}).get("application/json", {}).get("schema")
    if not schema or status >= 300:
        return None
    errors = jsonschema.Draft202012Validator({**schema, "components": description["components"]}).iter_errors(answer)
    first = next(errors, None)
    return first and f"{'.'.join(map(str, first.absolute_path))}: {first.message[:200]}"


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))

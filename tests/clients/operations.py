"""Calls every operation in Apache Airflow's OpenAPI files, and validates each answer against its schema.

    python operations.py URL USERNAME PASSWORD WHEEL

The OpenAPI files are those of the REST API and of the web UI in the wheel of apache-airflow-core. An operation works if
its status means success and its body matches the schema. The exit code is 1 if an operation does not work."""

import json
import re
import sys
import urllib.parse
import zipfile

import fixtures
import jsonschema
import yaml

FOLDER = "airflow/api_fastapi/core_api/openapi"
# Statuses that Airflow answers but does not describe.
UNDESCRIBED = {("delete_dag", 204), ("logout", 307), ("login", 307)}
FILES = ("v2-rest-api-generated.yaml", "_private_ui.yaml")


def main(url, username, password, wheel):
    server = fixtures.Server(url, username, password)
    server.prepare()
    operations = [
        (description, method, path, operation)
        for description in described(wheel)
        for path, item in description["paths"].items() for method, operation in item.items() if method != "parameters"
    ]
    operations.sort(key=lambda entry: fixtures.sort_key(entry[3]["operationId"], entry[2].count("/")))
    wrong = []
    for description, method, path, operation in operations:
        problem = call(server, description, method, path, operation)
        if problem:
            wrong.append(f"{operation['operationId']}: {method.upper()} {path}: {problem}")
    return fixtures.report("operations", wrong, len(operations))


def described(wheel):
    """Yields the descriptions in Airflow's OpenAPI files, with corrections."""
    with zipfile.ZipFile(wheel) as files:
        texts = [files.read(f"{FOLDER}/{name}").decode() for name in FILES]
    for text in texts:
        # One `oneOf` has two schemas of which the first includes the second, so no value matches exactly one of them.
        whole = yaml.load(text.replace("oneOf:", "anyOf:"), yaml.CSafeLoader)
        description = json.loads(json.dumps(whole, default=str))
        # Airflow omits this required field when it is null.
        node = description["components"]["schemas"].get("GridNodeResponse", {})
        node["required"] = [name for name in node.get("required", []) if name != "is_mapped"]
        yield description


def call(server, description, method, path, operation):
    """Calls an operation; returns an error message, or None."""
    name = operation["operationId"]
    ids = server.ids(name)
    filled = re.sub(r"{(\w+)}", lambda match: urllib.parse.quote(str(ids[match[1]]), safe="~"), path)
    query = urllib.parse.urlencode(fixtures.QUERIES.get(name, {}))
    status, answer = server.request(method.upper(), f"{filled}?{query}" if query else filled, fixtures.BODIES.get(name))
    if name == "logout":
        # The token is no longer valid.
        server.log_in()
    if status in fixtures.REFUSED.get(name, []):
        return None
    if status >= 400:
        return f"{status} {json.dumps(answer)[:300]}"
    expected = operation["responses"].get(str(status))
    if expected is None and (name, status) not in UNDESCRIBED:
        return f"{status} is not a described status"
    schema = (expected or {}).get("content", {}).get("application/json", {}).get("schema")
    if not schema or status >= 300:
        return None
    errors = jsonschema.Draft202012Validator({**schema, "components": description["components"]}).iter_errors(answer)
    first = next(errors, None)
    return first and f"{'.'.join(map(str, first.absolute_path))}: {first.message[:200]}"


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))

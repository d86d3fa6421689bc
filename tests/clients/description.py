"""Compares the API's own description with Apache Airflow's: operation by operation, schema by schema.

    python description.py URL USERNAME PASSWORD WHEEL

Airflow's is the OpenAPI file in the wheel of apache-airflow-core. What an answer has may be promised more often than Airflow
does; what a request may have is to be the same. The exit code is 1 when something differs that is not listed here."""

import json
import sys
import urllib.request

import operations
import world

# What differs, and why.
IDS = "an id is a text, which Airflow forgets to say"
ALL = "what is no ~ is refused, and no schema tells of it"
REFUSED = "what is wrong with a request is told in a list, here as with Airflow"
DIFFERENCES = {
    "delete_dag: 422: is HTTPValidationError, Airflow's HTTPExceptionResponse": REFUSED,
    "delete_dag: statuses 204, Airflow's 200": "Airflow answers 204, and describes another",
    "enqueue_connection_test: 422: is HTTPValidationError, Airflow's HTTPExceptionResponse": REFUSED,
    "get_dag: 422: is HTTPValidationError, Airflow's HTTPExceptionResponse": REFUSED,
    "get_list_dag_runs_batch: parameter dag_id: is string, Airflow's one of [\"~\"]": ALL,
    "get_task: parameter task_id: is string, Airflow's anything": IDS,
    "get_task_instances_batch: parameter dag_id: is string, Airflow's one of [\"~\"]": ALL,
    "get_task_instances_batch: parameter dag_run_id: is string, Airflow's one of [\"~\"]": ALL,
    "list_backfills: parameter dag_id: required": "all backfills are listed where nobody names a DAG",
    "logout: who may ask": "it leads to the login whoever asks",
    "schema JsonValue: is not there": "it is Airflow's name of what may be anything",
    "trigger_dag_run: parameter dag_id: is string, Airflow's anything": IDS,
}
METHODS = ("get", "post", "put", "patch", "delete")
BOUNDS = ("minimum", "maximum", "exclusiveMinimum", "minLength", "maxLength", "pattern", "minItems")


def main(url, username, password, wheel):
    ours = json.load(urllib.request.urlopen(f"{url}/openapi.json"))
    theirs = next(operations.described(wheel))
    wrong = []
    both = list(pairs(ours, theirs, wrong))
    for name, one, other in both:
        wrong += compare(name, one, other, ours, theirs)
    names = ours["components"]["schemas"], theirs["components"]["schemas"]
    wrong += [f"schema {name}: is not there" for name in names[1] if name not in names[0]]
    wrong += [f"schema {name}: is not Airflow's" for name in names[0] if name not in names[1]]
    unused = [difference for difference in DIFFERENCES if difference not in wrong]
    wrong = [one for one in wrong if one not in DIFFERENCES] + [f"is listed and no difference: {one}" for one in unused]
    return world.report("descriptions", sorted(wrong), len(both))


def pairs(ours, theirs, wrong):
    """Operations by Airflow's names of them, which have to be at the same place."""
    found = [dict(operations_of(document)) for document in (ours, theirs)]
    wrong += [f"{name}: is not there" for name in found[1] if name not in found[0]]
    wrong += [f"{name}: is not Airflow's" for name in found[0] if name not in found[1]]
    for name, (place, other) in found[1].items():
        if name not in found[0]:
            continue
        if found[0][name][0] != place:
            wrong.append(f"{name}: is at {found[0][name][0]}, and Airflow's at {place}")
        yield name, found[0][name][1], other


def operations_of(document):
    for path, item in document["paths"].items():
        for method in METHODS:
            if method in item:
                operation = item[method]
                shared = item.get("parameters", [])
                operation["parameters"] = operation.get("parameters", []) + shared
                yield operation["operationId"], (f"{method.upper()} {path}", operation)


def compare(name, one, other, ours, theirs):
    if one["tags"] != other["tags"]:
        yield f"{name}: tags {one['tags']}, Airflow's {other['tags']}"
    if bool(one.get("security")) != bool(other.get("security")):
        yield f"{name}: who may ask"
    mine, its = set(one["responses"]), set(other["responses"])
    if mine != its:
        yield f"{name}: statuses {' '.join(sorted(mine - its))}, Airflow's {' '.join(sorted(its - mine))}"
    yield from parameters(name, one, other, ours, theirs)
    yield from bodies(f"{name}: body", one.get("requestBody"), other.get("requestBody"), Taken(ours, theirs))
    for status in sorted(set(one["responses"]) & set(other["responses"])):
        here = f"{name}: {status}"
        yield from bodies(here, one["responses"][status], other["responses"][status], Given(ours, theirs))


def parameters(name, one, other, ours, theirs):
    # What a client takes is no parameter of its own in OpenAPI 3.1.
    mine, its = [{(p["in"], p["name"]): p for p in op["parameters"] if p["name"] != "accept"} for op in (one, other)]
    for key in sorted(set(mine) ^ set(its)):
        yield f"{name}: parameter {key[1]} in {key[0]}: {'is not there' if key in its else 'is not Airflow’s'}"
    for key in sorted(set(mine) & set(its)):
        here = f"{name}: parameter {key[1]}"
        if mine[key].get("required", False) != its[key].get("required", False):
            yield f"{here}: required"
        # A query cannot have null.
        yield from Asked(ours, theirs).compare(here, mine[key]["schema"], its[key]["schema"])


def bodies(here, one, other, of):
    if (one is None) != (other is None):
        yield f"{here}: {'is not there' if one is None else 'is not Airflow’s'}"
        return
    if one is None:
        return
    if one.get("required", False) != other.get("required", False):
        yield f"{here}: required"
    mine, its = one.get("content", {}), other.get("content", {})
    if set(mine) != set(its):
        yield f"{here}: media types {sorted(mine)}, Airflow's {sorted(its)}"
    for kind in sorted(set(mine) & set(its)):
        yield from of.compare(here, mine[kind].get("schema", {}), its[kind].get("schema", {}))


class Schemas:
    """Two of them, each of its own document."""

    bounds = BOUNDS
    takes_null = True

    def __init__(self, ours, theirs):
        self.documents = (ours, theirs)
        self.seen = set()

    def compare(self, here, one, other):
        one, other = [{} if schema is True else schema for schema in (one, other)]
        names = [schema.get("$ref", "").rsplit("/", 1)[-1] for schema in (one, other)]
        if all(names):
            if names[0] != names[1]:
                yield f"{here}: is {names[0]}, Airflow's {names[1]}"
                return
            if names[0] in self.seen:
                return
            self.seen.add(names[0])
            here = f"{here}: {names[1]}"
        alternatives = [self.alternatives(schema, at) for at, schema in enumerate((one, other))]
        if self.default(one) != self.default(other) and self.default(other) is not None:
            yield f"{here}: usually {self.default(one)}, Airflow's {self.default(other)}"
        keys = [[self.key(schema, at) for schema in found] for at, found in enumerate(alternatives)]
        if not self.fits(sorted(keys[0]), sorted(keys[1])):
            yield f"{here}: is {' or '.join(sorted(keys[0]))}, Airflow's {' or '.join(sorted(keys[1]))}"
            return
        if keys[1] == ["anything"]:
            return
        for schema, key in zip(alternatives[0], keys[0], strict=True):
            yield from self.same(here, schema, alternatives[1][keys[1].index(key)])

    def default(self, _):
        return None

    def fits(self, mine, its):
        return mine == its

    def alternatives(self, schema, at):
        """What it may be, each of one type; a name leads to what it names."""
        if schema is True:
            return [{}]
        if "$ref" in schema:
            return self.alternatives(self.documents[at]["components"]["schemas"][schema["$ref"].rsplit("/", 1)[-1]], at)
        for word in ("anyOf", "oneOf"):
            if word in schema:
                return [one for inner in schema[word] for one in self.alternatives(inner, at)]
        kinds = schema.get("type")
        if isinstance(kinds, list):
            found = [{**schema, "type": kind} for kind in kinds]
            found = [{"type": "null"} if one["type"] == "null" else one for one in found]
            if None in schema.get("enum", []):
                found = [{**one, "enum": [word for word in one["enum"] if word is not None]} if "enum" in one else one for one in found]
        else:
            found = [schema]
        return [one for one in found if self.takes_null or one.get("type") != "null"]

    def key(self, schema, at):
        """Tells alternatives apart."""
        words = schema.get("enum", [schema["const"]] if "const" in schema else None)
        if words is not None:
            return "one of " + json.dumps(sorted(words))
        kind = schema.get("type", "anything")
        if kind in ("integer", "number"):
            return kind
        if kind == "object" and "properties" in schema:
            return "object of " + ",".join(sorted(schema["properties"]))
        if kind == "array":
            return "array of " + " or ".join(sorted(self.key(one, at) for one in self.alternatives(schema.get("items", {}), at)))
        return f"{kind} {schema['format']}" if "format" in schema else kind

    def same(self, here, one, other):
        if other.get("exclusiveMinimum") == 0 and other.get("type") == "integer":
            other = {**other, "exclusiveMinimum": None, "minimum": 1}
        for bound in self.bounds:
            if one.get(bound) != other.get(bound):
                yield f"{here}: {bound} {one.get(bound)}, Airflow's {other.get(bound)}"
        if "items" in one and "items" in other:
            yield from self.compare(f"{here}[]", one["items"], other["items"])
        mine, its = one.get("properties", {}), other.get("properties", {})
        yield from self.required(here, set(one.get("required", [])), set(other.get("required", [])))
        extra = [schema.get("additionalProperties", True) for schema in (one, other)]
        if all(isinstance(schema, dict) for schema in extra):
            yield from self.compare(f"{here}{{}}", *extra)
        elif (extra[0] is False) != (extra[1] is False):
            yield f"{here}: other fields {extra[0]}, Airflow's {extra[1]}"
        for name in sorted(set(mine) & set(its)):
            yield from self.compare(f"{here}.{name}", mine[name], its[name])


class Taken(Schemas):
    def default(self, schema):
        return schema.get("default")

    def required(self, here, mine, its):
        if mine != its:
            yield f"{here}: required {sorted(mine - its)}, Airflow's {sorted(its - mine)}"


class Asked(Taken):
    takes_null = False


class Given(Schemas):
    bounds = ()

    def fits(self, mine, its):
        """What is promised may be less than all that Airflow may answer."""
        return its == ["anything"] or set(mine) <= set(its)

    def required(self, here, mine, its):
        if its - mine:
            yield f"{here}: is not promised: {sorted(its - mine)}"


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))

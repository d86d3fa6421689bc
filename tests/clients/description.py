"""Compares the server's OpenAPI description with Apache Airflow's: operation by operation, schema by schema.

    python description.py URL USERNAME PASSWORD WHEEL [older]

Airflow's description is the OpenAPI file in the wheel of apache-airflow-core. Answers may guarantee more fields than
Airflow's; requests must be the same. With `older`, the wheel is of an earlier version: the server must accept and answer
no less. Also checks that generators of clients can read the description. The exit code is
1 if there is a difference that is not in DIFFERENCES."""

import json
import sys

import fixtures
import generators
import operations

# Known differences, with their reasons.
IDS = "an id is a string, which Airflow's description omits"
ALL = "values other than ~ are refused, which Leoflow's schema does not express"
REFUSED = "validation errors are a list, which is also what Airflow answers"
DIFFERENCES = {
    "delete_dag: 422: is HTTPValidationError, Airflow's HTTPExceptionResponse": REFUSED,
    "delete_dag: statuses 204, Airflow's 200": "Airflow answers 204 but describes another status",
    "enqueue_connection_test: 422: is HTTPValidationError, Airflow's HTTPExceptionResponse": REFUSED,
    "get_dag: 422: is HTTPValidationError, Airflow's HTTPExceptionResponse": REFUSED,
    "get_list_dag_runs_batch: parameter dag_id: is string, Airflow's one of [\"~\"]": ALL,
    "get_task: parameter task_id: is string, Airflow's anything": IDS,
    "get_task_instances_batch: parameter dag_id: is string, Airflow's one of [\"~\"]": ALL,
    "get_task_instances_batch: parameter dag_run_id: is string, Airflow's one of [\"~\"]": ALL,
    "list_dag_warnings: parameter warning_type: is one of [\"asset conflict\", \"duplicate dag id\", \"non-existent pool\", "
    "\"runtime varying value\", \"task group cycle\"], Airflow's one of [\"asset conflict\", \"duplicate dag id\", "
    "\"non-existent pool\", \"runtime varying value\", \"task group cycle\"] or string": "other types match nothing",
    "materialize_asset: body: is null or object of bundle_version,conf,dag_run_id,data_interval_end,data_interval_start,"
    "drain_dag,logical_date,note,partition_key,run_after, Airflow's object of bundle_version,conf,dag_run_id,"
    "data_interval_end,data_interval_start,drain_dag,logical_date,note,partition_key,run_after": "Airflow 3.3 needs no body",
    "patch_dag: body: DAGPatchBody.is_paused: is boolean, Airflow's boolean or null": "null is accepted",
    "patch_dags: body: DAGPatchBody.is_paused: is boolean, Airflow's boolean or null": "null is accepted",
    "materialize_asset: body: required": "Airflow 3.3 needs no body",
    "post_clear_task_instances: body: ClearTaskInstancesBody.keep_task_state: default None, Airflow's False":
        "what tasks keep in their store is deleted only on demand, as before Airflow 3.4",
    "list_backfills: parameter dag_id: required": "without a DAG, all backfills are listed",
    "logout: authentication": "it redirects to the login with or without a token",
    "schema JsonValue: is missing": "it is Airflow's name of an unrestricted value",
    "trigger_dag_run: parameter dag_id: is string, Airflow's anything": IDS,
}
DIFFERENCES.update({
    f"{name}: parameter region_index: minimum -1, Airflow's None": "no region has a smaller index"
    for name in ("get_hitl_detail", "get_hitl_detail_try_detail", "patch_task_group_instances",
                 "patch_task_group_instances_dry_run", "patch_task_instance", "patch_task_instance_by_map_index",
                 "patch_task_instance_dry_run", "patch_task_instance_dry_run_by_map_index", "update_hitl_detail")
})
METHODS = ("get", "post", "put", "patch", "delete")
BOUNDS = ("minimum", "maximum", "exclusiveMinimum", "minLength", "maxLength", "pattern", "minItems")


def main(url, username, password, wheel, mode="same"):
    Schemas.no_less = mode == "older"
    ours = fixtures.Server(url, username, password).expect_success("GET", "/openapi.json")
    theirs = next(operations.described(wheel))
    wrong = []
    both = list(pairs(ours, theirs, wrong))
    for name, our_operation, their_operation in both:
        wrong += compare(name, our_operation, their_operation, ours, theirs)
    names = ours["components"]["schemas"], theirs["components"]["schemas"]
    wrong += [f"schema {name}: is missing" for name in names[1] if name not in names[0]]
    wrong += [f"schema {name}: is not Airflow's" for name in names[0] if name not in names[1] and not Schemas.no_less]
    unused = [difference for difference in DIFFERENCES if difference not in wrong]
    wrong = [difference for difference in wrong if difference not in DIFFERENCES]
    if not Schemas.no_less:
        wrong += [f"is listed but does not occur: {difference}" for difference in unused]
    wrong += generators.problems(ours, url, fixtures.Server(url, username, password).token)
    return fixtures.report("descriptions", sorted(wrong), len(both))


def pairs(ours, theirs, wrong):
    """Yields the operations of both descriptions with the same operationId. Adds an error for a missing operation, an
    additional one, and one with another method or path."""
    our_operations, their_operations = [dict(operations_of(document)) for document in (ours, theirs)]
    wrong += [f"{name}: is missing" for name in their_operations if name not in our_operations]
    wrong += [f"{name}: is not Airflow's" for name in our_operations if name not in their_operations and not Schemas.no_less]
    for name, (path, their_operation) in their_operations.items():
        if name not in our_operations:
            continue
        our_path, our_operation = our_operations[name]
        if our_path != path:
            wrong.append(f"{name}: is at {our_path}, and Airflow's at {path}")
        yield name, our_operation, their_operation


def operations_of(document):
    """Yields pairs of operationId and (method and path, operation); each operation gets the parameters of its path."""
    for path, item in document["paths"].items():
        for method in METHODS:
            if method in item:
                operation = item[method]
                shared = item.get("parameters", [])
                operation["parameters"] = operation.get("parameters", []) + shared
                yield operation["operationId"], (f"{method.upper()} {path}", operation)


def compare(name, our_operation, their_operation, ours, theirs):
    if our_operation["tags"] != their_operation["tags"]:
        yield f"{name}: tags {our_operation['tags']}, Airflow's {their_operation['tags']}"
    if bool(our_operation.get("security")) != bool(their_operation.get("security")):
        yield f"{name}: authentication"
    our, their = set(our_operation["responses"]), set(their_operation["responses"])
    if their - our if Schemas.no_less else our != their:
        yield f"{name}: statuses {' '.join(sorted(our - their))}, Airflow's {' '.join(sorted(their - our))}"
    yield from parameters(name, our_operation, their_operation, ours, theirs)
    request_bodies = our_operation.get("requestBody"), their_operation.get("requestBody")
    yield from bodies(f"{name}: body", *request_bodies, RequestSchemas(ours, theirs))
    for status in sorted(set(our_operation["responses"]) & set(their_operation["responses"])):
        answers = our_operation["responses"][status], their_operation["responses"][status]
        yield from bodies(f"{name}: {status}", *answers, AnswerSchemas(ours, theirs))


def parameters(name, our_operation, their_operation, ours, theirs):
    # In OpenAPI 3.1, the header Accept is not a parameter.
    our, their = [
        {(parameter["in"], parameter["name"]): parameter for parameter in operation["parameters"] if parameter["name"] != "accept"}
        for operation in (our_operation, their_operation)
    ]
    for key in sorted(set(their) - set(our) if Schemas.no_less else set(our) ^ set(their)):
        yield f"{name}: parameter {key[1]} in {key[0]}: {'is missing' if key in their else 'is not Airflow’s'}"
    for key in sorted(set(our) & set(their)):
        where = f"{name}: parameter {key[1]}"
        if our[key].get("required", False) != their[key].get("required", False):
            yield f"{where}: required"
        # A query parameter cannot be null.
        yield from QuerySchemas(ours, theirs).compare(where, our[key]["schema"], their[key]["schema"])


def bodies(where, our_body, their_body, schemas):
    if (our_body is None) != (their_body is None):
        yield f"{where}: {'is missing' if our_body is None else 'is not Airflow’s'}"
        return
    if our_body is None:
        return
    if our_body.get("required", False) != their_body.get("required", False):
        yield f"{where}: required"
    our, their = our_body.get("content", {}), their_body.get("content", {})
    if set(our) != set(their):
        yield f"{where}: media types {sorted(our)}, Airflow's {sorted(their)}"
    for kind in sorted(set(our) & set(their)):
        yield from schemas.compare(where, our[kind].get("schema", {}), their[kind].get("schema", {}))


class Schemas:
    """Compares schemas of the two descriptions; resolves references in the schema's own description."""

    bounds = BOUNDS
    takes_null = True
    is_answer = False
    # True to compare with an earlier version, which has less.
    no_less = False

    def __init__(self, ours, theirs):
        self.documents = (ours, theirs)
        self.seen = set()

    def compare(self, where, our_schema, their_schema):
        our_schema, their_schema = [{} if schema is True else schema for schema in (our_schema, their_schema)]
        names = [schema.get("$ref", "").rsplit("/", 1)[-1] for schema in (our_schema, their_schema)]
        if all(names):
            if names[0] != names[1]:
                yield f"{where}: is {names[0]}, Airflow's {names[1]}"
                return
            if names[0] in self.seen:
                return
            self.seen.add(names[0])
            where = f"{where}: {names[1]}"
        alternatives = [self.alternatives(schema, index) for index, schema in enumerate((our_schema, their_schema))]
        defaults = self.default(our_schema), self.default(their_schema)
        if defaults[0] != defaults[1] and defaults[1] is not None and not self.no_less:
            yield f"{where}: default {self.default(our_schema)}, Airflow's {self.default(their_schema)}"
        keys = [[self.key(schema, index) for schema in found] for index, found in enumerate(alternatives)]
        if self.no_less and "anything" in keys[0] + keys[1]:
            return
        if not (self.fits_older if self.no_less else self.fits)(sorted(keys[0]), sorted(keys[1])):
            yield f"{where}: is {' or '.join(sorted(keys[0]))}, Airflow's {' or '.join(sorted(keys[1]))}"
            return
        if keys[1] == ["anything"]:
            return
        if self.no_less:
            # What an earlier client sends fits one of our alternatives, and what we answer fits one of its own.
            fixed, free = (0, 1) if self.is_answer else (1, 0)
            for schema, key in zip(alternatives[fixed], keys[fixed], strict=True):
                candidates = [other for other, other_key in zip(alternatives[free], keys[free], strict=True) if other_key == key]
                pairs = [(schema, other) if self.is_answer else (other, schema) for other in candidates]
                yield from min((list(self.same(where, *pair)) for pair in pairs), key=len)
            return
        for schema, key in zip(alternatives[0], keys[0], strict=True):
            yield from self.same(where, schema, alternatives[1][keys[1].index(key)])

    def default(self, _):
        return None

    def fits(self, our, their):
        return our == their

    def fits_older(self, our, their):
        return set(their) <= set(our)

    def alternatives(self, schema, index):
        """Returns the alternatives of a schema, each with a single type; references are resolved."""
        if schema is True:
            return [{}]
        if "$ref" in schema:
            return self.alternatives(self.documents[index]["components"]["schemas"][schema["$ref"].rsplit("/", 1)[-1]], index)
        for word in ("anyOf", "oneOf"):
            if word in schema:
                return [alternative for option in schema[word] for alternative in self.alternatives(option, index)]
        kinds = schema.get("type")
        if isinstance(kinds, list):
            found = [{**schema, "type": kind} for kind in kinds]
            found = [{"type": "null"} if alternative["type"] == "null" else alternative for alternative in found]
            if None in schema.get("enum", []):
                found = [
                    {**alternative, "enum": [word for word in alternative["enum"] if word is not None]}
                    if "enum" in alternative else alternative
                    for alternative in found
                ]
        else:
            found = [schema]
        return [alternative for alternative in found if self.takes_null or alternative.get("type") != "null"]

    def key(self, schema, index):
        """Returns a text that identifies the type of an alternative."""
        words = schema.get("enum", [schema["const"]] if "const" in schema else None)
        if words is not None:
            if self.no_less:
                return "string"
            return "one of " + json.dumps(sorted(words))
        kind = schema.get("type", "anything")
        if kind in ("integer", "number"):
            return kind
        if kind == "object" and "properties" in schema and not self.no_less:
            return "object of " + ",".join(sorted(schema["properties"]))
        if kind == "array" and not self.no_less:
            alternatives = self.alternatives(schema.get("items", {}), index)
            return "array of " + " or ".join(sorted(self.key(alternative, index) for alternative in alternatives))
        return f"{kind} {schema['format']}" if "format" in schema else kind

    def same(self, where, our_schema, their_schema):
        # A schema may contain itself.
        pair = id(our_schema), id(their_schema)
        if pair in self.seen:
            return
        self.seen.add(pair)
        if their_schema.get("exclusiveMinimum") == 0 and their_schema.get("type") == "integer":
            their_schema = {**their_schema, "exclusiveMinimum": None, "minimum": 1}
        for bound in () if self.no_less else self.bounds:
            if our_schema.get(bound) != their_schema.get(bound):
                yield f"{where}: {bound} {our_schema.get(bound)}, Airflow's {their_schema.get(bound)}"
        if "items" in our_schema and "items" in their_schema:
            yield from self.compare(f"{where}[]", our_schema["items"], their_schema["items"])
        our, their = our_schema.get("properties", {}), their_schema.get("properties", {})
        if self.no_less:
            yield from (f"{where}.{name}: is missing" for name in sorted(set(their) - set(our)) if our)
        yield from self.required(where, set(our_schema.get("required", [])), set(their_schema.get("required", [])))
        extra = [schema.get("additionalProperties", True) for schema in (our_schema, their_schema)]
        if all(isinstance(schema, dict) for schema in extra):
            yield from self.compare(f"{where}{{}}", *extra)
        elif (extra[0] is False) != (extra[1] is False):
            yield f"{where}: other fields {extra[0]}, Airflow's {extra[1]}"
        for name in sorted(set(our) & set(their)):
            yield from self.compare(f"{where}.{name}", our[name], their[name])


class RequestSchemas(Schemas):
    def default(self, schema):
        return schema.get("default")

    def required(self, where, our, their):
        if our - their if self.no_less else our != their:
            yield f"{where}: required {sorted(our - their)}, Airflow's {sorted(their - our)}"


class QuerySchemas(RequestSchemas):
    takes_null = False


class AnswerSchemas(Schemas):
    bounds = ()
    is_answer = True

    def fits_older(self, our, their):
        return set(our) <= set(their)

    def fits(self, our, their):
        """True if our alternatives are a subset of Airflow's."""
        return their == ["anything"] or set(our) <= set(their)

    def required(self, where, our, their):
        if their - our:
            yield f"{where}: does not guarantee {sorted(their - our)}"


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))

"""What a running task asks of the server, beside Variables, Connections and XComs."""

from collections.abc import Mapping, Sequence

from ._assets import Asset, AssetAlias
from ._client import ServerError, quote
from ._errors import AirflowException, AirflowRuntimeError, DagNotFound, DagRunAlreadyExists
from ._time import parse_time


class Server:
    def __init__(self):
        self._previous = None

    def ask(self, method, place, body=None):
        from ._stores import client

        return client().request(method, f"/task/{place}", body)

    def dag(self, dag_id):
        try:
            return self.ask("GET", f"dags/{quote(dag_id)}")
        except ServerError as error:
            raise DagNotFound(f"Dag {dag_id}: {error}") from None

    def trigger(self, dag_id, run_id, conf, logical_date, run_after, note, reset):
        stamp = lambda value: None if value is None else value.isoformat()
        body = {"dag_id": dag_id, "run_id": run_id, "conf": conf, "logical_date": stamp(logical_date),
                "run_after": stamp(run_after), "note": note, "reset": bool(reset)}
        try:
            self.ask("POST", "runs/trigger", body)
        except ServerError as error:
            if error.status == 409:
                raise DagRunAlreadyExists(str(error)) from None
            kind = DagNotFound if error.status == 404 else AirflowException
            raise kind(f"Dag {dag_id} cannot be triggered: {error}") from None

    def run_state(self, dag_id, run_id):
        try:
            return self.ask("POST", "runs/state", {"dag_id": dag_id, "run_id": run_id})["state"]
        except ServerError as error:
            raise AirflowRuntimeError(f"the run {run_id} of {dag_id}: {error}") from None

    def count(self, dag_id, task_ids, group_id, dates, states):
        body = {"dag_id": dag_id, "task_ids": task_ids, "group_id": group_id, "dates": dates, "states": states}
        return self.ask("POST", "runs/count", body)["count"]

    def length(self, words):
        """How many elements there are, in this run."""
        return words if isinstance(words, int) else self.ask("POST", "length", {"length": words})["length"] or 0

    def previous(self):
        """The last run before this one that succeeded; an empty dict without one."""
        if self._previous is None:
            self._previous = self.ask("GET", "previous") or {}
        return self._previous

    def is_latest_run(self):
        return self.ask("GET", "latest")["is_latest"]

    def asset(self, name):
        """The asset of that name, as some DAG has declared it."""
        try:
            told = self.ask("POST", "assets/named", {"name": name})
        except ServerError as error:
            if error.status == 404:
                raise AirflowRuntimeError(f"there is no asset named {name!r}: no DAG declares one") from None
            raise
        return Asset(told["name"], told["uri"], group=told["group"], extra=told["extra"])

    def triggering_events(self):
        found = {}
        for one in self.ask("GET", "assets/triggering"):
            event = AssetEvent(one)
            for key in (Asset(one["name"], one["uri"]), *event.source_aliases):
                found.setdefault(key, []).append(event)
        return ByAsset(found)

    def inlet_events(self, inlets):
        return InletEvents(self, inlets)

    def events_of(self, inlet):
        return [AssetEvent(one) for one in self.ask("POST", "assets/events", {"of": inlet.described()})]


class AssetEvent:
    def __init__(self, told):
        self.asset = Asset(told["name"], told["uri"], group=told.get("group"))
        self.uri = told["uri"]
        self.extra = told["extra"]
        self.timestamp = parse_time(told["timestamp"])
        self.source_dag_id = told.get("source_dag_id")
        self.source_task_id = told.get("source_task_id")
        self.source_run_id = told.get("source_run_id")
        self.source_map_index = told.get("source_map_index")
        self.source_aliases = [AssetAlias(one) for one in told.get("aliases", ())]

    def __repr__(self):
        return f"AssetEvent({self.asset.name!r}, extra={self.extra!r})"


class ByAsset(Mapping):
    """Events by asset, alias, or reference."""

    def __init__(self, found):
        self.found = found

    def __getitem__(self, key):
        return self.found[key]

    def __iter__(self):
        return iter(self.found)

    def __len__(self):
        return len(self.found)


class InletEvents(Mapping):
    """`inlet_events[asset]`."""

    def __init__(self, server, inlets):
        self.server = server
        self.inlets = inlets

    def __getitem__(self, key):
        if isinstance(key, int):
            key = self.inlets[key]
        if not any(means(inlet, key) for inlet in self.inlets):
            raise KeyError(key)
        return Events(lambda: self.server.events_of(key))

    def __iter__(self):
        return iter(self.inlets)

    def __len__(self):
        return len(self.inlets)


def means(inlet, key):
    """Whether an inlet is what is asked for: a reference by name or by URI and the asset itself are one thing."""
    if inlet == key:
        return True
    if isinstance(inlet, AssetAlias) or isinstance(key, AssetAlias):
        return False
    if isinstance(inlet, Asset) and isinstance(key, Asset):
        return False
    both = [(getattr(inlet, part), getattr(key, part)) for part in ("name", "uri")
            if hasattr(inlet, part) and hasattr(key, part)]
    return bool(both) and all(left == right for left, right in both)


class Events(Sequence):
    """Of one asset, oldest first, and narrowed down by what was asked."""

    def __init__(self, load):
        self._load = load
        self._found = None

    def found(self):
        if self._found is None:
            self._found = self._load()
        return self._found

    def after(self, at):
        return Events(lambda: [one for one in self.found() if one.timestamp >= at])

    def before(self, at):
        return Events(lambda: [one for one in self.found() if one.timestamp <= at])

    def ascending(self, yes=True):
        return Events(lambda: sorted(self.found(), key=lambda one: one.timestamp, reverse=not yes))

    def limit(self, most):
        return Events(lambda: self.found()[:most])

    def __getitem__(self, at):
        return self.found()[at]

    def __len__(self):
        return len(self.found())


class Offline(Server):
    """Where there is no server to ask: `leoflow dags test`."""

    def __init__(self, memory):
        super().__init__()
        self.memory = memory

    def ask(self, method, place, body=None):
        raise AirflowRuntimeError(f"a run in the foreground cannot ask the server ({place})")

    def previous(self):
        return {}

    def is_latest_run(self):
        return True

    def asset(self, name):
        return Asset(name)

    def triggering_events(self):
        return ByAsset({})

    def events_of(self, inlet):
        return []

    def length(self, words):
        return self.memory.length(words)

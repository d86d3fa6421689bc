"""The events of assets that a task sees."""

from collections.abc import Mapping, Sequence

from leoflow.authoring.assets import Asset, AssetAlias
from leoflow.common.dates import parse_time


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

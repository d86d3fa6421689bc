"""Asset events that a task reads."""

from collections.abc import Mapping, Sequence

from leoflow.authoring.assets.definitions import Asset, AssetAlias
from leoflow.common.dates import parse_time


class AssetEvent:
    def __init__(self, fields):
        self.asset = Asset(fields["name"], fields["uri"], group=fields.get("group"))
        self.uri = fields["uri"]
        self.extra = fields["extra"]
        self.timestamp = parse_time(fields["timestamp"])
        self.source_dag_id = fields.get("source_dag_id")
        self.source_task_id = fields.get("source_task_id")
        self.source_run_id = fields.get("source_run_id")
        self.source_map_index = fields.get("source_map_index")
        self.source_aliases = [AssetAlias(alias) for alias in fields.get("aliases", ())]

    def __repr__(self):
        return f"AssetEvent({self.asset.name!r}, extra={self.extra!r})"


class ByAsset(Mapping):
    """Lists of events by asset or alias."""

    def __init__(self, events):
        self._events = events

    def __getitem__(self, key):
        return self._events[key]

    def __iter__(self):
        return iter(self._events)

    def __len__(self):
        return len(self._events)


class InletEvents(Mapping):
    """`inlet_events` of the context: the events of each inlet."""

    def __init__(self, server, inlets):
        self.server = server
        self.inlets = inlets

    def __getitem__(self, key):
        if isinstance(key, int):
            key = self.inlets[key]
        if not any(matches(inlet, key) for inlet in self.inlets):
            raise KeyError(key)
        return Events(lambda: self.server.events_of(key))

    def __iter__(self):
        return iter(self.inlets)

    def __len__(self):
        return len(self.inlets)


def matches(inlet, key):
    """True if an inlet matches a key: an asset matches references to it by name or URI."""
    if inlet == key:
        return True
    if isinstance(inlet, AssetAlias) or isinstance(key, AssetAlias):
        return False
    if isinstance(inlet, Asset) and isinstance(key, Asset):
        return False
    common = [(getattr(inlet, part), getattr(key, part)) for part in ("name", "uri")
              if hasattr(inlet, part) and hasattr(key, part)]
    return bool(common) and all(left == right for left, right in common)


class Events(Sequence):
    """Events of one asset, oldest first, loaded on first access. As in Airflow, the methods return filtered or
    reordered events."""

    def __init__(self, load):
        self._load = load
        self._loaded = None

    def loaded(self):
        if self._loaded is None:
            self._loaded = self._load()
        return self._loaded

    def after(self, time):
        return Events(lambda: [event for event in self.loaded() if event.timestamp >= time])

    def before(self, time):
        return Events(lambda: [event for event in self.loaded() if event.timestamp <= time])

    def ascending(self, yes=True):
        return Events(lambda: sorted(self.loaded(), key=lambda event: event.timestamp, reverse=not yes))

    def limit(self, count):
        return Events(lambda: self.loaded()[:count])

    def __getitem__(self, index):
        return self.loaded()[index]

    def __len__(self):
        return len(self.loaded())

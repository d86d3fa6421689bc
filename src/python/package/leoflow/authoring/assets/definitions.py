"""Assets: data that tasks produce and that schedules of other DAGs wait for.

<https://airflow.apache.org/docs/apache-airflow/stable/authoring-and-scheduling/assets.html>
"""

from __future__ import annotations

import os
import warnings

from leoflow.common.exceptions import Unsupported
from leoflow.common.values import plain

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

# Airflow's limit for names and URIs of assets, characters.
LONGEST = 1500


class BaseAsset:
    """An asset, an alias, a reference, or a condition over them."""

    def __or__(self, other):
        return combine(AssetAny, self, other)

    def __and__(self, other):
        return combine(AssetAll, self, other)

    def to_structure(self):
        """Returns the JSON-compatible form that the scheduler stores."""
        raise NotImplementedError

    def __bool__(self):
        return True


def combine(kind, left, right):
    if not isinstance(left, BaseAsset) or not isinstance(right, BaseAsset):
        raise TypeError("expect asset expressions in condition")
    return kind(*left.objects, right) if type(left) is kind else kind(left, right)


def check_name(kind, value):
    if not isinstance(value, str):
        raise TypeError(f"the {kind} of an asset must be a string, not {type(value).__name__}")
    if len(value) > LONGEST:
        raise ValueError(f"the {kind} of an asset has at most {LONGEST} characters")
    if not value.strip():
        raise ValueError(f"{kind} cannot be empty")
    return value


def normal_uri(uri):
    """Normalizes a URI as Airflow does: removes a login with a password, the fragment, and slashes at the end of the
    path (an empty path becomes `/`); sorts the query and removes its empty values."""
    import urllib.parse

    check_name("uri", uri)
    parts = urllib.parse.urlsplit(uri)
    scheme = parts.scheme.lower()
    if not scheme or scheme.startswith("x-"):
        return uri
    if scheme == "airflow":
        raise ValueError("Asset scheme 'airflow' is reserved")
    netloc = parts.netloc
    if parts.password:
        warnings.warn("An Asset URI should not contain a password; the password is removed", stacklevel=4)
        netloc = netloc.rpartition("@")[2]
    query = urllib.parse.urlencode(sorted(urllib.parse.parse_qsl(parts.query)))
    return urllib.parse.urlunsplit((scheme, netloc, parts.path.rstrip("/") or "/", query, ""))


class Asset(BaseAsset):
    asset_type = "asset"

    def __init__(self, name=None, uri=None, *, group=None, extra=None, watchers=None, access_control=None):
        if isinstance(name, os.PathLike):
            name, uri = None, os.fspath(name)
        if isinstance(uri, os.PathLike):
            uri = os.fspath(uri)
        if name is None and uri is None:
            raise TypeError("Asset() requires either 'name' or 'uri'")
        if name is None:
            name = uri
        elif uri is None:
            uri = name
        if access_control is not None:
            raise Unsupported(f"access_control={access_control!r} of an asset (one user has all rights)")
        if name in ("self", "context"):
            raise ValueError(f"prohibited name for asset: {name}")
        self.name = check_name("name", name)
        self.uri = normal_uri(uri)
        self.group = group or self.asset_type
        self.extra = dict(extra or {})
        self.watchers = list(watchers or [])
        for watcher in self.watchers:
            if not isinstance(watcher, AssetWatcher):
                raise TypeError(f"watchers of an asset must be AssetWatcher objects, not {watcher!r}")

    @staticmethod
    def ref(*, name=None, uri=None):
        if (name is None) == (uri is None):
            raise TypeError("Asset.ref() takes exactly one of 'name' and 'uri'")
        return AssetNameRef(name) if name is not None else AssetUriRef(uri)

    @property
    def normalized_uri(self):
        return self.uri

    def to_structure(self):
        fields = {"name": self.name, "uri": self.uri, "group": self.group, "extra": self.extra}
        if self.watchers:
            fields["watchers"] = [watcher.to_structure() for watcher in self.watchers]
        return {"asset": fields}

    def key(self):
        return ("asset", self.name, self.uri)

    def __eq__(self, other):
        return isinstance(other, Asset) and self.key() == other.key()

    def __hash__(self):
        return hash(self.key())

    def __fspath__(self):
        return self.uri

    def __repr__(self):
        return f"Asset(name={self.name!r}, uri={self.uri!r})"


class Dataset(Asset):
    asset_type = "dataset"


class Model(Asset):
    asset_type = "model"


class Reference(BaseAsset):
    """Refers to an asset, or to an alias, by one value. `kind` is the key of the value in the stored form."""

    def __init__(self, value):
        self.value = check_name(self.kind, value)

    def to_structure(self):
        return {self.kind: self.value}

    def key(self):
        return (self.kind, self.value)

    def __eq__(self, other):
        return type(other) is type(self) and self.value == other.value

    def __hash__(self):
        return hash(self.key())

    def __repr__(self):
        return f"{type(self).__name__}({self.value!r})"


class AssetNameRef(Reference):
    kind = "name"

    @property
    def name(self):
        return self.value


class AssetUriRef(Reference):
    kind = "uri"

    @property
    def uri(self):
        return self.value


class AssetAlias(Reference):
    kind = "alias"

    def __init__(self, name, *, group="asset"):
        super().__init__(name)
        self.group = group

    @property
    def name(self):
        return self.value

    def to_structure(self):
        return {"alias": self.value, "group": self.group}


class Condition(BaseAsset):
    def __init__(self, *objects):
        if not all(isinstance(item, BaseAsset) for item in objects):
            raise TypeError("expect asset expressions in condition")
        self.objects = list(objects)

    def to_structure(self):
        return {self.kind: [item.to_structure() for item in self.objects]}

    def __repr__(self):
        return f"{type(self).__name__}({', '.join(map(repr, self.objects))})"


class AssetAny(Condition):
    kind = "any"


class AssetAll(Condition):
    kind = "all"


def condition_of(schedule: Any) -> BaseAsset:
    if isinstance(schedule, BaseAsset):
        return schedule
    return AssetAll(*schedule)


class AssetWatcher:
    """A trigger that runs while the DAG is active; each of its events becomes an event of the asset."""

    def __init__(self, name, trigger):
        # Imported here, because it imports asyncio and few assets have a watcher.
        from leoflow.authoring.triggers import BaseEventTrigger

        if not isinstance(trigger, BaseEventTrigger):
            raise ValueError("Asset watcher trigger must inherit BaseEventTrigger")
        self.name = name
        self.trigger = trigger

    def to_structure(self):
        classpath, kwargs = self.trigger.serialize()
        return {"name": self.name, "classpath": classpath, "kwargs": plain(kwargs)}


class Metadata:
    """Extra information about a produced asset, yielded by a task."""

    def __init__(self, asset, extra=None, alias=None):
        self.asset = asset
        self.extra = dict(extra or {})
        self.alias = alias

"""Asset events that a task produces."""

import json

from leoflow.authoring.assets.definitions import Asset, AssetAlias, AssetNameRef, AssetUriRef, BaseAsset
from leoflow.common.values import NotStorable, plain


class OutletEvent:
    """The event of one outlet: `extra` for an asset, the assets added with `add` for an alias."""

    def __init__(self, key):
        self.key = key
        self.extra = {}
        self.aliased = []

    def add(self, asset, extra=None):
        if isinstance(self.key, AssetAlias):
            self.aliased.append((asset, dict(extra or {})))


class OutletEvents(dict):
    """`outlet_events` of the context: creates the OutletEvent of an outlet on first access."""

    def __init__(self, outlets):
        super().__init__()
        self.outlets = outlets

    def __missing__(self, key):
        if isinstance(key, int):
            key = self.outlets[key]
            return self[key]
        if not isinstance(key, BaseAsset):
            raise TypeError(f"Key should be either an asset or an asset alias, not {type(key)}")
        self[key] = event = OutletEvent(key)
        return event

    def for_asset(self, *, name=None, uri=None):
        for outlet in self.outlets:
            if isinstance(outlet, Asset) and (name in (None, outlet.name)) and (uri in (None, outlet.uri)):
                return self[outlet]
        return self[Asset(name=name, uri=uri)]

    def for_asset_alias(self, *, name):
        return self[AssetAlias(name)]

    def add_metadata(self, metadata):
        """Adds the metadata that a task yielded."""
        event = self[metadata.asset]
        event.extra.update(metadata.extra)
        if metadata.alias is not None:
            self[metadata.alias].add(metadata.asset, metadata.extra)

    def to_events(self):
        """Returns the asset events of all outlets, in the form that the scheduler reads."""
        events = []
        for outlet in self.outlets:
            if isinstance(outlet, AssetAlias):
                for asset, extra in self[outlet].aliased:
                    events.append({**asset.to_structure(), "alias": outlet.value, "extra": storable(asset, extra)})
            elif isinstance(outlet, (Asset, AssetNameRef, AssetUriRef)):
                events.append({**outlet.to_structure(), "extra": storable(outlet, self[outlet].extra)})
        return events


def storable(asset, extra):
    """Returns `extra` as plain JSON. Raises NotStorable for a value that JSON cannot represent."""
    try:
        plain(extra)
        return json.loads(json.dumps(extra, allow_nan=False))
    except (TypeError, ValueError) as error:
        raise NotStorable(f"cannot store the extra of the event of {asset!r}: {error}") from None

"""Key-value stores for the state of a task across its tries, and of its assets.

<https://airflow.apache.org/docs/apache-airflow/stable/core-concepts/index.html>
"""

from __future__ import annotations

import json
from datetime import datetime, timedelta, timezone

from leoflow.authoring.assets.definitions import Asset, AssetAlias, AssetNameRef, AssetUriRef
from leoflow.common.client import ServerError
from leoflow.common.exceptions import AirflowRuntimeError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from leoflow.running.task_api import TaskApi

NEVER_EXPIRE = timedelta.max
# Airflow's default retention.
RETENTION = timedelta(days=30)


class Store:
    """The store of the task, or of an asset."""

    def __init__(self, server: TaskApi, asset: dict[str, str] | None = None):
        self._server = server
        self._scope = {} if asset is None else {"asset": asset}

    def _ask(self, operation, **body):
        try:
            return self._server.ask("POST", f"state/{operation}", {**body, **self._scope})
        except ServerError as error:
            raise AirflowRuntimeError(f"state store request failed: {error}") from None

    def get(self, key: str, default: Any = None) -> Any:
        text = self._ask("get", key=key)["value_json"]
        return default if text is None else json.loads(text)

    def _set(self, key, value, **options):
        if value is None:
            raise ValueError("Cannot set value as None")
        self._ask("set", key=key, value_json=json.dumps(value, allow_nan=False), **options)

    def delete(self, key: str) -> None:
        self._ask("delete", key=key)

    def clear(self) -> None:
        self._ask("delete")


def threaded(name):
    """Returns an async method that calls the method `name` in a thread, so that it does not block the event loop."""

    async def call(self, *args, **kwargs):
        import asyncio

        return await asyncio.to_thread(getattr(self, name), *args, **kwargs)

    return call


class TaskStateStore(Store):
    """`task_state_store` of the context."""

    def set(self, key: str, value: Any, *, retention: timedelta | None = None) -> None:
        """Stores a value, which expires after `retention` (default: RETENTION)."""
        if retention == NEVER_EXPIRE:
            self._set(key, value)
        else:
            expires_at = datetime.now(timezone.utc) + (RETENTION if retention is None else retention)
            self._set(key, value, expires_at=expires_at.isoformat())


class Awaitable:
    """Async variants of the methods, under Airflow's names."""

    aget, aset, adelete, aclear = threaded("get"), threaded("set"), threaded("delete"), threaded("clear")


class AssetStateStore(Awaitable, Store):
    def set(self, key: str, value: Any) -> None:
        self._set(key, value)


class AssetStateStores(Awaitable):
    """`asset_state_store` of the context: indexed by asset, or used directly if the task has exactly one asset."""

    def __init__(self, inlets: list, outlets: list, server: TaskApi):
        # An inlet alias represents the assets of its earlier events; an outlet alias has assets only after the task.
        aliases = [inlet.name for inlet in inlets if isinstance(inlet, AssetAlias)]
        named = [Asset(row["name"], row["uri"]) for alias in aliases for row in server.ask("POST", "assets/of-alias", {"alias": alias})]
        named += [asset for asset in [*inlets, *outlets] if isinstance(asset, (Asset, AssetNameRef, AssetUriRef))]
        self._stores = {asset_key(asset): AssetStateStore(server, dict([asset_key(asset)])) for asset in named}

    def __getitem__(self, asset: Asset | AssetNameRef | AssetUriRef) -> AssetStateStore:
        if not isinstance(asset, (Asset, AssetNameRef, AssetUriRef)):
            raise TypeError(f"Expected Asset, AssetNameRef, or AssetUriRef; got {type(asset).__name__}")
        store = self._stores.get(asset_key(asset))
        if store is None:
            raise KeyError(f"{asset!r} is not in this task's inlets or outlets")
        return store

    def _only(self):
        if len(self._stores) != 1:
            raise ValueError(f"the task has {len(self._stores)} assets: select one with asset_state_store[ASSET]")
        return next(iter(self._stores.values()))

    def get(self, key: str, default: Any = None) -> Any:
        return self._only().get(key, default)

    def set(self, key: str, value: Any) -> None:
        self._only().set(key, value)

    def delete(self, key: str) -> None:
        self._only().delete(key)

    def clear(self) -> None:
        self._only().clear()


def asset_key(asset):
    return ("uri", asset.uri) if isinstance(asset, AssetUriRef) else ("name", asset.name)

"""What a task keeps by key: for its own later tries, and for its assets.

<https://airflow.apache.org/docs/apache-airflow/stable/core-concepts/index.html>
"""

from __future__ import annotations

import json
from datetime import datetime, timedelta, timezone

from leoflow.authoring.assets import Asset, AssetAlias, AssetNameRef, AssetUriRef
from leoflow.common.client import ServerError
from leoflow.common.exceptions import AirflowRuntimeError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from leoflow.running.task_api import TaskApi

NEVER_EXPIRE = timedelta.max
# As long as Airflow keeps it where nothing is said.
RETENTION = timedelta(days=30)


class Store:
    def __init__(self, server: TaskApi, asset: dict[str, str] | None = None):
        self._server = server
        self._of = {} if asset is None else {"asset": asset}

    def _ask(self, what, **body):
        try:
            return self._server.ask("POST", f"state/{what}", {**body, **self._of})
        except ServerError as error:
            raise AirflowRuntimeError(f"the state store: {error}") from None

    def get(self, key: str, default: Any = None) -> Any:
        found = self._ask("get", key=key)["value_json"]
        return default if found is None else json.loads(found)

    def _set(self, key, value, **more):
        if value is None:
            raise ValueError("Cannot set value as None")
        self._ask("set", key=key, value_json=json.dumps(value, allow_nan=False), **more)

    def delete(self, key: str) -> None:
        self._ask("delete", key=key)

    def clear(self) -> None:
        self._ask("delete")


def in_a_thread(name):
    """The method of that name, for code in an event loop: that goes on meanwhile."""

    async def call(self, *args, **kwargs):
        import asyncio

        return await asyncio.to_thread(getattr(self, name), *args, **kwargs)

    return call


class TaskStateStore(Store):
    """`task_state_store` of the context."""

    def set(self, key: str, value: Any, *, retention: timedelta | None = None) -> None:
        """`retention` is how long it is kept."""
        if retention == NEVER_EXPIRE:
            self._set(key, value)
        else:
            until = datetime.now(timezone.utc) + (RETENTION if retention is None else retention)
            self._set(key, value, expires_at=until.isoformat())


class Awaitable:
    aget, aset, adelete, aclear = in_a_thread("get"), in_a_thread("set"), in_a_thread("delete"), in_a_thread("clear")


class AssetStateStore(Awaitable, Store):
    def set(self, key: str, value: Any) -> None:
        self._set(key, value)


class AssetStateStores(Awaitable):
    """`asset_state_store` of the context: by asset, or with no asset named where the task has one alone."""

    def __init__(self, inlets: list, outlets: list, server: TaskApi):
        # An alias that is read stands for what it has stood for; one that is written is known only afterwards.
        aliases = [one.name for one in inlets if isinstance(one, AssetAlias)]
        named = [Asset(one["name"], one["uri"]) for alias in aliases for one in server.ask("POST", "assets/of-alias", {"alias": alias})]
        named += [one for one in [*inlets, *outlets] if isinstance(one, (Asset, AssetNameRef, AssetUriRef))]
        self._stores = {place_of(one): AssetStateStore(server, dict([place_of(one)])) for one in named}

    def __getitem__(self, asset: Asset | AssetNameRef | AssetUriRef) -> AssetStateStore:
        if not isinstance(asset, (Asset, AssetNameRef, AssetUriRef)):
            raise TypeError(f"Expected Asset, AssetNameRef, or AssetUriRef; got {type(asset).__name__}")
        found = self._stores.get(place_of(asset))
        if found is None:
            raise KeyError(f"{asset!r} is not in this task's inlets or outlets")
        return found

    def _only(self):
        if len(self._stores) != 1:
            raise ValueError(f"the task has {len(self._stores)} assets: asset_state_store[ASSET] says which is meant")
        return next(iter(self._stores.values()))

    def get(self, key: str, default: Any = None) -> Any:
        return self._only().get(key, default)

    def set(self, key: str, value: Any) -> None:
        self._only().set(key, value)

    def delete(self, key: str) -> None:
        self._only().delete(key)

    def clear(self) -> None:
        self._only().clear()


def place_of(asset):
    return ("uri", asset.uri) if isinstance(asset, AssetUriRef) else ("name", asset.name)

"""The state stores of tasks and assets, as a task that Airflow's own SDK runs uses them."""

from __future__ import annotations

import json

from leoflow.sdk.models import make

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any


class States:
    def __init__(self, supervisor: Any):
        self.supervisor = supervisor

    def answers(self) -> dict[str, Callable[[Any], Any]]:
        found = {}
        for kind in ("TaskStateStore", "AssetStateStoreByName", "AssetStateStoreByUri"):
            found.update({f"Get{kind}": self.get, f"Set{kind}": self.set, f"Delete{kind}": self.delete, f"Clear{kind}": self.clear})
        return found

    def get(self, message):
        asset = asset_of(message)
        kind = "TaskStateStore" if asset is None else "AssetStateStore"
        found = self.ask("get", asset, key=message.key)["value_json"]
        if found is None:
            return self.supervisor.error("TASK_STORE_NOT_FOUND" if asset is None else "ASSET_STORE_NOT_FOUND", key=message.key)
        return make(f"{kind}Result", value=json.loads(found))

    def set(self, message):
        until = getattr(message, "expires_at", None)
        more = {} if until is None else {"expires_at": until.isoformat()}
        self.ask("set", asset_of(message), key=message.key, value_json=json.dumps(message.value), **more)
        return make("OKResponse", ok=True)

    def delete(self, message):
        self.ask("delete", asset_of(message), key=message.key)
        return make("OKResponse", ok=True)

    def clear(self, message):
        self.ask("delete", asset_of(message))
        return make("OKResponse", ok=True)

    def ask(self, what, asset, **body):
        return self.supervisor.ask(f"state/{what}", body if asset is None else {**body, "asset": asset})


def asset_of(message):
    """The asset that it is about; None for the task's own state."""
    found = {name: getattr(message, name) for name in ("name", "uri") if getattr(message, name, None)}
    return found or None

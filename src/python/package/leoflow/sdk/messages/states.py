"""Answers the SDK's messages about state stores of tasks and assets."""

from __future__ import annotations

import json

from leoflow.sdk.messages.models import make

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any


class States:
    def __init__(self, supervisor: Any):
        self.supervisor = supervisor

    def answers(self) -> dict[str, Callable[[Any], Any]]:
        answers = {}
        for kind in ("TaskStateStore", "AssetStateStoreByName", "AssetStateStoreByUri"):
            answers.update({f"Get{kind}": self.get, f"Set{kind}": self.set, f"Delete{kind}": self.delete, f"Clear{kind}": self.clear})
        return answers

    def get(self, message):
        asset = asset_of(message)
        kind = "TaskStateStore" if asset is None else "AssetStateStore"
        text = self.ask("get", asset, key=message.key)["value_json"]
        if text is None:
            return self.supervisor.error("TASK_STORE_NOT_FOUND" if asset is None else "ASSET_STORE_NOT_FOUND", key=message.key)
        return make(f"{kind}Result", value=json.loads(text))

    def set(self, message):
        expires_at = getattr(message, "expires_at", None)
        options = {} if expires_at is None else {"expires_at": expires_at.isoformat()}
        self.ask("set", asset_of(message), key=message.key, value_json=json.dumps(message.value), **options)
        return make("OKResponse", ok=True)

    def delete(self, message):
        self.ask("delete", asset_of(message), key=message.key)
        return make("OKResponse", ok=True)

    def clear(self, message):
        self.ask("delete", asset_of(message))
        return make("OKResponse", ok=True)

    def ask(self, operation, asset, **body):
        return self.supervisor.ask(f"state/{operation}", body if asset is None else {**body, "asset": asset})


def asset_of(message):
    """Returns the asset of a message; None for the task's own state."""
    asset = {name: getattr(message, name) for name in ("name", "uri") if getattr(message, name, None)}
    return asset or None

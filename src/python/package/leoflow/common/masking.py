"""Secrets that were read, hidden in everything that is shown from then on."""

from __future__ import annotations

import json
import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

# What was read that is nobody else's to see, in the forms in which it may be written down.
_secrets = set()
# Where the keeper of this task hears of them, so that they are hidden in what other programs print too.
_keeper = None
# Airflow's lists: parts of names, and the shortest that is hidden.
SENSITIVE = ("access_key", "access_token", "api_key", "apikey", "auth_header", "authorization", "bearer",
             "connection_string", "dsn", "keyfile_dict", "passphrase", "passwd", "password", "private_key", "proxies",
             "proxy", "secret", "service_account", "service_key", "token", "webhook_url")
SHORTEST = 5


def tell(keeper: int) -> None:
    """`keeper` is a descriptor: whoever reads there hears of every secret from here on."""
    global _keeper
    _keeper = keeper


def is_sensitive(name: str) -> bool:
    return any(part in name.lower() for part in SENSITIVE)


def note_secret(name: str, value: Any) -> None:
    """Remembers a value that is secret by its name, or one inside of it."""
    if isinstance(value, dict):
        for key, one in value.items():
            note_secret(key, one)
    elif isinstance(value, (list, tuple)):
        for one in value:
            note_secret(name, one)
    elif isinstance(value, str) and is_sensitive(name):
        mask(value)


def mask(value):
    """Hides a value from here on, wherever this task shows it."""
    if len(value) < SHORTEST or value.lower() == "airflow" or value in _secrets:
        return
    _secrets.add(value)
    if not value.isalnum() or not value.isascii():
        import urllib.parse

        _secrets.update((urllib.parse.quote(value, safe=""), urllib.parse.quote_plus(value), repr(value)[1:-1],
                         json.dumps(value)[1:-1], json.dumps(value, ensure_ascii=False)[1:-1]))
    if _keeper is not None:
        try:
            os.write(_keeper, json.dumps(value).encode() + b"\n")
        except OSError:
            # It is gone, and this task with it in a moment.
            pass


def mask_secret(secret, name=None):
    """<https://airflow.apache.org/docs/apache-airflow/stable/security/secrets/mask-sensitive-values.html>"""
    if isinstance(secret, dict):
        for key, one in secret.items():
            mask_secret(one, key)
    elif isinstance(secret, (list, tuple)):
        for one in secret:
            mask_secret(one, name)
    elif isinstance(secret, str) and (not name or is_sensitive(name)):
        mask(secret)


def hide(text: str) -> str:
    """The text without the secrets that were read."""
    for secret in sorted(_secrets, key=len, reverse=True):
        text = text.replace(secret, "***")
    return text

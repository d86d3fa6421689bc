"""Masks secrets in all output, from the time at which they are read."""

from __future__ import annotations

import json
import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

# Secrets that were read, in all encodings in which they may be printed.
_secrets = set()
# Called with each new secret, if set.
on_secret: Callable[[str], None] | None = None
# Parts of names that Airflow considers sensitive, one per line; `src/base/auth/masking.rs` reads the same file.
with open(os.path.join(os.path.dirname(__file__), "secret_names.txt"), encoding="utf-8") as _file:
    SENSITIVE = _file.read().split()
# Airflow's minimum length of a masked secret, characters.
SHORTEST = 5


def is_sensitive(name: str) -> bool:
    lowered = name.lower()
    return any(part in lowered for part in SENSITIVE)


def mask_sensitive(name: str, value: Any) -> None:
    """Masks a value if its name is sensitive. In a dict or list, checks each value by its own name."""
    if isinstance(value, dict):
        for key, item in value.items():
            mask_sensitive(key, item)
    elif isinstance(value, (list, tuple)):
        for item in value:
            mask_sensitive(name, item)
    elif isinstance(value, str) and is_sensitive(name):
        mask(value)


def mask(value):
    """Masks a value in all later output of this task."""
    if not is_maskable(value) or value in _secrets:
        return
    # Masks each line of a text, too, because logs are written line by line.
    for part in filter(is_maskable, {value, *value.splitlines()}):
        _secrets.add(part)
        if not part.isalnum() or not part.isascii():
            _secrets.update(forms(part))
    if on_secret is not None:
        on_secret(value)


def has_secrets() -> bool:
    return bool(_secrets)


def is_maskable(value):
    return len(value) >= SHORTEST and value.lower() != "airflow"


def forms(secret):
    """Returns the forms in which a secret may be printed, like `forms` in `src/base/auth/masking.rs`: percent-encoded,
    escaped once and twice for JSON, and as in the `repr()` and `ascii()` of the text and the `repr()` of its bytes."""
    import urllib.parse

    escaped = [repr(secret)[1:-1], ascii(secret)[1:-1], repr(secret.encode(errors="replace"))[2:-1]]
    # repr() chooses its quotes by the rest of the text and escapes only those, so both forms may occur.
    quoted = [form.replace("\\'", "'").replace("'", "\\'") for form in escaped]
    unquoted = [form.replace("\\'", "'") for form in escaped]
    in_json = [json.dumps(secret)[1:-1], json.dumps(secret, ensure_ascii=False)[1:-1]]
    percent = urllib.parse.quote(secret, safe="")
    return {percent, percent.lower(), urllib.parse.quote_plus(secret), *quoted, *unquoted, *in_json,
            *(json.dumps(form)[1:-1] for form in in_json)}


def mask_secret(secret, name=None):
    """<https://airflow.apache.org/docs/apache-airflow/stable/security/secrets/mask-sensitive-values.html>"""
    if isinstance(secret, dict):
        for key, item in secret.items():
            mask_secret(item, key)
    elif isinstance(secret, (list, tuple)):
        for item in secret:
            mask_secret(item, name)
    elif isinstance(secret, str) and (not name or is_sensitive(name)):
        mask(secret)


def hide(text: str) -> str:
    """Returns the text with all known secrets masked."""
    for secret in sorted(_secrets, key=len, reverse=True):
        text = text.replace(secret, "***")
    return text

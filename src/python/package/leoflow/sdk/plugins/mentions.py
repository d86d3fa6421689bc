"""Finds plugins by their texts. Some take seconds to import, so they are loaded only where they have something to do."""

from __future__ import annotations

import functools
import os


def in_project(word: str) -> bool:
    """True if a file of the plugins folder has that word."""
    from airflow import settings

    return in_folder(word, settings.PLUGINS_FOLDER or "")


@functools.cache
def in_folder(word, plugins):
    paths = (os.path.join(folder, name) for folder, _, names in os.walk(plugins) for name in names)
    # Reads all files, so that the DAG is parsed again when one changes.
    found = [path for path in paths if path.endswith(".py") and has(word, path)]
    return bool(found)


@functools.cache
def in_packages(word: str) -> bool:
    """True if a file of an installed package with plugins has that word."""
    from importlib.metadata import entry_points

    distributions = {entry.dist.name: entry.dist for entry in entry_points(group="airflow.plugins") if entry.dist is not None}
    for distribution in distributions.values():
        files = [file for file in distribution.files or () if file.suffix == ".py"]
        # An editable install does not list its files.
        if not files or any(has(word, distribution.locate_file(file)) for file in files):
            return True
    return False


def has(word, path):
    try:
        with open(path, errors="replace") as file:
            return word in file.read()
    except OSError:
        return False

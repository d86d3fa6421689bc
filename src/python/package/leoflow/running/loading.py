"""Garbage collection while a DAG file is loaded."""

from __future__ import annotations

import gc

# Nearly all objects of a DAG file and of Airflow's SDK stay alive, so collecting at the usual rate while they are loaded
# takes as long as creating them.
NORMAL_THRESHOLDS, LOADING_THRESHOLDS = gc.get_threshold(), (50_000, 20, 20)
_is_loading = False


def begin() -> None:
    """Collects rarely until `finish`."""
    global _is_loading
    _is_loading = True
    gc.set_threshold(*LOADING_THRESHOLDS)


def finish() -> None:
    """Restores the usual garbage collection once the DAG file is loaded; objects that exist by then are not
    collected."""
    global _is_loading
    if _is_loading:
        _is_loading = False
        gc.freeze()
        gc.set_threshold(*NORMAL_THRESHOLDS)

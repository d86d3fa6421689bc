"""Garbage collection while modules and DAG files are loaded."""

from __future__ import annotations

import gc

# Nearly all objects of a DAG file and of Airflow's SDK stay alive, so collecting at the usual rate while they are loaded
# takes as long as creating them.
NORMAL_THRESHOLDS, LOADING_THRESHOLDS = gc.get_threshold(), (50_000, 20, 20)
# The thresholds in effect since `begin`, which Python may have adjusted; None if nothing is loaded.
_thresholds: tuple[int, int, int] | None = None


def begin() -> None:
    """Collects rarely until `finish`."""
    global _thresholds
    gc.set_threshold(*LOADING_THRESHOLDS)
    _thresholds = gc.get_threshold()


def finish() -> None:
    """Restores the usual garbage collection, unless the DAG file has chosen its own; objects that exist by then are not
    collected."""
    global _thresholds
    if _thresholds is not None:
        gc.freeze()
        if gc.get_threshold() == _thresholds:
            gc.set_threshold(*NORMAL_THRESHOLDS)
        _thresholds = None

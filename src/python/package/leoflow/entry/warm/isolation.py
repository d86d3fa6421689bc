"""Isolates the task that a warm Python runs with the small package (`warm_up.py`)."""

from __future__ import annotations

import contextlib
import logging

from leoflow.authoring.dag.dag import created_dags
from leoflow.common import task_log

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator


@contextlib.contextmanager
def isolated() -> Iterator[None]:
    """Discards the log of the task. Then restores Python's loggers and the list of DAGs."""
    dags = list(created_dags)
    loggers = [logging.getLogger(name) for name in (None, *task_log.QUIET)]
    levels, handlers = [logger.level for logger in loggers], list(logging.getLogger().handlers)
    task_log.begin_loggers(task_log.line)
    try:
        yield
    finally:
        created_dags[:] = dags
        logging.getLogger().handlers[:] = handlers
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)

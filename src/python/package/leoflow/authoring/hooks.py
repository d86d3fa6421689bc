"""The base classes of hooks (clients of the service behind a Connection) and notifiers."""

import logging

from leoflow.authoring.connection import Connection
from leoflow.authoring.loggers import hook_logger, qualified_name


class LoggingMixin:
    """Provides `self.log`, even when a subclass does not call `super().__init__()`."""

    @property
    def log(self):
        return self.__dict__.get("_log") or self.make_logger()

    @log.setter
    def log(self, logger):
        self.__dict__["_log"] = logger

    logger = log

    def make_logger(self):
        return logging.getLogger(qualified_name(type(self)))


class BaseHook(LoggingMixin):
    """<https://airflow.apache.org/docs/apache-airflow/stable/authoring-and-scheduling/connections.html#hooks>"""

    def __init__(self, logger_name=None):
        self._logger_name = logger_name

    def make_logger(self):
        return hook_logger(type(self), self.__dict__.get("_logger_name"))

    @classmethod
    def get_connection(cls, conn_id):
        return Connection.get(conn_id)

    @classmethod
    def get_hook(cls, conn_id, hook_params=None):
        return cls.get_connection(conn_id).get_hook(hook_params=hook_params)

    @classmethod
    async def aget_connection(cls, conn_id):
        return await Connection.async_get(conn_id)

    @classmethod
    async def aget_hook(cls, conn_id, hook_params=None):
        return (await cls.aget_connection(conn_id)).get_hook(hook_params=hook_params)

    def get_conn(self):
        raise NotImplementedError


class FSHook(BaseHook):
    def __init__(self, fs_conn_id="fs_default", **others):
        super().__init__(**others)
        self.basepath = self.get_connection(fs_conn_id).extra_dejson.get("path", "")

    def get_conn(self):
        return None

    def get_path(self):
        return self.basepath


Connection.hooks["fs"] = FSHook


class BaseNotifier(LoggingMixin):
    """A callback with templated fields."""

    template_fields = ()

    def __init__(self, **_):
        self.context = {}

    def notify(self, context):
        raise NotImplementedError

    def __call__(self, *args):
        # Imported here, because hooks do not render templates.
        from leoflow.authoring.operators.templates import render_fields

        context = args[0] if args else {}
        for key, value in list(getattr(self, "context", {}).items()):
            context[key] = value
        render_fields(self, context, context.get("task"))
        self.notify(context)

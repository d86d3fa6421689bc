"""Plugins: their macros for templates, their links of operators, and their listeners of tasks and DAG runs. Their
timetables and operators need no registration, and their web pages are not shown.
<https://airflow.apache.org/docs/apache-airflow/stable/administration-and-deployment/plugins.html>"""

from __future__ import annotations

from leoflow.common.exceptions import AirflowException, Unsupported

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

# Members that would change how DAGs run.
UNSUPPORTED = ("deadline_references", "hook_lineage_readers", "partition_mappers", "priority_weight_strategies", "windows")
# Options of `hookimpl` that wrap the calls of other listeners.
WRAPPERS = ("hookwrapper", "wrapper")


class AirflowPlugin:
    """Base class of plugins."""

    name: str | None = None
    macros: list[Any] = []
    listeners: list[Any] = []
    operator_extra_links: list[Any] = []
    global_operator_extra_links: list[Any] = []

    def __init_subclass__(cls, **others):
        super().__init_subclass__(**others)
        for name in UNSUPPORTED:
            if vars(cls).get(name):
                raise Unsupported(f"{name} of a plugin")

    @classmethod
    def validate(cls):
        if not cls.name:
            raise AirflowException("Your plugin needs a name.")

    @classmethod
    def on_load(cls, *args, **kwargs):
        """Is called once in each process that loads the plugin."""


def hookimpl(function: Callable[..., Any] | None = None, **options: Any) -> Any:
    """Marks a function of a listener, as pluggy does, which Airflow uses."""
    for name in WRAPPERS:
        if options.get(name):
            raise Unsupported(f"hookimpl({name}=True)")

    def mark(implementation):
        implementation.airflow_impl = options
        return implementation

    return mark if function is None else mark(function)


# Plugins of this process, by name.
_plugins: dict[str, type[AirflowPlugin]] = {}


def register(plugin: type[AirflowPlugin]) -> None:
    """Loads a plugin; of several with one name the first counts, and the others are errors."""
    plugin.validate()
    if _plugins.get(plugin.name, plugin) is not plugin:
        raise AirflowException(f"Plugin {plugin.name!r} already registered, skipping")
    if plugin.name not in _plugins:
        plugin.on_load()
        _plugins[plugin.name] = plugin
        if plugin.macros:
            # Processes without plugins start faster without these modules.
            import types

            from leoflow.authoring import macros

            setattr(macros, plugin.name, types.SimpleNamespace(**{macro.__name__: macro for macro in plugin.macros}))


def links_of(task: Any) -> list[Any]:
    """Returns the links of a task's operator, with those that plugins add; of several with one name the last counts."""
    links = [link for plugin in _plugins.values() for link in plugin.global_operator_extra_links]
    own = task.operator_extra_links
    # That of a mapped task may be the property of its operator class.
    links += own.__get__(task) if isinstance(own, property) else own
    links += [link for plugin in _plugins.values() for link in plugin.operator_extra_links
              if any(kind.__name__ == task.task_type for kind in link.operators)]
    return list({link.name: link for link in links}.values())


def implementations(hook: str) -> list[Callable[..., Any]]:
    """Returns the functions of listeners for a hook, in pluggy's order: the last listener first."""
    functions = []
    for plugin in _plugins.values():
        for listener in plugin.listeners:
            for name in dir(listener):
                try:
                    function = getattr(listener, name)
                except Exception:
                    # A property of the listener that fails is no hook.
                    continue
                options = getattr(function, "airflow_impl", None)
                if isinstance(options, dict) and (options.get("specname") or name) == hook:
                    functions.insert(0, function)
    return sorted(functions, key=rank)


def rank(function):
    return function.airflow_impl.get("trylast", False) - function.airflow_impl.get("tryfirst", False)


def call(hook: str, **arguments: Any) -> Exception | None:
    """Calls the listeners with the arguments that they name. Returns an error, after which no other is called."""
    functions = implementations(hook)
    if not functions:
        return None
    import inspect

    try:
        for function in functions:
            names = inspect.signature(function).parameters
            function(**{name: value for name, value in arguments.items() if name in names})
    except Exception as error:
        return error
    return None

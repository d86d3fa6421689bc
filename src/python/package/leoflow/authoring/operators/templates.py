"""Renders the Jinja templates of an operator's fields.

<https://airflow.apache.org/docs/apache-airflow/stable/core-concepts/operators.html#jinja-templating>

jinja2 is imported only when a text contains a template: importing it takes longer than most tasks.
"""

from __future__ import annotations

import os
from collections import ChainMap

from leoflow.authoring.mapping.xcom_arg import Argument
from leoflow.common.dates import iso
from leoflow.common.exceptions import MissingPackage
from leoflow.common.masking import hide, is_sensitive
from leoflow.common.signatures import parameters

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

    import jinja2

    from leoflow.common.graph import Dag, Task

# A text with one of these is a template.
MARKS = ("{{", "{%", "{#")


def format_date(pattern):
    return lambda value: None if value is None else value.strftime(pattern)


def with_tz(value):
    return None if value is None else value.isoformat().replace("-", "").replace(":", "")


FILTERS = {
    "ds": format_date("%Y-%m-%d"),
    "ds_nodash": format_date("%Y%m%d"),
    "ts": iso,
    "ts_nodash": format_date("%Y%m%dT%H%M%S"),
    "ts_nodash_with_tz": with_tz,
}


class Literal:
    """`literal("…")`: a text that is not a template."""

    def __init__(self, value):
        self.value = value

    def iter_references(self):
        return ()


literal = Literal


def is_template(text):
    return any(mark in text for mark in MARKS)


def environment_of(dag: Dag | None, native: bool | None = None) -> jinja2.Environment:
    """Returns the Jinja environment of a DAG. With `native`, templates render to Python values."""
    try:
        import jinja2
        import jinja2.nativetypes
        import jinja2.sandbox
    except ImportError:
        raise MissingPackage("jinja2", "a Jinja template") from None

    def is_safe_attribute(self, obj, attr, value):
        # Names with a single underscore are allowed, as in Airflow.
        return not (attr.startswith("__") or jinja2.sandbox.is_internal_attribute(obj, attr))

    base = jinja2.nativetypes.NativeEnvironment if native else jinja2.sandbox.SandboxedEnvironment
    kind = type("Environment", (base,), {} if native else {"is_safe_attribute": is_safe_attribute})
    folders = [dag.folder, *(dag.template_searchpath or [])] if dag is not None else ["."]
    options = {
        "loader": jinja2.FileSystemLoader(folders),
        "undefined": (dag.template_undefined if dag is not None else None) or jinja2.StrictUndefined,
        "extensions": ["jinja2.ext.do"],
        "cache_size": 0,
        **((dag.jinja_environment_kwargs if dag is not None else None) or {}),
    }
    environment = kind(**options)
    environment.filters.update(FILTERS)
    if dag is not None:
        environment.globals.update(dag.user_defined_macros or {})
        environment.filters.update(dag.user_defined_filters or {})
    return environment


class Values(ChainMap):
    """The values of a template. A KeyError of a lazy value does not make it undefined."""

    def __getitem__(self, key):
        for values in self.maps:
            if key in values:
                return values[key]
        raise KeyError(key)


class Renderer:
    """Renders values for one task."""

    def __init__(self, task, context, environment=None, unrendered=()):
        self.task = task
        self.context = context
        self.environment = environment
        self.extensions = tuple(getattr(task, "template_ext", ()) or ())
        # Results of other tasks are values, not templates; they are recognized by identity.
        self.unrendered = {id(value) for value in unrendered}

    def jinja(self):
        if self.environment is None:
            native = getattr(self.task, "render_template_as_native_obj", None)
            dag = getattr(self.task, "dag", None)
            if native is None:
                native = dag is not None and dag.render_template_as_native_obj
            self.environment = environment_of(dag, native)
        return self.environment

    def text(self, value):
        if self.extensions and value.endswith(self.extensions):
            return self.render_with(self.jinja().get_template(value))
        return self.render_with(self.jinja().from_string(value)) if self.may_be_template(value) else value

    def may_be_template(self, text):
        """True when the text must be rendered: native rendering also evaluates texts without a template, and
        `jinja_environment_kwargs` may define other delimiters."""
        dag = getattr(self.task, "dag", None)
        native = getattr(self.task, "render_template_as_native_obj", None)
        if dag is not None and (dag.jinja_environment_kwargs or native is None and dag.render_template_as_native_obj):
            return True
        return bool(native) or is_template(text)

    def render_with(self, template):
        """Renders like `Template.render`, but that copies the context, which computes every lazy value."""
        environment, values = template.environment, Values(self.context, template.globals)
        context = environment.context_class(environment, values, template.name, template.blocks, template.globals)
        try:
            return environment.concat(template.root_render_func(context))
        except Exception:
            # Adds the template's lines to the traceback.
            return environment.handle_exception()

    def render(self, value):
        if id(value) in self.unrendered:
            return value
        if isinstance(value, Literal):
            return value.value
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, Argument):
            return value.resolve(self.context)
        if isinstance(value, os.PathLike):
            return value
        if type(value) is tuple:
            return tuple(self.render(item) for item in value)
        if isinstance(value, tuple):
            return type(value)(*(self.render(item) for item in value))
        if isinstance(value, list):
            return [self.render(item) for item in value]
        if isinstance(value, dict):
            return {key: self.render(item) for key, item in value.items()}
        if isinstance(value, set):
            return {self.render(item) for item in value}
        if hasattr(value, "template_fields") and not isinstance(value, type):
            render_fields(value, self.context, self.task, self.environment)
        return value


def render_fields(
    owner: Any, context: Mapping[str, Any], task: Task | None, environment: jinja2.Environment | None = None,
    unrendered: Sequence = (),
) -> None:
    """Renders an object's template fields in place."""
    renderer = Renderer(task, context, environment, unrendered)
    renderer.extensions = tuple(getattr(owner, "template_ext", ()) or ())
    for field in owner.template_fields:
        try:
            value = getattr(owner, field)
        except AttributeError:
            raise AttributeError(
                f"{field!r} is configured as a template field but {getattr(owner, 'task_type', type(owner).__name__)} "
                "does not have this attribute."
            ) from None
        if not value:
            continue
        if callable(value) and not isinstance(value, (Argument, type)) and not hasattr(value, "template_fields"):
            rendered = value(context=context, jinja_env=renderer.jinja()) if takes_context(value) else value
        else:
            rendered = renderer.render(value)
        if rendered is not value:
            object.__setattr__(owner, field, rendered)


def takes_context(function):
    """True for a function that computes the value of a field from the context."""
    try:
        names = parameters(function)
    except (TypeError, ValueError):
        return False
    return "context" in names and "jinja_env" in names


# --- rendered fields for display

# Airflow's `max_templated_field_length`, characters.
LONGEST = 4096


def rendered_fields(task: Task) -> dict[str, Any]:
    """Returns the rendered fields as JSON for display."""
    fields = {}
    for field in task.template_fields:
        fields[field] = serialised(getattr(task, field, None), field)
    return fields


def serialised(value, name=""):
    """Converts a field's value to JSON types; a value longer than LONGEST becomes a truncated text."""
    plain = plain_of(value, name)
    text = str(plain)
    if len(text) <= LONGEST:
        return plain
    prefix = "Truncated. You can change this behaviour in [core]max_templated_field_length. "
    return prefix + text[: LONGEST - len(prefix) - 3].rstrip() + "..."


def plain_of(value, name=""):
    """Converts a value to JSON types, with secrets masked."""
    if is_sensitive(name) and value not in (None, "") and not isinstance(value, (dict, list, tuple, set)):
        return "***"
    if isinstance(value, str):
        return hide(value)
    if isinstance(value, float) and (value != value or value in (float("inf"), float("-inf"))):
        # JSON cannot represent NaN and infinity.
        return str(value)
    if value is None or isinstance(value, (bool, int, float)):
        return value
    if isinstance(value, dict):
        return {hide(str(key)): plain_of(value[key], str(key)) for key in sorted(value, key=str)}
    if isinstance(value, (list, tuple)):
        return [plain_of(item, name) for item in value]
    if isinstance(value, (set, frozenset)):
        return sorted((plain_of(item) for item in value), key=str)
    if callable(value):
        name = getattr(value, "__qualname__", type(value).__qualname__)
        return f"<callable {getattr(value, '__module__', '')}.{name}>"
    if type(value).__str__ is not object.__str__ or type(value).__repr__ is not object.__repr__:
        return hide(str(value))
    return f"<{type(value).__module__}.{type(value).__qualname__} object>"

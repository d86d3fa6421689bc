"""`@asset`: turns a function that produces an asset into a DAG with one task."""

from leoflow.authoring.assets.definitions import Asset
from leoflow.authoring.dag.dag import DAG
from leoflow.authoring.operators.standard import PythonOperator
from leoflow.common.signatures import VAR_KEYWORD, VAR_POSITIONAL, parameters


def asset(function=None, **arguments):
    """Decorates a function as a DAG with one task that produces the asset of the same name."""
    if function is not None:
        raise TypeError("@asset needs at least schedule=…: @asset(schedule=None)")
    return decorate(**arguments)


class AssetDag(Asset):
    """An asset together with the DAG that produces it."""

    def __init__(self, function, **arguments):
        super().__init__(arguments.get("name") or function.__name__, arguments.get("uri"), group=arguments.get("group") or "asset",
                         extra=arguments.get("extra"))
        self.dag = build(function, self.name, [self], self, arguments)

    def __hash__(self):
        return super().__hash__()


def decorate(**arguments):
    return lambda function: AssetDag(check(function), **arguments)


def multi(*, outlets, **arguments):
    """`@asset.multi`: a function that produces several assets."""
    return lambda function: build(check(function), function.__name__, list(outlets), None, arguments)


def check(function):
    if function.__qualname__ != function.__name__:
        raise ValueError("nested function not supported")
    for name, parameter in parameters(function).items():
        if parameter.kind in (VAR_POSITIONAL, VAR_KEYWORD):
            raise TypeError(f"wildcard {'*' * (1 if parameter.kind == VAR_POSITIONAL else 2)}{name!r} is not supported in @asset")
    return function


def build(function, name, outlets, asset, options):
    """Creates the DAG. `asset` is passed to the function as `self`."""
    names = ("schedule", "description", "params", "on_success_callback", "on_failure_callback", "dag_display_name",
             "tags", "is_paused_upon_creation")
    arguments = {key: options[key] for key in names if options.get(key) is not None}
    accepted = parameters(function)
    # As in Airflow, each required parameter names an asset.
    inlets = [
        Asset.ref(name=key) for key, parameter in accepted.items()
        if key not in ("self", "context", "outlet_events") and parameter.default is parameter.empty
    ]

    class AssetOperator(PythonOperator):
        airflow_name = "AssetMainOperator"

        def execute(self, context):
            available = {"self": asset, "context": context, "outlet_events": context["outlet_events"]}
            server = context["ti"].server
            available.update({ref.value: server.asset(ref.value) for ref in inlets})
            return self.call_with({key: available[key] for key in accepted if key in available}, context)

    with DAG(options.get("dag_id") or name, catchup=False, **arguments) as dag:
        AssetOperator(task_id=function.__name__, python_callable=function, outlets=outlets, inlets=inlets)
    return dag


asset.multi = multi

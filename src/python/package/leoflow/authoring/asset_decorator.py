"""`@asset`: a function that makes an asset, as a DAG with one task."""

from leoflow.authoring.assets import Asset
from leoflow.authoring.dag import DAG
from leoflow.common.signatures import VAR_KEYWORD, VAR_POSITIONAL, parameters


def asset(function=None, **arguments):
    """`@asset`: a DAG of one task, which produces the asset of its name."""
    if function is not None:
        raise TypeError("@asset needs at least schedule=…: @asset(schedule=None)")
    return decorate(**arguments)


class AssetDag(Asset):
    """The asset, and the DAG that makes it."""

    def __init__(self, function, **given):
        super().__init__(given.get("name") or function.__name__, given.get("uri"), group=given.get("group") or "asset",
                         extra=given.get("extra"))
        self.dag = build(function, self.name, [self], self, given)

    def __hash__(self):
        return super().__hash__()


def decorate(**given):
    return lambda function: AssetDag(check(function), **given)


def multi(*, outlets, **given):
    """`@asset.multi`: one function, several assets."""
    return lambda function: build(check(function), function.__name__, list(outlets), None, given)


def check(function):
    if function.__qualname__ != function.__name__:
        raise ValueError("nested function not supported")
    for name, one in parameters(function).items():
        if one.kind in (VAR_POSITIONAL, VAR_KEYWORD):
            raise TypeError(f"wildcard {'*' * (1 if one.kind == VAR_POSITIONAL else 2)}{name!r} is not supported in @asset")
    return function


def build(function, name, outlets, own, given):
    from leoflow.authoring.operators import PythonOperator

    names = ("schedule", "description", "params", "on_success_callback", "on_failure_callback", "dag_display_name",
             "tags", "is_paused_upon_creation")
    arguments = {key: given[key] for key in names if given.get(key) is not None}
    takes = parameters(function)
    inlets = [
        Asset.ref(name=key) for key, one in takes.items()
        if key not in ("self", "context", "outlet_events") and one.default is one.empty
    ]

    class AssetOperator(PythonOperator):
        airflow_name = "AssetMainOperator"

        def execute(self, context):
            offered = {"self": own, "context": context, "outlet_events": context["outlet_events"]}
            server = context["ti"].server
            offered.update({ref.value: server.asset(ref.value) for ref in inlets})
            return self.call_with({key: offered[key] for key in takes if key in offered}, context)

    with DAG(given.get("dag_id") or name, catchup=False, **arguments) as dag:
        AssetOperator(task_id=function.__name__, python_callable=function, outlets=outlets, inlets=inlets)
    return dag


asset.multi = multi

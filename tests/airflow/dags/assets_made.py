"""Tasks that produce assets and attach metadata to them."""

from airflow.sdk import DAG, Asset, AssetAlias, Metadata, task

with DAG("assets_made", schedule=None):

    @task(outlets=[Asset("first")])
    def first(outlet_events):
        outlet_events[Asset("first")].extra["rows"] = 3
        return "first"

    @task(outlets=[Asset("second", uri="s3://bucket/second")])
    def second():
        yield Metadata(Asset("second", uri="s3://bucket/second"), {"from": "metadata"})
        return "second"

    @task(outlets=[Asset("never")])
    def fails():
        raise ValueError("no")

    @task(outlets=[AssetAlias("some")])
    def alias(outlet_events):
        outlet_events[AssetAlias("some")].add(Asset("found"), extra={"k": "v"})

    first() >> second() >> alias()
    fails()

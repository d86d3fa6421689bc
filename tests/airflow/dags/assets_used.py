"""Runs when both assets are updated."""

from airflow.sdk import DAG, Asset, task

with DAG("assets_used", schedule=Asset("first") & Asset("second", uri="s3://bucket/second")):

    @task
    def looks(triggering_asset_events, dag_run):
        events = {asset.name: [event.extra for event in events] for asset, events in triggering_asset_events.items()}
        return [events, dag_run.logical_date, str(dag_run.run_type)]

    @task(inlets=[Asset("first")])
    def reads(inlet_events):
        return [event.extra for event in inlet_events[Asset("first")]]

    looks(), reads()

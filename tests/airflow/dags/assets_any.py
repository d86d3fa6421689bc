"""Runs when any of several assets is updated."""

from airflow.sdk import DAG, Asset, AssetAlias, task

with DAG("assets_any", schedule=(Asset("never") | AssetAlias("some"))):

    @task
    def looks(triggering_asset_events):
        return sorted(asset.name for asset in triggering_asset_events)

    looks()

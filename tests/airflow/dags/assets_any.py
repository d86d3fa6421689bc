"""Runs when one of them has been."""

from airflow.sdk import DAG, Asset, AssetAlias, task

with DAG("assets_any", schedule=(Asset("never") | AssetAlias("some"))):

    @task
    def looks(triggering_asset_events):
        return sorted(asset.name for asset in triggering_asset_events)

    looks()

//! The types of DAG runs, with Airflow's names.

use super::state::states;
use schemars::JsonSchema;

states! {
    /// Airflow's run types.
    #[derive(JsonSchema)]
    #[schemars(rename = "DagRunType")]
    RunType {
        Backfill = "backfill",
        Scheduled = "scheduled",
        Manual = "manual",
        OperatorTriggered = "operator_triggered",
        AssetTriggered = "asset_triggered",
        AssetMaterialization = "asset_materialization",
    }
}

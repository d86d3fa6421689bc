//! Fields and filters of assets, their aliases and events, for lists.

use crate::store::list::conditions::Conditions;
use crate::store::list::field::{Filter, list_fields};

list_fields! {
    /// Fields of assets, for lists.
    AssetField, key: [Id], filter: AssetFilter;
    Id = whole("a.id"),
    Name = text("a.name"),
    Uri = text("a.uri"),
    CreatedAt = time("a.created_at"),
    UpdatedAt = time("a.updated_at"),
}

/// Filters of assets.
#[derive(Debug, Default)]
pub struct AssetFilter {
    /// Selects the assets that one of these DAGs, or one of their tasks, references; an empty list selects every asset.
    pub dag_ids: Vec<String>,
    pub used_by: UsedBy,
}

/// Whether an active DAG must reference an asset.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum UsedBy {
    #[default]
    Any,
    /// An active DAG, or one of its tasks, references the asset, and no older asset conflicts with it.
    ActiveDag,
}

/// SQL condition: the row `d` of `dag_asset` references the asset `a`.
const REFERENCES: &str =
    "(d.kind = 'asset' AND d.name = a.name AND d.uri = a.uri OR d.kind = 'name' AND d.name = a.name
    OR d.kind = 'uri' AND d.uri = a.uri)";

/// SQL conditions: an older asset `o` that an active DAG references has the same name as the asset `a` (first
/// condition) or the same URI (second condition). As in Airflow, only the oldest asset with a name or URI is active.
pub(crate) const CONFLICTS: [&str; 2] = [
    "o.id < a.id AND o.name = a.name AND EXISTS (
         SELECT FROM dag_asset od JOIN dag og ON og.dag_id = od.dag_id
         WHERE og.is_active AND od.kind = 'asset' AND od.name = o.name AND od.uri = o.uri)",
    "o.id < a.id AND o.uri = a.uri AND EXISTS (
         SELECT FROM dag_asset od JOIN dag og ON og.dag_id = od.dag_id
         WHERE og.is_active AND od.kind = 'asset' AND od.name = o.name AND od.uri = o.uri)",
];

impl Filter for AssetFilter {
    fn add_to(self, conditions: &mut Conditions) {
        if !self.dag_ids.is_empty() {
            let used = "SELECT FROM dag_asset d WHERE d.dag_id = ANY ({}::text[])";
            conditions.with(&format!("EXISTS ({used} AND {REFERENCES})"), self.dag_ids);
        }
        if self.used_by == UsedBy::ActiveDag {
            let used = "SELECT FROM dag_asset d JOIN dag USING (dag_id) WHERE dag.is_active";
            conditions.add(&format!("EXISTS ({used} AND {REFERENCES})"), Vec::new());
            for conflict in CONFLICTS {
                conditions.add(&format!("NOT EXISTS (SELECT FROM asset o WHERE {conflict})"), Vec::new());
            }
        }
    }
}

list_fields! {
    /// Fields of asset aliases, for lists.
    AliasField, key: [Id];
    Id = whole("n.id"),
    Name = text("n.name"),
}

list_fields! {
    /// Fields of asset events, for lists.
    AssetEventField, key: [Id];
    Id = whole("e.id"),
    HappenedAt = time("e.happened_at"),
    AssetId = whole("e.asset_id"),
    AssetName = text("a.name"),
    SourceDagId = text("e.source_dag_id"),
    SourceTaskId = text("e.source_task_id"),
    SourceRunId = text("e.source_run_id"),
    SourceMapIndex = whole("e.source_map_index"),
}

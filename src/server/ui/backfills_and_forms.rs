//! Backfills with progress, and connection forms.

use crate::api::prelude::*;
use crate::api::run::backfills::{BackfillResponse, FIELDS, view};
use leoflow_engine::store::run::backfills::{self, BackfillField, BackfillFilter};
use std::collections::BTreeMap;

collection! { Backfills { backfills: BackfillWithRuns } }

/// A backfill with its progress.
#[derive(Serialize, JsonSchema)]
pub struct BackfillWithRuns {
    #[serde(flatten)]
    backfill: BackfillResponse,
    num_runs: i64,
    dag_run_state_counts: Value,
}

/// The UI has filters in addition to the REST API's.
const UI_FIELDS: Fields<BackfillField> = Fields {
    ranges: &[
        ("created_at", BackfillField::CreatedAt),
        ("completed_at", BackfillField::CompletedAt),
        ("from_date", BackfillField::FromDate),
        ("to_date", BackfillField::ToDate),
        ("max_active_runs", BackfillField::MaxActiveRuns),
        ("duration", BackfillField::Duration),
    ],
    exact: &[("reprocess_behavior", BackfillField::Reprocess)],
    ..FIELDS
};

/// `/ui/backfills`.
pub async fn backfills(Datastore(client): Datastore, params: Params) -> JsonResult<Backfills> {
    let mut listing = params.listing(&UI_FIELDS)?;
    let dag_id = params.text("dag_id").map(str::to_owned);
    listing.filter = BackfillFilter { dag_id, is_active: params.flag("active")? };
    let page = backfills::list(&*client, listing).await?;
    let mut with_runs = Vec::with_capacity(page.rows.len());
    for backfill in page.rows {
        with_runs.push(BackfillWithRuns {
            num_runs: backfills::outcome(&*client, backfill.id).await?.0,
            dag_run_state_counts: backfills::states(&*client, backfill.id).await?.into(),
            backfill: view(backfill),
        });
    }
    Ok(Json(Backfills::new(with_runs, page.total)))
}

/// Connection types that can be entered without a provider.
const TYPES_WITHOUT_PROVIDER: [(&str, &str); 12] = [
    ("generic", "Generic"),
    ("http", "HTTP"),
    ("postgres", "Postgres"),
    ("mysql", "MySQL"),
    ("sqlite", "SQLite"),
    ("ssh", "SSH"),
    ("sftp", "SFTP"),
    ("ftp", "FTP"),
    ("smtp", "SMTP"),
    ("redis", "Redis"),
    ("aws", "Amazon Web Services"),
    ("fs", "File (path)"),
];
/// Fields of every connection form, with the names that providers use for them.
const STANDARD_FIELDS: [(&str, &str); 6] = [
    ("description", "Description"),
    ("url_schema", "schema"),
    ("host", "host"),
    ("port", "port"),
    ("login", "login"),
    ("password", "password"),
];

/// `/ui/connections/hook_meta`: forms of the projects' providers, and of common types without a provider.
pub async fn hook_meta(State(state): Shared) -> JsonResult<Value> {
    let providers = state.dag_code.list_providers().await;
    let providers = providers.map_err(|error| ApiError::new(StatusCode::SERVICE_UNAVAILABLE, error.to_string()))?;
    let mut forms: BTreeMap<String, Value> = BTreeMap::new();
    for kind in providers.iter().flat_map(|provider| &provider.connection_types) {
        let (hidden, relabeled) = (&kind.behaviour["hidden_fields"], &kind.behaviour["relabeling"]);
        let standard: Value = STANDARD_FIELDS
            .iter()
            .map(|(name, field)| {
                let is_hidden =
                    hidden.as_array().is_some_and(|all| all.iter().any(|hidden_field| hidden_field == field));
                let title = relabeled[*field].as_str();
                let placeholder = kind.behaviour["placeholders"][*field].as_str();
                ((*name).to_owned(), json!({"hidden": is_hidden, "title": title, "placeholder": placeholder}))
            })
            .collect::<serde_json::Map<_, _>>()
            .into();
        let name = kind.hook_name.clone().unwrap_or_else(|| kind.connection_type.clone());
        let form = json!({
            "connection_type": kind.connection_type, "hook_class_name": kind.hook_class_name, "default_conn_name": null,
            "hook_name": name, "standard_fields": standard, "extra_fields": kind.fields,
        });
        forms.entry(kind.connection_type.clone()).or_insert(form);
    }
    for (kind, name) in TYPES_WITHOUT_PROVIDER {
        forms.entry(kind.to_owned()).or_insert_with(|| {
            json!({
                "connection_type": kind, "hook_class_name": null, "default_conn_name": null, "hook_name": name,
                "standard_fields": null, "extra_fields": null,
            })
        });
    }
    Ok(Json(forms.into_values().collect::<Vec<_>>().into()))
}

//! `/api/v2/dagBundles`: the workspace, which is the only bundle, with Airflow's names and shapes.

use crate::api::prelude::*;
use crate::api::views::BUNDLE;
use crate::http::query::Paging;
use leoflow_engine::store::dag::dag_facts::{self, FileFacts};

query! {
    pub BundlesQuery(Paging) {
        Parameter::new("order_by", Kind::Texts).or(r#"["name"]"#),
    }
}

query! { pub BundleFilesQuery(Paging) }

#[derive(Serialize, JsonSchema)]
pub struct DagBundleResponse {
    name: &'static str,
    active: Option<bool>,
    version: Option<String>,
    last_refreshed: Option<Stamp>,
    bundle_url: Option<String>,
    team_name: Option<String>,
    import_error_count: Option<i64>,
}

#[derive(Serialize, JsonSchema)]
pub struct DagBundleDetailResponse {
    #[serde(flatten)]
    bundle: DagBundleResponse,
    dag_count: i64,
}

view! {
    pub struct DagBundleFileResponse;
    fn file(facts: FileFacts) {
        relative_fileloc: String,
        dag_count: i64,
        last_parsed_time: Option<Stamp> = facts.last_parsed_at.map(Stamp),
        last_parse_duration: Option<f64>,
        import_error_count: i64,
    }
}

collection! { DagBundleCollectionResponse { dag_bundles: DagBundleResponse } }
collection! { DagBundleFileCollectionResponse { dag_bundle_files: DagBundleFileResponse } }

/// Sums up the files of the workspace.
fn bundle(files: &[FileFacts]) -> DagBundleDetailResponse {
    let count = |of: fn(&FileFacts) -> i64| files.iter().map(of).sum();
    let bundle = DagBundleResponse {
        name: BUNDLE,
        active: Some(true),
        version: None,
        last_refreshed: files.iter().filter_map(|file| file.last_parsed_at).max().map(Stamp),
        bundle_url: None,
        team_name: None,
        import_error_count: Some(count(|file| file.import_error_count)),
    };
    DagBundleDetailResponse { bundle, dag_count: count(|file| file.dag_count) }
}

pub async fn list(
    Datastore(client): Datastore,
    params: QueryParams<BundlesQuery>,
) -> JsonResult<DagBundleCollectionResponse> {
    params.order(&[("name", ()), ("active", ()), ("last_refreshed", ())])?;
    let all = vec![bundle(&dag_facts::files_of_workspace(&*client).await?).bundle];
    Ok(Json(params.page()?.of(all).into()))
}

fn check_name(name: &str) -> ApiResult<()> {
    let detail = || format!("The Dag Bundle with name: `{name}` was not found");
    if name == BUNDLE { Ok(()) } else { Err(ApiError::not_found(detail())) }
}

pub async fn get(Datastore(client): Datastore, Id(name): Id) -> JsonResult<DagBundleDetailResponse> {
    check_name(&name)?;
    Ok(Json(bundle(&dag_facts::files_of_workspace(&*client).await?)))
}

pub async fn files(
    Datastore(client): Datastore,
    Id(name): Id,
    params: QueryParams<BundleFilesQuery>,
) -> JsonResult<DagBundleFileCollectionResponse> {
    check_name(&name)?;
    let all = dag_facts::files_of_workspace(&*client).await?.into_iter().map(file).collect();
    Ok(Json(params.page()?.of(all).into()))
}

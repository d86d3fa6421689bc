//! `/api/v2/dags/{dag_id}/dagVersions`, with Airflow's names and shapes.

use crate::api::prelude::*;
use crate::api::run::dag_run_lists::specific_id;
use crate::api::views::{BUNDLE, DagVersionResponse, version};
use leoflow_engine::store::dag::dags;
use leoflow_engine::store::dag::versions::{self, VersionField};

const FIELDS: Fields<VersionField> = Fields {
    order: &[
        ("id", VersionField::Id),
        ("version_number", VersionField::Number),
        // All versions are in the one bundle, so its name does not order them.
        ("bundle_name", VersionField::Id),
        ("bundle_version", VersionField::BundleVersion),
        ("created_at", VersionField::CreatedAt),
    ],
    exact: &[("version_number", VersionField::Number)],
    ..Fields::NONE
};

query! {
    pub VersionsQuery(FIELDS) {
        Parameter::new("bundle_name", Kind::Text),
        Parameter::new("bundle_version", Kind::Text),
    }
}

collection! { DAGVersionCollectionResponse { dag_versions: DagVersionResponse } }

pub async fn list(
    Datastore(client): Datastore,
    Id(dag_id): Id,
    params: QueryParams<VersionsQuery>,
) -> JsonResult<DAGVersionCollectionResponse> {
    let mut listing = params.listing(&FIELDS)?;
    if let Some(dag_id) = specific_id(&dag_id) {
        dags::get(&*client, dag_id).await?;
        listing.filter.dag_id = Some(dag_id.to_owned());
    }
    listing.test(VersionField::BundleVersion, FieldTest::OneOf(params.texts("bundle_version")));
    if params.text("bundle_name").is_some_and(|name| name != BUNDLE) {
        listing.select_none();
    }
    let page = versions::list(&*client, listing).await?;
    Ok(Json(page.map(|version_name| version(&version_name).without_bundle()).into()))
}

pub async fn get(
    Datastore(client): Datastore,
    Segments((dag_id, number)): Segments<(String, i32)>,
) -> JsonResult<DagVersionResponse> {
    let version_name = versions::named(&*client, &dag_id, number).await?;
    let not_found = || {
        let detail = format!("The DagVersion with dag_id: `{dag_id}` and version_number: `{number}` was not found");
        ApiError::not_found(detail)
    };
    Ok(Json(version(&version_name.ok_or_else(not_found)?).without_bundle()))
}

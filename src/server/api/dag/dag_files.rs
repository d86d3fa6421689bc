//! DAG files: `dagSources`, `importErrors` and `parseDagFile`, with Airflow's names and shapes.

use crate::api::prelude::*;
use crate::api::views::{self, BUNDLE, ImportErrorCollectionResponse, ImportErrorResponse, file_token};
use crate::http::openapi::answers::{Either, Plain};
use axum::http::{HeaderMap, header};
use leoflow_engine::store::dag::dags;
use leoflow_engine::store::dag::import_errors::{self, ImportErrorField};
use std::path::Path;

/// Parses the file with this token again, changed or not.
pub async fn parse_again(State(state): Shared, Id(token): Id) -> ApiResult<Created<Value>> {
    let page = dags::list(&*state.core.database.get().await?, &state.dag_files.structures, Listing::default()).await?;
    let dag = page.rows.into_iter().find(|dag| file_token(&dag.fileloc) == token);
    let dag = dag.ok_or_else(|| ApiError::not_found("The DAG file with this token was not found"))?;
    state.dag_files.parse_requests.add(dag.fileloc.into());
    Ok(Created(Value::Null))
}

query! { pub SourceQuery { Parameter::new("version_number", Kind::Whole) } }

#[derive(Serialize, JsonSchema)]
pub struct DAGSourceResponse {
    content: Option<String>,
    dag_id: String,
    version_number: Option<i32>,
    dag_display_name: String,
    language: Option<&'static str>,
}

pub async fn source(
    Datastore(client): Datastore,
    Id(dag_id): Id,
    params: QueryParams<SourceQuery>,
    headers: HeaderMap,
) -> ApiResult<Either<DAGSourceResponse, Plain>> {
    let number = params.whole("version_number")?.filter(|number| *number > 0);
    let number_filter = number.map(|number| i32::try_from(number).unwrap_or(i32::MAX));
    let (version_number, content, file) = dags::source(&*client, &dag_id, number_filter).await?.ok_or_else(|| {
        let number = number.map_or_else(|| "None".to_owned(), |number| number.to_string());
        let detail = format!("The source code of the Dag {dag_id}, version_number {number} was not found");
        ApiError::not_found(detail)
    })?;
    let accept = headers.get(header::ACCEPT).and_then(|accept| accept.to_str().ok()).unwrap_or("*/*");
    if accept.starts_with("text/plain") {
        return Ok(Either::text(([(header::CONTENT_TYPE, "text/plain; charset=utf-8")], content)));
    }
    // A version that the first releases stored has no path.
    let is_yaml = leoflow_python::is_data(Path::new(&file));
    Ok(Either::json(DAGSourceResponse {
        content: Some(content),
        dag_display_name: dag_id.clone(),
        dag_id,
        version_number: Some(version_number),
        language: Some(if is_yaml { "yaml" } else { "python" }),
    }))
}

const ERROR_FIELDS: Fields<ImportErrorField> = Fields {
    order: &[
        ("id", ImportErrorField::Id),
        ("import_error_id", ImportErrorField::Id),
        ("timestamp", ImportErrorField::CreatedAt),
        ("filename", ImportErrorField::Filename),
        // All files are in the one bundle, so its name does not order them.
        ("bundle_name", ImportErrorField::Id),
        ("stacktrace", ImportErrorField::StackTrace),
    ],
    patterns: &[("filename", ImportErrorField::Filename)],
    exact: &[("filename", ImportErrorField::Filename)],
    ..Fields::NONE
};

query! { pub ImportErrorsQuery(ERROR_FIELDS) { Parameter::new("bundle_name", Kind::Text) } }

pub async fn import_errors(
    Datastore(client): Datastore,
    params: QueryParams<ImportErrorsQuery>,
) -> JsonResult<ImportErrorCollectionResponse> {
    let mut listing = params.listing(&ERROR_FIELDS)?;
    if params.text("bundle_name").is_some_and(|name| name != BUNDLE) {
        listing.select_none();
    }
    let page = import_errors::list(&*client, listing).await?;
    Ok(Json(page.map(views::import_error).into()))
}

pub async fn import_error(
    Datastore(client): Datastore,
    Segments(id): Segments<i64>,
) -> JsonResult<ImportErrorResponse> {
    Ok(Json(views::import_error(import_errors::get(&*client, id).await?)))
}

//! `…/taskInstances/{task_id}/links`, with Airflow's shape.

use crate::api::instance_path::instance_key_from_query;
use crate::api::prelude::*;
use leoflow_engine::store::instance::{instances, xcoms};
use std::collections::BTreeMap;

query! {
    pub LinksQuery {
        Parameter::new("map_index", Kind::Whole).or("-1"),
        Parameter::new("try_number", Kind::Whole),
    }
}

#[derive(Serialize, JsonSchema)]
pub struct ExtraLinkCollectionResponse {
    extra_links: BTreeMap<String, Option<String>>,
    total_entries: i64,
}

/// The links that a task's operator has to other pages. They are the same for all tries of an instance.
pub async fn links(
    Datastore(client): Datastore,
    Segments(path): Segments<TaskPath>,
    params: QueryParams<LinksQuery>,
) -> JsonResult<ExtraLinkCollectionResponse> {
    let key = instance_key_from_query(path, &params)?;
    let instance = instances::get(&*client, &key).await?;
    if let Some(number) = params.whole("try_number")?.filter(|number| *number != i64::from(instance.try_number)) {
        let tries = instances::tries(&*client, &key).await?;
        if !tries.iter().any(|past| i64::from(past.number) == number) {
            let detail = format!("TaskInstanceHistory not found for try_number={number}");
            return Err(ApiError::not_found(detail));
        }
    }
    let extra_links = xcoms::extra_links(&*client, &key).await?;
    Ok(Json(ExtraLinkCollectionResponse { total_entries: i64::try_from(extra_links.len()).unwrap_or(0), extra_links }))
}

//! The part of the UI about the attempts of a run.

use crate::api::instance::instance_views::instance_id;
use crate::api::prelude::*;
use crate::api::regions;
use crate::api::run::dag_runs::run_not_found;
use crate::api::views::{duration, optional_stamp, version};
use leoflow_engine::store::instance::instances::{self, InstanceField, InstanceFilter};
use leoflow_engine::store::list::column::Order;
use leoflow_engine::store::run::runs;

/// `/ui/dags/{dag_id}/dagRuns/{run_id}/execution`: the instances of a run with their newest attempts.
pub async fn execution(
    Datastore(client): Datastore,
    Segments((dag_id, run_id)): Segments<RunPath>,
    params: Params,
) -> JsonResult<Value> {
    let key = RunKey { dag_id, run_id };
    runs::get(&*client, &key, ReadFor::Reading).await.map_err(run_not_found(&key))?;
    let index = params.whole("region_index")?.map(|index| i32::try_from(index).unwrap_or(i32::MAX));
    let index = regions::position("query", params.text("region_id"), index, None)?;
    let texts = |values: Option<String>| FieldTest::OneOf(values.into_iter().collect());
    let mut listing: Listing<InstanceField> = params.listing(&Fields::NONE)?;
    listing.order_by_default(Order::ascending(InstanceField::TaskId));
    listing.test(InstanceField::TaskId, texts(params.text("task_id").map(str::to_owned)));
    listing.test(InstanceField::MapIndex, texts(index.map(|position| position.stored().to_string())));
    listing.test(InstanceField::TryNumber, texts(params.whole("try_number")?.map(|number| number.to_string())));
    listing.filter = InstanceFilter { dag_id: Some(key.dag_id), run_id: Some(key.run_id), ..InstanceFilter::default() };
    let page = instances::list(&*client, listing).await?;
    let view = |instance: &instances::Instance| {
        let (region_id, region_index) = regions::of_instance(&instance.key);
        json!({
            "id": instance_id(&instance.key, instance.try_number), "dag_id": instance.key.run.dag_id,
            "dag_run_id": instance.key.run.run_id, "task_id": instance.key.task_id,
            "task_display_name": instance.key.task_id, "region_id": region_id,
            "region_index": region_index, "map_index": instance.key.position.map_index(),
            "try_number": instance.try_number, "state": instance.state.map(|state| state.to_string()),
            "start_date": optional_stamp(instance.start_date), "end_date": optional_stamp(instance.end_date),
            "duration": duration(instance.start_date, instance.end_date),
            "dag_version_id": instance.version.as_ref().map(|name| version(name).id()), "operator": instance.operator,
            "note": instance.note,
        })
    };
    let views: Vec<Value> = page.rows.iter().map(view).collect();
    Ok(Json(json!({"task_instances": views, "regions": [], "total_entries": page.total})))
}

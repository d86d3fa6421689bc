//! `/api/v2/pools`, with Airflow's names and shapes.

use crate::api::bulk::{self, Bulk, BulkResponse, Entities};
use crate::api::prelude::*;
use crate::http::changes::{Changes, is_in_mask};
use crate::http::query::UpdateMaskQuery;
use leoflow_engine::store::pools::{self, Pool, PoolField, PoolSettings};

const FIELDS: Fields<PoolField> = Fields {
    order: &[("id", PoolField::Name), ("pool", PoolField::Name), ("name", PoolField::Name)],
    patterns: &[("pool_name", PoolField::Name)],
    ..Fields::NONE
};

query! { pub PoolsQuery(FIELDS) }

view! {
    pub struct PoolResponse;
    fn response(pool: &Pool) {
        name: String = pool.name.clone(),
        #[schemars(range(min = -1))]
        slots: i32,
        description: Option<String> = pool.description.clone(),
        include_deferred: bool,
        occupied_slots: i64 = pool.occupied(),
        running_slots: i64 = pool.running,
        queued_slots: i64 = pool.queued,
        scheduled_slots: i64 = pool.scheduled,
        open_slots: i64 = pool.open(),
        deferred_slots: i64 = pool.deferred,
        team_name: Option<String> = None,
    }
}

collection! { PoolCollectionResponse { pools: PoolResponse } }

fn convert_error(name: &str) -> impl FnOnce(StoreError) -> ApiError {
    move |error| match error {
        StoreError::NotFound { .. } => ApiError::not_found(format!("The Pool with name: `{name}` was not found")),
        StoreError::Invalid(text) => ApiError::bad_request(text),
        other => other.into(),
    }
}

pub async fn list(Datastore(client): Datastore, params: QueryParams<PoolsQuery>) -> JsonResult<PoolCollectionResponse> {
    let listing = params.listing(&FIELDS)?;
    let page = pools::list(&*client, listing).await?;
    Ok(Json(page.map(|pool| response(&pool)).into()))
}

pub async fn get(Datastore(client): Datastore, Id(name): Id) -> JsonResult<PoolResponse> {
    Ok(Json(response(&pools::get(&*client, &name).await.map_err(convert_error(&name))?)))
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PoolBody {
    #[schemars(length(max = 256))]
    name: String,
    #[schemars(range(min = -1))]
    slots: i32,
    #[serde(default)]
    description: Option<String>,
    #[serde(default)]
    include_deferred: bool,
    #[serde(default, rename = "team_name")]
    #[schemars(length(max = 50))]
    _team_name: Option<String>,
}

impl PoolBody {
    fn settings(&self) -> PoolSettings<'_> {
        PoolSettings {
            name: &self.name,
            slots: self.slots,
            description: self.description.as_deref(),
            include_deferred: self.include_deferred,
        }
    }
}

fn check_slots(slots: i32) -> ApiResult<()> {
    if slots >= -1 {
        return Ok(());
    }
    Err(ApiError::unprocessable(
        &["body", "slots"],
        "greater_than_equal",
        "Input should be greater than or equal to -1",
    ))
}

pub async fn create(Datastore(client): Datastore, Body(body): Body<PoolBody>) -> ApiResult<Created<PoolResponse>> {
    check_slots(body.slots)?;
    pools::create(&*client, &body.settings()).await?;
    Ok(Created(response(&pools::get(&*client, &body.name).await?)))
}

#[derive(Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct PoolPatchBody {
    #[serde(alias = "name")]
    pool: Option<String>,
    #[schemars(range(min = -1))]
    slots: Option<i32>,
    description: Option<String>,
    include_deferred: Option<bool>,
    #[serde(rename = "team_name")]
    #[schemars(length(max = 50))]
    _team_name: Option<String>,
}

pub async fn patch(
    Datastore(client): Datastore,
    Id(name): Id,
    params: QueryParams<UpdateMaskQuery>,
    Body(body): Body<PoolPatchBody>,
) -> JsonResult<PoolResponse> {
    if body.pool.as_ref().is_some_and(|other| *other != name) {
        let detail = "Invalid body, pool name from request body doesn't match uri parameter";
        return Err(ApiError::bad_request(detail));
    }
    Ok(Json(response(&change(&*client, &name, body, &params.texts("update_mask")).await?)))
}

/// Applies the change; fields outside the body or the mask keep their values.
async fn change(client: &impl GenericClient, name: &str, body: PoolPatchBody, mask: &[String]) -> ApiResult<Pool> {
    let old = pools::get(client, name).await.map_err(convert_error(name))?;
    let slots = body.slots.filter(|_| is_in_mask(mask, "slots")).unwrap_or(old.slots);
    check_slots(slots)?;
    let description = body.description.filter(|_| is_in_mask(mask, "description")).or(old.description);
    let include_deferred =
        body.include_deferred.filter(|_| is_in_mask(mask, "include_deferred")).unwrap_or(old.include_deferred);
    let settings = PoolSettings { name, slots, description: description.as_deref(), include_deferred };
    pools::set(client, &settings).await?;
    Ok(pools::get(client, name).await?)
}

pub async fn delete(Datastore(client): Datastore, Id(name): Id) -> ApiResult<NoContent> {
    pools::delete(&*client, &name).await.map_err(convert_error(&name))?;
    Ok(NoContent)
}

struct Pools;

impl Entities for Pools {
    const PLURAL: &'static str = "pools";
    const NAME_FIELDS: &'static [&'static str] = &["name", "pool"];
    const OVERWRITE_RESETS: bool = false;

    async fn existing(&self, transaction: &Transaction<'_>, names: &[String]) -> ApiResult<Vec<String>> {
        let mut listing = Listing::default();
        listing.test(PoolField::Name, FieldTest::OneOf(names.to_vec()));
        let page = pools::list(transaction, listing).await?;
        Ok(page.rows.into_iter().map(|pool| pool.name).collect())
    }

    fn check(body: bulk::Body) -> ApiResult<()> {
        let slots = body.get("slots").cloned();
        match slots {
            Some(_) if body.contains_key("name") => check_slots(Changes::<PoolBody>::new(body, &[])?.values.slots),
            _ => check_slots(Changes::<PoolPatchBody>::new(body, &[])?.values.slots.unwrap_or(0)),
        }
    }

    async fn set(&self, transaction: &Transaction<'_>, body: bulk::Body) -> ApiResult<()> {
        let new: PoolBody = Changes::new(body, &[])?.values;
        check_slots(new.slots)?;
        Ok(pools::set(transaction, &new.settings()).await?)
    }

    async fn change(&self, transaction: &Transaction<'_>, body: bulk::Body, mask: &[String]) -> ApiResult<()> {
        let new: PoolPatchBody = Changes::new(body, &[])?.values;
        let name = new.pool.clone().unwrap_or_default();
        change(transaction, &name, new, mask).await.map(drop)
    }

    async fn remove(&self, transaction: &Transaction<'_>, name: &str) -> ApiResult<()> {
        pools::delete(transaction, name).await.map_err(convert_error(name))
    }
}

pub async fn bulk(State(state): Shared, Body(body): Body<Bulk<PoolBody>>) -> JsonResult<BulkResponse> {
    bulk::run(&state.core, &Pools, body).await
}

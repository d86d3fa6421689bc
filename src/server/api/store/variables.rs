//! `/api/v2/variables`, with Airflow's names and shapes.

use crate::api::bulk::{self, Bulk, BulkResponse, Entities};
use crate::api::prelude::*;
use crate::api::redact;
use crate::http::changes::Changes;
use leoflow_base::auth::cipher::Cipher;
use leoflow_engine::store::secret::variables::{self, Variable, VariableField};

/// Fields to order and filter by. Airflow's `id` is the order of creation.
const FIELDS: Fields<VariableField> = Fields {
    order: &[
        ("key", VariableField::Key),
        ("id", VariableField::CreatedAt),
        ("description", VariableField::Description),
        ("is_encrypted", VariableField::Key),
    ],
    patterns: &[("variable_key", VariableField::Key)],
    ..Fields::NONE
};

query! { pub VariablesQuery(FIELDS) }

view! {
    pub struct VariableResponse;
    fn response(variable: Variable) {
        key: String = variable.key.clone(),
        value: Option<String> = Some(redact::text(&variable.key, &variable.value)),
        description: Option<String>,
        is_encrypted: bool = true,
        team_name: Option<String> = None,
    }
}

collection! { VariableCollectionResponse { variables: VariableResponse } }

pub async fn list(State(state): Shared, params: QueryParams<VariablesQuery>) -> JsonResult<VariableCollectionResponse> {
    let listing = params.listing(&FIELDS)?;
    let client = state.core.database.get().await?;
    let page = variables::list(&*client, &state.core.cipher, listing).await?;
    Ok(Json(page.map(response).into()))
}

pub async fn get(State(state): Shared, Id(key): Id) -> JsonResult<VariableResponse> {
    let client = state.core.database.get().await?;
    Ok(Json(response(variables::get(&*client, &state.core.cipher, &key, ReadFor::Reading).await?)))
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct VariableBody {
    #[schemars(length(max = 250))]
    key: String,
    value: Value,
    #[serde(default)]
    description: Option<String>,
    /// Airflow's teams; ignored, since Lite has one user.
    #[serde(default, rename = "team_name")]
    #[schemars(length(max = 50))]
    _team_name: Option<String>,
}

impl VariableBody {
    fn into_variable(self) -> Variable {
        Variable { value: variables::as_text(&self.value), key: self.key, description: self.description }
    }
}

pub async fn create(State(state): Shared, Body(body): Body<VariableBody>) -> ApiResult<Created<VariableResponse>> {
    let variable = body.into_variable();
    let client = state.core.database.get().await?;
    variables::create(&*client, &state.core.cipher, &variable).await?;
    Ok(Created(response(variable)))
}

/// Changes the fields present in the body (limited to `update_mask` when given).
pub async fn patch(State(state): Shared, Id(key): Id, changes: Changes<VariableBody>) -> JsonResult<VariableResponse> {
    if changes.values.key != key {
        let detail = "Invalid body, key from request body doesn't match uri parameter";
        return Err(ApiError::bad_request(detail));
    }
    let mut client = state.core.database.get().await?;
    let transaction = client.transaction().await?;
    let variable = change(&transaction, &state.core.cipher, key, &changes).await?;
    transaction.commit().await?;
    Ok(Json(response(variable)))
}

/// Applies the changes; other fields keep their values.
async fn change(
    transaction: &Transaction<'_>,
    cipher: &Cipher,
    key: String,
    changes: &Changes<VariableBody>,
) -> ApiResult<Variable> {
    let new = &changes.values;
    let old = variables::get(transaction, cipher, &key, ReadFor::Update).await?;
    let new_value = redact::restore(&variables::as_text(&new.value), &old.value);
    let variable = Variable {
        value: changes.pick("value", new_value, old.value),
        description: changes.pick("description", new.description.clone(), old.description),
        key,
    };
    variables::set(transaction, cipher, &variable).await?;
    Ok(variable)
}

pub async fn delete(Datastore(client): Datastore, Id(key): Id) -> ApiResult<NoContent> {
    variables::delete(&*client, &key).await?;
    Ok(NoContent)
}

struct Variables<'a>(&'a Cipher);

impl Entities for Variables<'_> {
    const PLURAL: &'static str = "variables";
    const NAME_FIELDS: &'static [&'static str] = &["key"];
    const OVERWRITE_RESETS: bool = true;

    async fn existing(&self, transaction: &Transaction<'_>, names: &[String]) -> ApiResult<Vec<String>> {
        Ok(variables::existing(transaction, names).await?)
    }

    fn check(body: bulk::Body) -> ApiResult<()> {
        Changes::<VariableBody>::new(body, &[]).map(drop)
    }

    async fn set(&self, transaction: &Transaction<'_>, body: bulk::Body) -> ApiResult<()> {
        let new: VariableBody = Changes::new(body, &[])?.values;
        Ok(variables::set(transaction, self.0, &new.into_variable()).await?)
    }

    async fn change(&self, transaction: &Transaction<'_>, body: bulk::Body, mask: &[String]) -> ApiResult<()> {
        let changes = Changes::<VariableBody>::new(body, mask)?;
        change(transaction, self.0, changes.values.key.clone(), &changes).await.map(drop)
    }

    async fn remove(&self, transaction: &Transaction<'_>, name: &str) -> ApiResult<()> {
        Ok(variables::delete(transaction, name).await?)
    }
}

pub async fn bulk(State(state): Shared, Body(body): Body<Bulk<VariableBody>>) -> JsonResult<BulkResponse> {
    bulk::run(&state.core, &Variables(&state.core.cipher), body).await
}

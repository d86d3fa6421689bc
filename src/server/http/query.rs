//! Query parameters of operations, declared once for both request parsing and the OpenAPI document.

use super::api_error::ApiError;
use super::listing::Fields;
use super::openapi::operation::{Input, Operation, Schemas};
use super::request::Params;
use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use leoflow_engine::store::list::column::FieldType;
use leoflow_engine::store::list::field::ListField;
use serde_json::{Value, json};
use std::marker::PhantomData;
use std::ops::Deref;

/// The parameters of one operation, or of several with the same parameters.
pub trait Query {
    /// Sorting, filters and paging, for an operation that returns a list.
    const LIST: Option<&'static dyn ListParameters> = None;
    /// All other parameters.
    const OTHERS: &'static [Parameter] = &[];
}

/// Defines the query of one or several operations: `query! { pub Name(LIST) { PARAMETER, … } }`. The list and the
/// parameters may be omitted.
macro_rules! query {
    ($(#[$attribute:meta])* pub $name:ident $(($list:ident))? $({ $($parameter:expr),+ $(,)? })?) => {
        $(#[$attribute])*
        pub struct $name;

        impl $crate::http::query::Query for $name {
            $(const LIST: Option<&'static dyn $crate::http::query::ListParameters> = Some(&$list);)?
            $(const OTHERS: &'static [$crate::http::query::Parameter] = &[$($parameter),+];)?
        }
    };
}

pub(crate) use query;

/// The query of a request. In debug builds, reading a parameter that `Q` does not declare panics.
pub struct QueryParams<Q>(Params, PhantomData<fn() -> Q>);

impl<Q: Query> QueryParams<Q> {
    /// Refuses parameters of another operation that this one lacks, where ignoring a filter would change more than
    /// intended.
    pub fn refuse_params_of<R: Query>(&self) -> Result<(), ApiError> {
        let (own, others) = (declared_names::<Q>(), declared_names::<R>());
        let is_in = |names: &[String], name: &str| names.iter().any(|declared| declared == name);
        let Some(name) = self.names().find(|name| is_in(&others, name) && !is_in(&own, name)) else { return Ok(()) };
        let message = "This operation does not support this filter";
        Err(ApiError::unprocessable(&["query", name], "extra_forbidden", message))
    }
}

impl<Q> Deref for QueryParams<Q> {
    type Target = Params;

    fn deref(&self) -> &Params {
        &self.0
    }
}

impl<S: Send + Sync, Q: Query> FromRequestParts<S> for QueryParams<Q> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let params = Params::from_request_parts(parts, state).await?;
        let declared = if cfg!(debug_assertions) { declared_names::<Q>() } else { Vec::new() };
        Ok(Self(params.with_declared(declared), PhantomData))
    }
}

impl<Q: Query> Input for QueryParams<Q> {
    fn describe(operation: &mut Operation, _: &mut Schemas) {
        operation.parameters.extend(declared_parameters::<Q>().into_iter().map(Described::value));
    }
}

fn declared_names<Q: Query>() -> Vec<String> {
    declared_parameters::<Q>().into_iter().map(|parameter| parameter.name).collect()
}

fn declared_parameters<Q: Query>() -> Vec<Described> {
    let mut all: Vec<Described> = Q::LIST.map(|list| list.described()).unwrap_or_default();
    all.extend(Q::OTHERS.iter().map(Parameter::described));
    all
}

/// A query parameter or header.
#[derive(Clone, Copy)]
pub struct Parameter {
    name: &'static str,
    kind: Kind,
    /// The default value as JSON.
    default: Option<&'static str>,
    is_required: bool,
    /// True for a header instead of a query parameter.
    is_header: bool,
}

query! {
    /// Parameters of a PATCH with only `update_mask`.
    pub UpdateMaskQuery {
        UPDATE_MASK,
    }
}

/// Names of the body fields to apply.
pub const UPDATE_MASK: Parameter = Parameter::new("update_mask", Kind::Texts);

/// The type of a parameter.
#[derive(Clone, Copy)]
pub enum Kind {
    Text,
    /// An integer.
    Whole,
    Number,
    Flag,
    Time,
    Date,
    /// A map index, at least -1.
    MapIndex,
    Uuid,
    /// An integer of at least zero.
    Count,
    /// An integer greater than zero.
    Positive,
    /// An integer greater than zero and at most this.
    UpTo(i64),
    /// A number of seconds, greater than zero.
    Seconds,
    OneOf(&'static [&'static str]),
    /// A list of texts.
    Texts,
    /// A list of integers.
    Wholes,
}

impl Parameter {
    pub const fn new(name: &'static str, kind: Kind) -> Self {
        Self { name, kind, default: None, is_required: false, is_header: false }
    }

    /// Sets the default, as JSON.
    pub const fn or(self, default: &'static str) -> Self {
        Self { default: Some(default), ..self }
    }

    pub const fn required(self) -> Self {
        Self { is_required: true, ..self }
    }

    pub const fn header(name: &'static str) -> Self {
        Self { is_header: true, ..Self::new(name, Kind::Text) }
    }

    /// Returns the parameter as in the document.
    pub fn value(&self) -> Value {
        self.described().value()
    }

    fn described(&self) -> Described {
        let mut schema = self.kind.schema();
        if let Some(default) = self.default {
            schema["default"] = serde_json::from_str(default).unwrap_or_default();
        }
        Described { name: self.name.to_owned(), schema, is_required: self.is_required, is_header: self.is_header }
    }
}

impl Kind {
    fn schema(self) -> Value {
        match self {
            Self::Text => json!({"type": "string"}),
            Self::Whole => json!({"type": "integer"}),
            Self::Number => json!({"type": "number"}),
            Self::Flag => json!({"type": "boolean"}),
            Self::Time => json!({"type": "string", "format": "date-time"}),
            Self::Date => json!({"type": "string", "format": "date"}),
            Self::MapIndex => json!({"type": "integer", "minimum": -1}),
            Self::Count => json!({"type": "integer", "minimum": 0}),
            Self::Positive => json!({"type": "integer", "minimum": 1}),
            Self::UpTo(most) => json!({"type": "integer", "minimum": 1, "maximum": most}),
            Self::Uuid => json!({"type": "string", "format": "uuid"}),
            Self::Seconds => json!({"type": "number", "exclusiveMinimum": 0}),
            Self::OneOf(values) => json!({"type": "string", "enum": values}),
            Self::Texts => json!({"type": "array", "items": {"type": "string"}}),
            Self::Wholes => json!({"type": "array", "items": {"type": "integer"}}),
        }
    }

    fn of_field(field: impl ListField) -> Self {
        match field.field_type() {
            FieldType::Time => Self::Time,
            FieldType::Whole => Self::Whole,
            FieldType::Number => Self::Number,
            FieldType::Text => Self::Text,
        }
    }
}

/// A parameter as the OpenAPI document describes it.
pub struct Described {
    name: String,
    schema: Value,
    is_required: bool,
    is_header: bool,
}

impl Described {
    fn new(name: impl Into<String>, schema: Value) -> Self {
        Self { name: name.into(), schema, is_required: false, is_header: false }
    }

    fn value(self) -> Value {
        let location = if self.is_header { "header" } else { "query" };
        json!({"name": self.name, "in": location, "required": self.is_required, "schema": self.schema})
    }
}

/// The parameters of a list: sorting, filters and paging.
pub trait ListParameters {
    fn described(&self) -> Vec<Described>;
}

/// A list with `limit` and `offset` only.
pub struct Paging;

impl ListParameters for Paging {
    fn described(&self) -> Vec<Described> {
        let at_least_0 = |default: i64| json!({"type": "integer", "minimum": 0, "default": default});
        vec![Described::new("limit", at_least_0(50)), Described::new("offset", at_least_0(0))]
    }
}

impl<F: ListField> ListParameters for Fields<F> {
    fn described(&self) -> Vec<Described> {
        let mut parameters = Paging.described();
        if self.has_cursor {
            parameters.push(Described::new("cursor", Kind::Text.schema()));
        }
        if !self.order.is_empty() {
            parameters.push(order_by(self.default_order));
        }
        let mut add = |name: String, kind: Kind| parameters.push(Described::new(name, kind.schema()));
        for (name, _) in self.patterns {
            add(format!("{name}_pattern"), Kind::Text);
            add(format!("{name}_prefix_pattern"), Kind::Text);
        }
        for (name, field) in self.ranges {
            for bound in ["gte", "gt", "lte", "lt"] {
                add(format!("{name}_{bound}"), Kind::of_field(*field));
            }
        }
        for (name, field) in self.one_of {
            let is_whole = field.field_type() == FieldType::Whole;
            add((*name).to_owned(), if is_whole { Kind::Wholes } else { Kind::Texts });
        }
        for (name, field) in self.exact {
            add((*name).to_owned(), Kind::of_field(*field));
        }
        parameters
    }
}

fn order_by(default_order: &[&str]) -> Described {
    let mut schema = Kind::Texts.schema();
    schema["default"] = default_order.into();
    Described::new("order_by", schema)
}

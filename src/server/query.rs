//! What an operation may be asked for in its query, told once: for who reads the request, and for who reads the API's
//! description.

use super::api_error::ApiError;
use super::listing::Fields;
use super::openapi::operation::{Input, Operation, Schemas};
use super::request::Params;
use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use serde_json::{Value, json};
use std::marker::PhantomData;
use std::ops::Deref;

/// The parameters of one operation, or of several that are asked alike.
pub trait Query {
    /// Those of a list.
    const LIST: Option<&'static Fields> = None;
    const OTHERS: &'static [Parameter] = &[];
}

/// What a query has of them.
pub struct Asked<Q>(Params, PhantomData<fn() -> Q>);

impl<Q> Asked<Q> {
    /// For a handler that reads the same of another operation.
    pub fn cast<R>(self) -> Asked<R> {
        Asked(self.0, PhantomData)
    }
}

impl<Q: Query> Asked<Q> {
    /// What another operation can be asked and this one cannot is refused, where to ignore it would be to do more.
    pub fn refuse_those_of<R: Query>(&self) -> Result<(), ApiError> {
        let (own, others) = (names::<Q>(), names::<R>());
        match self.names().find(|name| others.iter().any(|one| one == name) && !own.iter().any(|one| one == name)) {
            Some(name) => {
                let message = "This parameter does not narrow what is changed here";
                Err(ApiError::unprocessable(&["query", name], "extra_forbidden", message))
            }
            None => Ok(()),
        }
    }
}

impl<Q> Deref for Asked<Q> {
    type Target = Params;

    fn deref(&self) -> &Params {
        &self.0
    }
}

impl<S: Send + Sync, Q: Query> FromRequestParts<S> for Asked<Q> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let params = Params::from_request_parts(parts, state).await?;
        let known = if cfg!(debug_assertions) { names::<Q>() } else { Vec::new() };
        Ok(Self(params.knowing(known), PhantomData))
    }
}

impl<Q: Query> Input for Asked<Q> {
    fn describe(operation: &mut Operation, _: &mut Schemas) {
        operation.parameters.extend(all::<Q>().into_iter().map(Described::value));
    }
}

fn names<Q: Query>() -> Vec<String> {
    all::<Q>().into_iter().map(|one| one.name).collect()
}

fn all<Q: Query>() -> Vec<Described> {
    let mut all: Vec<Described> = Q::LIST.map(of_list).unwrap_or_default();
    all.extend(Q::OTHERS.iter().map(Parameter::described));
    all
}

/// One of an operation.
#[derive(Clone, Copy)]
pub struct Parameter {
    name: &'static str,
    kind: Kind,
    /// JSON.
    default: Option<&'static str>,
    is_required: bool,
    /// It is a header, and no part of the query.
    is_header: bool,
}

/// Of what is changed with a mask, and asked nothing else.
pub struct WithMask;

impl Query for WithMask {
    const OTHERS: &'static [Parameter] = &[UPDATE_MASK];
}

/// Which fields of a body count.
pub const UPDATE_MASK: Parameter = Parameter::new("update_mask", Kind::Texts);

#[derive(Clone, Copy)]
pub enum Kind {
    Text,
    Whole,
    Number,
    Flag,
    Time,
    Date,
    /// A map index, which is not below -1.
    MapIndex,
    /// Above zero.
    Seconds,
    OneOf(&'static [&'static str]),
    Texts,
    Wholes,
}

impl Parameter {
    pub const fn new(name: &'static str, kind: Kind) -> Self {
        Self { name, kind, default: None, is_required: false, is_header: false }
    }

    /// What it is where nobody says, as JSON.
    pub const fn or(self, default: &'static str) -> Self {
        Self { default: Some(default), ..self }
    }

    pub const fn required(self) -> Self {
        Self { is_required: true, ..self }
    }

    pub const fn header(name: &'static str) -> Self {
        Self { is_header: true, ..Self::new(name, Kind::Text) }
    }

    /// As the description has it.
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
            Self::Seconds => json!({"type": "number", "exclusiveMinimum": 0}),
            Self::OneOf(words) => json!({"type": "string", "enum": words}),
            Self::Texts => json!({"type": "array", "items": {"type": "string"}}),
            Self::Wholes => json!({"type": "array", "items": {"type": "integer"}}),
        }
    }

    /// Of a column that is compared.
    fn of(kind: &str) -> Self {
        match kind {
            "timestamptz" => Self::Time,
            "bigint" => Self::Whole,
            "float8" => Self::Number,
            _ => Self::Text,
        }
    }
}

struct Described {
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
        let place = if self.is_header { "header" } else { "query" };
        json!({"name": self.name, "in": place, "required": self.is_required, "schema": self.schema})
    }
}

fn of_list(fields: &Fields) -> Vec<Described> {
    let at_least_0 = |default: i64| json!({"type": "integer", "minimum": 0, "default": default});
    let mut all = vec![Described::new("limit", at_least_0(50)), Described::new("offset", at_least_0(0))];
    if fields.has_cursor {
        all.push(Described::new("cursor", Kind::Text.schema()));
    }
    if !fields.order.is_empty() {
        let mut schema = Kind::Texts.schema();
        schema["default"] = fields.usual.into();
        all.push(Described::new("order_by", schema));
    }
    for (name, _) in fields.patterns {
        all.push(Described::new(format!("{name}_pattern"), Kind::Text.schema()));
        all.push(Described::new(format!("{name}_prefix_pattern"), Kind::Text.schema()));
    }
    for (name, column) in fields.ranges {
        let bounds = ["gte", "gt", "lte", "lt"].map(|bound| format!("{name}_{bound}"));
        all.extend(bounds.map(|name| Described::new(name, Kind::of(column.kind).schema())));
    }
    for (name, column) in fields.one_of {
        let kind = if column.kind == "bigint" { Kind::Wholes } else { Kind::Texts };
        all.push(Described::new(*name, kind.schema()));
    }
    for (name, column) in fields.exact {
        all.push(Described::new(*name, Kind::of(column.kind).schema()));
    }
    all
}

//! Reading requests as FastAPI would, with its answers to what is wrong with them.

use super::api_error::ApiError;
use super::openapi::operation::{Input, Operation, Schemas};
use axum::extract::{FromRequestParts, Path, Query};
use axum::http::request::Parts;
use jiff::Timestamp;
use jiff::civil::Date;
use schemars::{JsonSchema, Schema};
use serde::de::DeserializeOwned;
use serde_json::json;

/// The rest of the path, percent-decoded.
pub struct Id(pub String);

impl<S: Send + Sync> FromRequestParts<S> for Id {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let path = Path::<String>::from_request_parts(parts, state).await;
        path.map(|Path(id)| Self(id))
            .map_err(|error| ApiError::unprocessable(&["path"], "value_error", error.body_text()))
    }
}

/// The parts of the path that have names, percent-decoded.
pub struct Segments<T>(pub T);

impl<S: Send + Sync, T: DeserializeOwned + Send> FromRequestParts<S> for Segments<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let path = Path::<T>::from_request_parts(parts, state).await;
        path.map(|Path(parts)| Self(parts))
            .map_err(|error| ApiError::unprocessable(&["path"], "value_error", error.body_text()))
    }
}

impl Input for Id {
    fn describe(operation: &mut Operation, _: &mut Schemas) {
        operation.path_part(json!({"type": "string"}));
    }
}

impl<T: PathParts> Input for Segments<T> {
    fn describe(operation: &mut Operation, schemas: &mut Schemas) {
        for schema in T::schemas(schemas) {
            operation.path_part(schema);
        }
    }
}

/// The types of the parts of a path that have names, in their order.
pub trait PathParts {
    fn schemas(schemas: &mut Schemas) -> Vec<Schema>;
}

macro_rules! path_parts {
    ($($alone:ty)*; $(($($part:ident)+))*) => {
        $(impl PathParts for $alone {
            fn schemas(schemas: &mut Schemas) -> Vec<Schema> {
                vec![schemas.taken.subschema_for::<Self>()]
            }
        })*
        $(impl<$($part: JsonSchema),+> PathParts for ($($part,)+) {
            fn schemas(schemas: &mut Schemas) -> Vec<Schema> {
                vec![$(schemas.taken.subschema_for::<$part>()),+]
            }
        })*
    };
}

path_parts! { String i64 u32 u64; (A B) (A B C) (A B C D) (A B C D E) }

/// The query; a name may come more than once.
pub struct Params {
    pairs: Vec<(String, String)>,
    place: Place,
    /// The names that may be asked for, where that is checked.
    known: Vec<String>,
}

/// Where it stands, for what is said of it.
type Place = &'static str;

pub const BODY: Place = "body";

impl<S: Send + Sync> FromRequestParts<S> for Params {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        let query = Query::<Vec<(String, String)>>::try_from_uri(&parts.uri);
        query
            .map(|Query(pairs)| Self { pairs, place: "query", known: Vec::new() })
            .map_err(|error| ApiError::unprocessable(&["query"], "value_error", error.body_text()))
    }
}

impl Params {
    /// What a body has, under other names.
    pub fn in_body(pairs: Vec<(String, String)>) -> Self {
        Self { pairs, place: BODY, known: Vec::new() }
    }

    /// From now on only these names may be asked for: a handler that reads another has not told of it.
    pub fn knowing(self, known: Vec<String>) -> Self {
        Self { known, ..self }
    }

    /// Where it stands: `query` or `body`.
    pub fn place(&self) -> &'static str {
        self.place
    }

    /// All that were said.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.pairs.iter().map(|(name, _)| name.as_str())
    }

    pub fn all(&self, name: &str) -> impl Iterator<Item = &str> {
        let is_known = self.known.is_empty() || self.known.iter().any(|known| known == name);
        debug_assert!(
            is_known,
            "the parameter {name} is read, and is not among those that the operation is said to have"
        );
        self.pairs.iter().filter(move |(found, _)| found == name).map(|(_, value)| value.as_str())
    }

    pub fn number(&self, name: &str, default: i64) -> Result<i64, ApiError> {
        match self.whole(name)? {
            None => Ok(default),
            Some(number @ 0..) => Ok(number),
            Some(_) => {
                let message = "Input should be greater than or equal to 0";
                Err(ApiError::unprocessable(&[self.place, name], "greater_than_equal", message))
            }
        }
    }

    /// A whole number, also below zero.
    pub fn whole(&self, name: &str) -> Result<Option<i64>, ApiError> {
        let Some(text) = self.text(name) else { return Ok(None) };
        text.parse().map(Some).map_err(|_| {
            let message = "Input should be a valid integer, unable to parse string as an integer";
            ApiError::unprocessable(&[self.place, name], "int_parsing", message)
        })
    }

    /// Of a task instance; -1 is one that is not mapped.
    pub fn map_index(&self) -> Result<Option<i32>, ApiError> {
        match self.whole("map_index")? {
            None => Ok(None),
            Some(index @ -1..) => Ok(Some(i32::try_from(index).unwrap_or(i32::MAX))),
            Some(_) => {
                let message = "Input should be greater than or equal to -1";
                Err(ApiError::unprocessable(&[self.place, "map_index"], "greater_than_equal", message))
            }
        }
    }

    pub fn fraction(&self, name: &str) -> Result<Option<f64>, ApiError> {
        let Some(text) = self.text(name) else { return Ok(None) };
        text.parse().map(Some).map_err(|_| {
            let message = "Input should be a valid number, unable to parse string as a number";
            ApiError::unprocessable(&[self.place, name], "float_parsing", message)
        })
    }

    /// A moment, as RFC 3339 has it.
    pub fn time(&self, name: &str) -> Result<Option<Timestamp>, ApiError> {
        let read = |text: &str| {
            let invalid = |error: jiff::Error| {
                ApiError::unprocessable(&[self.place, name], "datetime_parsing", error.to_string())
            };
            text.parse().map_err(invalid)
        };
        self.text(name).map(read).transpose()
    }

    /// A day: `2026-01-31`.
    pub fn date(&self, name: &str) -> Result<Option<Date>, ApiError> {
        let read = |text: &str| {
            let invalid =
                |error: jiff::Error| ApiError::unprocessable(&[self.place, name], "date_parsing", error.to_string());
            text.parse().map_err(invalid)
        };
        self.text(name).map(read).transpose()
    }

    /// The same with another word in the place of one.
    pub fn replaced(&self, name: &str, before: &str, after: &str) -> Self {
        let word = |(found, value): &(String, String)| {
            let value = if found == name && value == before { after } else { value };
            (found.clone(), value.to_owned())
        };
        Self { pairs: self.pairs.iter().map(word).collect(), place: self.place, known: self.known.clone() }
    }

    pub fn text(&self, name: &str) -> Option<&str> {
        self.all(name).last()
    }

    pub fn texts(&self, name: &str) -> Vec<String> {
        self.all(name).map(str::to_owned).collect()
    }

    /// The words that FastAPI takes for yes and no.
    pub fn flag(&self, name: &str) -> Result<Option<bool>, ApiError> {
        match self.text(name).map(str::to_ascii_lowercase).as_deref() {
            None => Ok(None),
            Some("true" | "1" | "yes" | "on" | "t" | "y") => Ok(Some(true)),
            Some("false" | "0" | "no" | "off" | "f" | "n") => Ok(Some(false)),
            Some(_) => {
                let message = "Input should be a valid boolean, unable to interpret input";
                Err(ApiError::unprocessable(&[self.place, name], "bool_parsing", message))
            }
        }
    }
}

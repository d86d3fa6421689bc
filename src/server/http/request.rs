//! Parses requests as FastAPI does, with FastAPI's errors.

use super::api_error::{ApiError, ApiResult};
use super::openapi::operation::{Input, Operation, Schemas};
use axum::extract::{FromRequestParts, Path, Query};
use axum::http::Uri;
use axum::http::request::Parts;
use jiff::Timestamp;
use jiff::civil::Date;
use leoflow_engine::model::keys::{MAX_ITERATIONS, Position};
use schemars::{JsonSchema, Schema};
use serde::de::DeserializeOwned;
use serde_json::json;
use std::str::FromStr;

/// The only path parameter, percent-decoded; it may span several segments.
pub struct Id(pub String);

impl<S: Send + Sync> FromRequestParts<S> for Id {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        Segments::from_request_parts(parts, state).await.map(|Segments(id)| Self(id))
    }
}

/// All path parameters, percent-decoded.
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
        operation.add_path_parameter(json!({"type": "string"}));
    }
}

impl<T: PathParts> Input for Segments<T> {
    fn describe(operation: &mut Operation, schemas: &mut Schemas) {
        for schema in T::schemas(schemas) {
            operation.add_path_parameter(schema);
        }
    }
}

/// The types of path parameters, in order.
pub trait PathParts {
    fn schemas(schemas: &mut Schemas) -> Vec<Schema>;
}

macro_rules! path_parts {
    ($($single:ty)*; $(($($part:ident)+))*) => {
        $(impl PathParts for $single {
            fn schemas(schemas: &mut Schemas) -> Vec<Schema> {
                vec![schemas.requests.subschema_for::<Self>()]
            }
        })*
        $(impl<$($part: JsonSchema),+> PathParts for ($($part,)+) {
            fn schemas(schemas: &mut Schemas) -> Vec<Schema> {
                vec![$(schemas.requests.subschema_for::<$part>()),+]
            }
        })*
    };
}

path_parts! { String i64 u32 u64; (A B) (A B C) (A B C D) (A B C D E) }

/// Parameters of a query or body; a name may occur several times.
pub struct Params {
    pairs: Vec<(String, String)>,
    location: Location,
    /// The names that the operation declares; empty when reads are not checked.
    declared: Vec<String>,
}

/// Where parameters come from, `query` or `body`, for error messages.
type Location = &'static str;

pub const BODY: Location = "body";

impl<S: Send + Sync> FromRequestParts<S> for Params {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        Self::from_query(&parts.uri)
    }
}

impl Params {
    /// Takes the parameters of an address.
    pub fn from_query(uri: &Uri) -> ApiResult<Self> {
        Query::<Vec<(String, String)>>::try_from_uri(uri)
            .map(|Query(pairs)| Self { pairs, location: "query", declared: Vec::new() })
            .map_err(|error| ApiError::unprocessable(&["query"], "value_error", error.body_text()))
    }

    /// Takes parameters from a body, with their query names.
    pub fn from_body_pairs(pairs: Vec<(String, String)>) -> Self {
        Self { pairs, location: BODY, declared: Vec::new() }
    }

    /// Declares the allowed names: reading another one panics in debug builds.
    pub fn with_declared(self, declared: Vec<String>) -> Self {
        Self { declared, ..self }
    }

    /// Returns `query` or `body`.
    pub fn location(&self) -> &'static str {
        self.location
    }

    /// Returns all given names.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.pairs().map(|(name, _)| name)
    }

    /// Returns all names and values, in their order.
    pub fn pairs(&self) -> impl Iterator<Item = (&str, &str)> {
        self.pairs.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }

    /// Returns all values of a parameter.
    pub fn all(&self, name: &str) -> impl Iterator<Item = &str> {
        let is_declared = self.declared.is_empty() || self.declared.iter().any(|declared| declared == name);
        debug_assert!(is_declared, "the parameter {name} is read but not declared for this operation");
        self.pairs.iter().filter(move |(other, _)| other == name).map(|(_, value)| value.as_str())
    }

    /// Parses the last value of a parameter; `message` explains to the client why it is invalid.
    fn parse<T: FromStr>(
        &self,
        name: &str,
        kind: &str,
        message: impl FnOnce(T::Err) -> String,
    ) -> ApiResult<Option<T>> {
        let invalid = |error| ApiError::unprocessable(&[self.location, name], kind, message(error));
        self.text(name).map(str::parse).transpose().map_err(invalid)
    }

    /// Parses an integer that must not be less than `min`.
    fn at_least(&self, min: i64, name: &str) -> ApiResult<Option<i64>> {
        let number = self.whole(name)?;
        if number.is_some_and(|number| number < min) {
            let message = format!("Input should be greater than or equal to {min}");
            return Err(ApiError::unprocessable(&[self.location, name], "greater_than_equal", message));
        }
        Ok(number)
    }

    /// Parses an integer that must not be negative.
    pub fn number(&self, name: &str, default: i64) -> ApiResult<i64> {
        Ok(self.at_least(0, name)?.unwrap_or(default))
    }

    /// Parses an integer, which may be negative.
    pub fn whole(&self, name: &str) -> ApiResult<Option<i64>> {
        self.integer(name)
    }

    /// Parses an integer of a type.
    pub fn integer<T: FromStr>(&self, name: &str) -> ApiResult<Option<T>> {
        let message = "Input should be a valid integer, unable to parse string as an integer";
        self.parse(name, "int_parsing", |_| message.to_owned())
    }

    /// Parses an integer greater than zero that must be given.
    pub fn required_number(&self, name: &str) -> ApiResult<i32> {
        let number = self.at_least(1, name)?;
        let missing = || ApiError::unprocessable(&[self.location, name], "missing", "Field required");
        number.map(|number| i32::try_from(number).unwrap_or(i32::MAX)).ok_or_else(missing)
    }

    /// Parses `map_index`; -1 means not mapped. In place of a region in a loop, it is the stored position.
    pub fn position(&self) -> ApiResult<Option<Position>> {
        let stored = self.integer("map_index")?.map(Position::from_stored);
        if let Some(position) = stored.filter(|position| position.iteration().is_some_and(|it| it < MAX_ITERATIONS)) {
            return Ok(Some(position));
        }
        let index = self.at_least(-1, "map_index")?;
        Ok(index.map(|index| Position::mapped(i32::try_from(index).unwrap_or(i32::MAX))))
    }

    pub fn fraction(&self, name: &str) -> ApiResult<Option<f64>> {
        let message = "Input should be a valid number, unable to parse string as a number";
        self.parse(name, "float_parsing", |_| message.to_owned())
    }

    /// Parses an RFC 3339 time.
    pub fn time(&self, name: &str) -> ApiResult<Option<Timestamp>> {
        self.parse(name, "datetime_parsing", |error: jiff::Error| error.to_string())
    }

    /// Parses a date such as `2026-01-31`.
    pub fn date(&self, name: &str) -> ApiResult<Option<Date>> {
        self.parse(name, "date_parsing", |error: jiff::Error| error.to_string())
    }

    /// Returns a copy in which a parameter's value `old` is replaced by `new`.
    pub fn with_value_replaced(&self, name: &str, old: &str, new: &str) -> Self {
        let replace = |(other, value): &(String, String)| {
            let value = if other == name && value == old { new } else { value };
            (other.clone(), value.to_owned())
        };
        Self {
            pairs: self.pairs.iter().map(replace).collect(),
            location: self.location,
            declared: self.declared.clone(),
        }
    }

    /// Returns the last value of a parameter.
    pub fn text(&self, name: &str) -> Option<&str> {
        self.all(name).last()
    }

    pub fn texts(&self, name: &str) -> Vec<String> {
        self.all(name).map(str::to_owned).collect()
    }

    /// Parses a boolean as FastAPI does.
    pub fn flag(&self, name: &str) -> ApiResult<Option<bool>> {
        match self.text(name).map(str::to_ascii_lowercase).as_deref() {
            None => Ok(None),
            Some("true" | "1" | "yes" | "on" | "t" | "y") => Ok(Some(true)),
            Some("false" | "0" | "no" | "off" | "f" | "n") => Ok(Some(false)),
            Some(_) => {
                let message = "Input should be a valid boolean, unable to interpret input";
                Err(ApiError::unprocessable(&[self.location, name], "bool_parsing", message))
            }
        }
    }
}

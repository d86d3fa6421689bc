//! Describes an operation by the types of its handler.

use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::Redirect;
use axum::{Extension, Json};
use schemars::generate::SchemaSettings;
use schemars::transform::ReplaceBoolSchemas;
use schemars::{JsonSchema, SchemaGenerator};
use serde_json::{Map, Value, json};
use std::collections::VecDeque;

pub const JSON: &str = "application/json";

/// Schemas referenced by operations. A type may differ between request and response: a field optional in a body is
/// always present in a response.
pub struct Schemas {
    pub requests: SchemaGenerator,
    pub responses: SchemaGenerator,
}

impl Schemas {
    pub fn new() -> Self {
        let settings = || {
            let settings = SchemaSettings::draft2020_12();
            let settings = settings.with(|settings| settings.definitions_path = "/components/schemas".into());
            // Some clients do not support the schema `true`.
            let mut objects = ReplaceBoolSchemas::default();
            objects.skip_additional_properties = true;
            settings.with_transform(objects)
        };
        Self {
            requests: settings().for_deserialize().into_generator(),
            responses: settings().for_serialize().into_generator(),
        }
    }

    /// Returns all referenced schemas.
    pub fn into_all(mut self) -> Map<String, Value> {
        let mut all = self.requests.take_definitions(true);
        all.extend(self.responses.take_definitions(true));
        all
    }
}

/// An operation being described.
pub struct Operation {
    /// Names of path parameters that have no type yet.
    pub untyped_parts: VecDeque<String>,
    pub parameters: Vec<Value>,
    pub body: Option<Value>,
    /// The status of the successful response, and its content by media type.
    pub success: (u16, Map<String, Value>),
}

/// Whether a request must have a body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Presence {
    Required,
    Optional,
}

impl Operation {
    /// Starts the description of an operation; `path` is as in the document, such as `/pools/{pool_name}`.
    pub fn for_path(path: &str) -> Self {
        let named = path.split('/').filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'));
        let untyped_parts = named.map(str::to_owned).collect();
        Self { untyped_parts, parameters: Vec::new(), body: None, success: (200, Map::new()) }
    }

    /// Assigns a type to the next path parameter.
    pub fn add_path_parameter(&mut self, schema: impl Into<Value>) {
        if let Some(name) = self.untyped_parts.pop_front() {
            self.parameters.push(json!({"name": name, "in": "path", "required": true, "schema": schema.into()}));
        }
    }

    /// Describes the request body.
    pub fn set_body<T: JsonSchema>(&mut self, schemas: &mut Schemas, presence: Presence) {
        let schema = schemas.requests.subschema_for::<T>();
        self.body = Some(json!({"required": presence == Presence::Required, "content": {JSON: {"schema": schema}}}));
    }

    /// Describes the successful response.
    pub fn set_answer<T: JsonSchema>(&mut self, schemas: &mut Schemas, status: u16) {
        let schema = schemas.responses.subschema_for::<T>();
        self.success.0 = status;
        self.success.1.insert(JSON.to_owned(), json!({"schema": schema}));
    }

    /// Adds a media type other than JSON to the successful response.
    pub fn add_text_answer(&mut self, media_type: &str) {
        self.success.1.insert(media_type.to_owned(), json!({"schema": {"type": "string"}}));
    }
}

/// A handler argument.
pub trait Input {
    /// Does nothing by default, for arguments that the document does not describe, such as state and headers.
    fn describe(_: &mut Operation, _: &mut Schemas) {}
}

/// A handler's return type.
pub trait Output {
    fn describe(operation: &mut Operation, schemas: &mut Schemas);
}

/// A handler whose argument and return types describe themselves.
pub trait Described<Arguments> {
    fn describe(operation: &mut Operation, schemas: &mut Schemas);
}

macro_rules! handlers {
    ($(($($argument:ident)*))*) => {
        $(impl<F, Answer, $($argument: Input,)*> Described<($($argument,)*)> for F
        where
            F: FnOnce($($argument),*) -> Answer,
            Answer: Future<Output: Output>,
        {
            fn describe(operation: &mut Operation, schemas: &mut Schemas) {
                $($argument::describe(operation, schemas);)*
                <Answer::Output as Output>::describe(operation, schemas);
            }
        })*
    };
}

handlers! { () (A) (A B) (A B C) (A B C D) (A B C D E) }

impl<S> Input for State<S> {}
impl<T> Input for Extension<T> {}
impl Input for HeaderMap {}

impl<T: JsonSchema> Output for Json<T> {
    fn describe(operation: &mut Operation, schemas: &mut Schemas) {
        operation.set_answer::<T>(schemas, 200);
    }
}

/// Described as FastAPI describes a handler that always redirects.
impl Output for Redirect {
    fn describe(operation: &mut Operation, schemas: &mut Schemas) {
        operation.set_answer::<Value>(schemas, 200);
    }
}

/// An answer with further headers, which the document leaves out.
impl<H, T: Output> Output for (H, T) {
    fn describe(operation: &mut Operation, schemas: &mut Schemas) {
        T::describe(operation, schemas);
    }
}

impl<T: Output, E> Output for Result<T, E> {
    fn describe(operation: &mut Operation, schemas: &mut Schemas) {
        T::describe(operation, schemas);
    }
}

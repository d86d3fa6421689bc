//! What the types of a handler say of its operation.

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

/// The schemas that operations name. What a type takes is not always what it gives: a field that may be left out of a
/// body is always there in an answer.
pub struct Schemas {
    pub taken: SchemaGenerator,
    pub given: SchemaGenerator,
}

impl Schemas {
    pub fn new() -> Self {
        let settings = || {
            let settings = SchemaSettings::draft2020_12();
            let settings = settings.with(|settings| settings.definitions_path = "/components/schemas".into());
            // Some clients know no schema that is `true`.
            let mut objects = ReplaceBoolSchemas::default();
            objects.skip_additional_properties = true;
            settings.with_transform(objects)
        };
        Self {
            taken: settings().for_deserialize().into_generator(),
            given: settings().for_serialize().into_generator(),
        }
    }

    /// All that were named.
    pub fn into_all(mut self) -> Map<String, Value> {
        let mut all = self.taken.take_definitions(true);
        all.extend(self.given.take_definitions(true));
        all
    }
}

/// One that is being described.
pub struct Operation {
    /// Of the path's parts that have names, those whose type nobody has told yet.
    pub unnamed_parts: VecDeque<String>,
    pub parameters: Vec<Value>,
    pub body: Option<Value>,
    /// The status of success, and what is answered then by its media type.
    pub success: (u16, Map<String, Value>),
}

impl Operation {
    /// `path` as the description has it: `/pools/{pool_name}`.
    pub fn of(path: &str) -> Self {
        let named = path.split('/').filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'));
        let unnamed_parts = named.map(str::to_owned).collect();
        Self { unnamed_parts, parameters: Vec::new(), body: None, success: (200, Map::new()) }
    }

    /// The next part of the path that has a name is of that type.
    pub fn path_part(&mut self, schema: impl Into<Value>) {
        if let Some(name) = self.unnamed_parts.pop_front() {
            self.parameters.push(json!({"name": name, "in": "path", "required": true, "schema": schema.into()}));
        }
    }

    pub fn takes<T: JsonSchema>(&mut self, schemas: &mut Schemas, is_required: bool) {
        let schema = schemas.taken.subschema_for::<T>();
        self.body = Some(json!({"required": is_required, "content": {JSON: {"schema": schema}}}));
    }

    pub fn answers<T: JsonSchema>(&mut self, schemas: &mut Schemas, status: u16) {
        let schema = schemas.given.subschema_for::<T>();
        self.success.0 = status;
        self.success.1.insert(JSON.to_owned(), json!({"schema": schema}));
    }

    pub fn may_answer_text(&mut self, media_type: &str) {
        self.success.1.insert(media_type.to_owned(), json!({"schema": {"type": "string"}}));
    }
}

/// What a handler takes of a request.
pub trait Input {
    /// Nothing, where it is no part of what a client sends by this description.
    fn describe(_: &mut Operation, _: &mut Schemas) {}
}

/// What it answers.
pub trait Output {
    fn describe(operation: &mut Operation, schemas: &mut Schemas);
}

/// A handler whose arguments and answer say what they are.
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
        operation.answers::<T>(schemas, 200);
    }
}

/// As FastAPI tells of a handler that always leads elsewhere.
impl Output for Redirect {
    fn describe(operation: &mut Operation, schemas: &mut Schemas) {
        operation.answers::<Value>(schemas, 200);
    }
}

impl<T: Output, E> Output for Result<T, E> {
    fn describe(operation: &mut Operation, schemas: &mut Schemas) {
        T::describe(operation, schemas);
    }
}

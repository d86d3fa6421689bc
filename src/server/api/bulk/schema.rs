//! JSON schemas of bulk request bodies, by entity type.

use super::Bulk;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::Deserialize;
use std::borrow::Cow;
use std::marker::PhantomData;

/// How to handle an entity that already exists.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
enum BulkActionOnExistence {
    Fail,
    Skip,
    Overwrite,
}

/// How to handle an entity that does not exist.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
enum BulkActionNotOnExistence {
    Fail,
    Skip,
}

struct Create<T>(PhantomData<T>);
struct Update<T>(PhantomData<T>);
struct Delete<T>(PhantomData<T>);

impl<T: JsonSchema> JsonSchema for Bulk<T> {
    fn schema_name() -> Cow<'static, str> {
        format!("BulkBody_{}_", T::schema_name()).into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let action_schemas = [
            generator.subschema_for::<Create<T>>(),
            generator.subschema_for::<Update<T>>(),
            generator.subschema_for::<Delete<T>>(),
        ];
        json_schema!({
            "type": "object",
            "required": ["actions"],
            "additionalProperties": false,
            "properties": {"actions": {"type": "array", "items": {"oneOf": action_schemas}}},
        })
    }
}

/// Implements the schema of each kind of action. The arguments are its type, its word in the schema's name, its value
/// of `action`, the schema of its entities, and its additional fields.
macro_rules! actions {
    ($($kind:ident $name:literal $action:literal $entity:expr, $extra_fields:expr;)*) => {
        $(impl<T: JsonSchema> JsonSchema for $kind<T> {
            fn schema_name() -> Cow<'static, str> {
                format!("Bulk{}Action_{}_", $name, T::schema_name()).into()
            }

            fn json_schema(generator: &mut SchemaGenerator) -> Schema {
                let entity: fn(&mut SchemaGenerator) -> Schema = $entity;
                let extra_fields: fn(&mut SchemaGenerator) -> Vec<(&'static str, Schema)> = $extra_fields;
                let entity = entity(generator);
                let mut schema = json_schema!({
                    "type": "object",
                    "required": ["action", "entities"],
                    "additionalProperties": false,
                    "properties": {
                        "action": {"type": "string", "const": $action},
                        "entities": {"type": "array", "items": entity},
                    },
                });
                let extra_fields = extra_fields(generator);
                let properties = schema.get_mut("properties").and_then(|properties| properties.as_object_mut());
                if let Some(properties) = properties {
                    let extra_fields = extra_fields.into_iter();
                    properties.extend(extra_fields.map(|(name, schema)| (name.to_owned(), schema.to_value())));
                }
                schema
            }
        })*
    };
}

actions! {
    Create "Create" "create" SchemaGenerator::subschema_for::<T>, |generator| {
        vec![("action_on_existence", on_conflict_schema::<BulkActionOnExistence>(generator))]
    };
    Update "Update" "update" SchemaGenerator::subschema_for::<T>, |generator| {
        vec![
            ("update_mask", generator.subschema_for::<Option<Vec<String>>>()),
            ("action_on_non_existence", on_conflict_schema::<BulkActionNotOnExistence>(generator)),
        ]
    };
    Delete "Delete" "delete" |generator| {
        let object = generator.subschema_for::<T>();
        json_schema!({"anyOf": [{"type": "string"}, object]})
    }, |generator| vec![("action_on_non_existence", on_conflict_schema::<BulkActionNotOnExistence>(generator))];
}

/// Returns the schema of an `OnConflict` field, whose default is `fail`.
fn on_conflict_schema<T: JsonSchema>(generator: &mut SchemaGenerator) -> Schema {
    let mut schema = generator.subschema_for::<T>();
    schema.insert("default".to_owned(), "fail".into());
    schema
}

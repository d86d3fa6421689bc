//! What the bodies of bulk changes are, by the type of what they change.

use super::bulk::Bulk;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::Deserialize;
use std::borrow::Cow;
use std::marker::PhantomData;

/// What is done with an entity that is there already.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
enum BulkActionOnExistence {
    Fail,
    Skip,
    Overwrite,
}

/// What is done with one that is not.
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
        let any = [
            generator.subschema_for::<Create<T>>(),
            generator.subschema_for::<Update<T>>(),
            generator.subschema_for::<Delete<T>>(),
        ];
        json_schema!({
            "type": "object",
            "required": ["actions"],
            "additionalProperties": false,
            "properties": {"actions": {"type": "array", "items": {"oneOf": any}}},
        })
    }
}

/// One kind of action: its word, what an entity is, and what it has beside these.
macro_rules! actions {
    ($($kind:ident $name:literal $word:literal $entity:expr, $more:expr;)*) => {
        $(impl<T: JsonSchema> JsonSchema for $kind<T> {
            fn schema_name() -> Cow<'static, str> {
                format!("Bulk{}Action_{}_", $name, T::schema_name()).into()
            }

            fn json_schema(generator: &mut SchemaGenerator) -> Schema {
                let entity: fn(&mut SchemaGenerator) -> Schema = $entity;
                let more: fn(&mut SchemaGenerator) -> Vec<(&'static str, Schema)> = $more;
                let entity = entity(generator);
                let mut schema = json_schema!({
                    "type": "object",
                    "required": ["action", "entities"],
                    "additionalProperties": false,
                    "properties": {
                        "action": {"type": "string", "const": $word},
                        "entities": {"type": "array", "items": entity},
                    },
                });
                let more = more(generator);
                if let Some(properties) = schema.get_mut("properties").and_then(|found| found.as_object_mut()) {
                    properties.extend(more.into_iter().map(|(name, schema)| (name.to_owned(), schema.to_value())));
                }
                schema
            }
        })*
    };
}

actions! {
    Create "Create" "create" SchemaGenerator::subschema_for::<T>, |generator| {
        vec![("action_on_existence", otherwise::<BulkActionOnExistence>(generator))]
    };
    Update "Update" "update" SchemaGenerator::subschema_for::<T>, |generator| {
        vec![
            ("update_mask", generator.subschema_for::<Option<Vec<String>>>()),
            ("action_on_non_existence", otherwise::<BulkActionNotOnExistence>(generator)),
        ]
    };
    Delete "Delete" "delete" |generator| {
        let whole = generator.subschema_for::<T>();
        json_schema!({"anyOf": [{"type": "string"}, whole]})
    }, |generator| vec![("action_on_non_existence", otherwise::<BulkActionNotOnExistence>(generator))];
}

fn otherwise<T: JsonSchema>(generator: &mut SchemaGenerator) -> Schema {
    let mut schema = generator.subschema_for::<T>();
    schema.insert("default".to_owned(), "fail".into());
    schema
}

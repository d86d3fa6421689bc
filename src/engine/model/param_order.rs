//! Keeps params in the order in which the file declares them. `jsonb` sorts the keys of an object, so the object of
//! each param also stores its position, and the default value as text if the value has keys in another order. Earlier
//! releases ignore both.

use serde::{Deserialize, Deserializer, Serializer};
use serde_json::{Map, Value};

const POSITION: &str = "position";
const VALUE: &str = "value";
const VALUE_TEXT: &str = "value_text";

pub fn serialize<S: Serializer>(params: &Map<String, Value>, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_map(params.iter().enumerate().map(|(position, (name, param))| {
        let mut param = param.clone();
        if let Some(parts) = parts(&mut param) {
            // A single param needs no position; without one, the hash of an existing version stays the same.
            if params.len() > 1 {
                parts.insert(POSITION.to_owned(), position.into());
            }
            if let Some(value) = parts.get(VALUE).filter(|value| !is_in_order_of_jsonb(value)) {
                parts.insert(VALUE_TEXT.to_owned(), value.to_string().into());
            }
        }
        (name, param)
    }))
}

pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Map<String, Value>, D::Error> {
    let mut params: Vec<_> = Map::<String, Value>::deserialize(deserializer)?
        .into_iter()
        .map(|(name, mut param)| {
            let Some(parts) = parts(&mut param) else { return (None, name, param) };
            if let Some(value) =
                parts.shift_remove(VALUE_TEXT).and_then(|text| serde_json::from_str(text.as_str()?).ok())
            {
                parts.insert(VALUE.to_owned(), value);
            }
            let position = parts.shift_remove(POSITION).and_then(|position| position.as_u64());
            (position, name, param)
        })
        .collect();
    // Stable sort: params without positions, as a DAG file describes them, keep the order of the text.
    params.sort_by_key(|(position, ..)| *position);
    Ok(params.into_iter().map(|(_, name, param)| (name, param)).collect())
}

/// The fields of a param; `None` for the bare value that an older Leoflow stored.
fn parts(param: &mut Value) -> Option<&mut Map<String, Value>> {
    param.as_object_mut().filter(|parts| parts.contains_key("schema"))
}

/// True if `jsonb` keeps the order of the keys: it sorts them by length in bytes, then by bytes:
/// <https://www.postgresql.org/docs/18/datatype-json.html>.
fn is_in_order_of_jsonb(value: &Value) -> bool {
    match value {
        Value::Array(items) => items.iter().all(is_in_order_of_jsonb),
        Value::Object(map) => {
            map.keys().is_sorted_by_key(|name| (name.len(), name.as_bytes())) && map.values().all(is_in_order_of_jsonb)
        }
        _ => true,
    }
}

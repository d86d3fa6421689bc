//! Params in the order in which the file declares them. `jsonb` sorts the names in an object, so each param has its place
//! in its own object; an earlier release ignores it.

use serde::{Deserialize, Deserializer, Serializer};
use serde_json::{Map, Value};

const POSITION: &str = "position";

pub fn serialize<S: Serializer>(params: &Map<String, Value>, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_map(params.iter().enumerate().map(|(position, (name, param))| {
        let mut param = param.clone();
        // One alone has no order, and keeps the hash of its version.
        if params.len() > 1
            && let Some(parts) = parts(&mut param)
        {
            parts.insert(POSITION.to_owned(), position.into());
        }
        (name, param)
    }))
}

pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Map<String, Value>, D::Error> {
    let mut params: Vec<_> = Map::<String, Value>::deserialize(deserializer)?
        .into_iter()
        .map(|(name, mut param)| {
            let position = parts(&mut param).and_then(|parts| parts.shift_remove(POSITION)).and_then(|at| at.as_u64());
            (position, name, param)
        })
        .collect();
    // Stable: without positions, as a DAG file gives them, the order is that of the text.
    params.sort_by_key(|(position, ..)| *position);
    Ok(params.into_iter().map(|(_, name, param)| (name, param)).collect())
}

/// `None` for the plain value that an older Leoflow stored.
fn parts(param: &mut Value) -> Option<&mut Map<String, Value>> {
    param.as_object_mut().filter(|parts| parts.contains_key("schema"))
}

//! How fields of a stored structure are read from and written to JSON.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer};
use serde_json::Value;

/// Deserializes in two steps, first to a JSON value: with serde_json's `arbitrary_precision`, untagged and internally
/// tagged enums cannot be deserialized from text directly.
pub(super) fn via_json_value<'de, D: Deserializer<'de>, T: DeserializeOwned>(deserializer: D) -> Result<T, D::Error> {
    serde_json::from_value(Value::deserialize(deserializer)?).map_err(serde::de::Error::custom)
}

pub(super) fn is_false(value: &bool) -> bool {
    !value
}

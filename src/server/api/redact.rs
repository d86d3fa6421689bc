//! Masks values whose name looks sensitive, as Airflow does:
//! <https://airflow.apache.org/docs/apache-airflow/stable/security/secrets/mask-sensitive-values.html>

use leoflow_base::auth::masking::{HIDDEN, is_sensitive};
use serde_json::Value;

/// Masks the whole `value` if `name` is sensitive, otherwise the sensitive fields if `value` is JSON.
pub fn text(name: &str, value: &str) -> String {
    if value.is_empty() {
        return String::new();
    }
    if is_sensitive(name) {
        return HIDDEN.to_owned();
    }
    match serde_json::from_str::<Value>(value) {
        Ok(mut parsed) if parsed.is_object() || parsed.is_array() => {
            if mask_sensitive(&mut parsed) {
                parsed.to_string()
            } else {
                value.to_owned()
            }
        }
        _ => value.to_owned(),
    }
}

/// Returns a copy with sensitive fields masked.
pub fn fields(value: &Value) -> Value {
    let mut masked = value.clone();
    mask_sensitive(&mut masked);
    masked
}

/// Undoes masking: replaces each mask in `new` by the value in `old`, the stored text.
pub fn restore(new: &str, old: &str) -> String {
    if new == HIDDEN {
        return old.to_owned();
    }
    let parse = |text: &str| serde_json::from_str::<Value>(text).ok();
    let (Some(mut new_value), Some(old_value)) = (parse(new), parse(old)) else { return new.to_owned() };
    if fill_in(&mut new_value, &old_value) { new_value.to_string() } else { new.to_owned() }
}

/// Replaces masks in `new` by the values of `old`. Returns true when anything was replaced.
fn fill_in(new: &mut Value, old: &Value) -> bool {
    match (new, old) {
        (Value::Object(new), Value::Object(old)) => new.iter_mut().fold(false, |filled, (name, field)| {
            let Some(stored) = old.get(name) else { return filled };
            if field == HIDDEN {
                *field = stored.clone();
                return true;
            }
            fill_in(field, stored) || filled
        }),
        (Value::Array(new), Value::Array(old)) => {
            new.iter_mut().zip(old).filter_map(|(field, stored)| fill_in(field, stored).then_some(())).count() > 0
        }
        _ => false,
    }
}

fn mask_sensitive(value: &mut Value) -> bool {
    mask(value, &|name, field| is_sensitive(name) && !field.is_null() && field != "")
}

/// Masks the fields, at any depth, whose name and value are a secret. Returns true when anything was masked.
pub fn mask(value: &mut Value, is_secret: &dyn Fn(&str, &Value) -> bool) -> bool {
    match value {
        Value::Object(object) => object.iter_mut().fold(false, |any_masked, (name, field)| {
            let is_masked = is_secret(name, field);
            if is_masked {
                *field = HIDDEN.into();
            }
            is_masked || mask(field, is_secret) || any_masked
        }),
        // Not `any`, which would stop at the first match.
        Value::Array(list) => list.iter_mut().filter_map(|field| mask(field, is_secret).then_some(())).count() > 0,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_hidden_by_name_at_any_depth() {
        assert_eq!(text("my_API_KEY", "abc"), HIDDEN);
        assert_eq!(text("path", "abc"), "abc");
        assert_eq!(text("conf", r#"{"a": {"Password": "x", "b": 1}}"#), r#"{"a":{"Password":"***","b":1}}"#);
        assert_eq!(text("conf", r#"[{"token": ["x"]}]"#), r#"[{"token":"***"}]"#);
        assert_eq!(text("conf", r#"{ "a": 1 }"#), r#"{ "a": 1 }"#, "unchanged when nothing is sensitive");
        assert_eq!(text("password", ""), "");
    }

    #[test]
    fn masked_values_are_restored() {
        for (name, stored) in [("extra", r#"{"api_key":"geheim","a":[{"token":1}],"b":2}"#), ("my_secret", "geheim")] {
            let masked = text(name, stored);
            assert!(masked.contains(HIDDEN) && !masked.contains("geheim"));
            assert_eq!(restore(&masked, stored), stored);
        }
        assert_eq!(restore(r#"{"api_key":"***","b":3}"#, r#"{"api_key":"x","b":2}"#), r#"{"api_key":"x","b":3}"#);
        assert_eq!(restore("new", "old"), "new");
        assert_eq!(restore(r#"{"api_key":"***"}"#, "not json"), r#"{"api_key":"***"}"#);
    }
}

//! Hiding what looks like a secret by its name, as Airflow does:
//! <https://airflow.apache.org/docs/apache-airflow/stable/security/secrets/mask-sensitive-values.html>

use crate::auth::masking::{HIDDEN, is_sensitive};
use serde_json::Value;

/// A named text: hidden by its own name, or in the parts of its JSON that are by theirs.
pub fn text(name: &str, value: &str) -> String {
    if value.is_empty() {
        return String::new();
    }
    if is_sensitive(name) {
        return HIDDEN.to_owned();
    }
    match serde_json::from_str::<Value>(value) {
        Ok(mut parsed) if parsed.is_object() || parsed.is_array() => {
            if hide(&mut parsed) {
                parsed.to_string()
            } else {
                value.to_owned()
            }
        }
        _ => value.to_owned(),
    }
}

/// The same with what is hidden by its name.
pub fn fields(value: &Value) -> Value {
    let mut shown = value.clone();
    hide(&mut shown);
    shown
}

/// What was hidden when it was shown and comes back so is as it was.
pub fn restore(new: &str, old: &str) -> String {
    if new == HIDDEN {
        return old.to_owned();
    }
    let parse = |text: &str| serde_json::from_str::<Value>(text).ok();
    let (Some(mut new_value), Some(old_value)) = (parse(new), parse(old)) else { return new.to_owned() };
    if fill_in(&mut new_value, &old_value) { new_value.to_string() } else { new.to_owned() }
}

/// Whether anything was filled in.
fn fill_in(new: &mut Value, old: &Value) -> bool {
    match (new, old) {
        (Value::Object(new), Value::Object(old)) => new.iter_mut().fold(false, |filled, (name, inner)| {
            let Some(before) = old.get(name) else { return filled };
            if inner == HIDDEN {
                *inner = before.clone();
                return true;
            }
            fill_in(inner, before) || filled
        }),
        (Value::Array(new), Value::Array(old)) => {
            new.iter_mut().zip(old).filter_map(|(inner, before)| fill_in(inner, before).then_some(())).count() > 0
        }
        _ => false,
    }
}

/// Hides what is secret by its name. Returns whether anything was.
fn hide(value: &mut Value) -> bool {
    match value {
        Value::Object(object) => object.iter_mut().fold(false, |hidden, (name, inner)| {
            let hides = is_sensitive(name) && !inner.is_null() && inner != "";
            if hides {
                *inner = HIDDEN.into();
            }
            hides || hide(inner) || hidden
        }),
        // Not `any`, which would stop at the first.
        Value::Array(list) => list.iter_mut().filter_map(|inner| hide(inner).then_some(())).count() > 0,
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
        assert_eq!(text("conf", r#"{ "a": 1 }"#), r#"{ "a": 1 }"#, "untouched when there is nothing to hide");
        assert_eq!(text("password", ""), "");
    }

    #[test]
    fn what_was_hidden_comes_back_as_it_was() {
        for (name, stored) in [("extra", r#"{"api_key":"geheim","a":[{"token":1}],"b":2}"#), ("my_secret", "geheim")] {
            let shown = text(name, stored);
            assert!(shown.contains(HIDDEN) && !shown.contains("geheim"));
            assert_eq!(restore(&shown, stored), stored);
        }
        assert_eq!(restore(r#"{"api_key":"***","b":3}"#, r#"{"api_key":"x","b":2}"#), r#"{"api_key":"x","b":3}"#);
        assert_eq!(restore("new", "old"), "new");
        assert_eq!(restore(r#"{"api_key":"***"}"#, "not json"), r#"{"api_key":"***"}"#);
    }
}

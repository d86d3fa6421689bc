//! Which names are those of secrets, and hiding secret values wherever they turn up in a text.
//! <https://airflow.apache.org/docs/apache-airflow/stable/security/secrets/mask-sensitive-values.html>

use crate::protocol::http::encode;
use aho_corasick::{AhoCorasick, MatchKind};
use serde_json::Value;
use std::collections::BTreeSet;

/// What stands where a secret was.
pub const HIDDEN: &str = "***";

/// A name that holds one of these is a secret's: Airflow's list.
const SENSITIVE: &[&str] = &[
    "access_key",
    "access_token",
    "api_key",
    "apikey",
    "auth_header",
    "authorization",
    "bearer",
    "connection_string",
    "dsn",
    "keyfile_dict",
    "passphrase",
    "passwd",
    "password",
    "private_key",
    "proxies",
    "proxy",
    "secret",
    "service_account",
    "service_key",
    "token",
    "webhook_url",
];

/// Airflow's `min_length_masked_secret`, characters: shorter ones would hide half of every text.
const SHORTEST: usize = 5;
/// A word that Airflow itself says everywhere.
const NEVER: &str = "airflow";

pub fn is_sensitive(name: &str) -> bool {
    let name = name.to_lowercase();
    SENSITIVE.iter().any(|part| name.contains(part))
}

/// Secret values, and the forms in which they may be written down.
#[derive(Default)]
pub struct Masker {
    forms: BTreeSet<String>,
    longest: usize,
    /// Of all forms; made when it is first needed.
    finder: Option<AhoCorasick>,
}

impl Masker {
    /// A value that is to be seen nowhere. Of a text of several lines each line is a secret: logs have lines.
    pub fn add(&mut self, secret: &str) {
        for part in secret.lines().chain([secret]) {
            if part.chars().count() < SHORTEST || part.eq_ignore_ascii_case(NEVER) {
                continue;
            }
            for form in forms(part) {
                self.longest = self.longest.max(form.len());
                if self.forms.insert(form) {
                    self.finder = None;
                }
            }
        }
    }

    /// What is secret by its name, or by the names inside of it.
    pub fn add_named(&mut self, name: &str, value: &Value) {
        match value {
            Value::Object(inner) => inner.iter().for_each(|(name, value)| self.add_named(name, value)),
            Value::Array(list) => list.iter().for_each(|value| self.add_named(name, value)),
            Value::String(text) if is_sensitive(name) => self.add(text),
            _ => {}
        }
    }

    /// Every text in a value that is secret as a whole.
    pub fn add_texts(&mut self, value: &Value) {
        match value {
            Value::Object(inner) => inner.values().for_each(|value| self.add_texts(value)),
            Value::Array(list) => list.iter().for_each(|value| self.add_texts(value)),
            Value::String(text) => self.add(text),
            _ => {}
        }
    }

    pub fn is_empty(&self) -> bool {
        self.forms.is_empty()
    }

    /// Bytes of the longest form: a text that is cut may hold the beginning of one that long.
    pub fn longest(&self) -> usize {
        self.longest
    }

    /// The text without its secrets; `None` when there are none in it.
    pub fn mask(&mut self, text: &[u8]) -> Option<Vec<u8>> {
        if self.forms.is_empty() {
            return None;
        }
        if self.finder.is_none() {
            // Too many to look for cannot be had from what people store; then nothing is shown at all.
            let built = AhoCorasick::builder().match_kind(MatchKind::LeftmostLongest).build(&self.forms);
            match built {
                Ok(finder) => self.finder = Some(finder),
                Err(_) => return Some(HIDDEN.into()),
            }
        }
        let finder = self.finder.as_ref()?;
        finder.is_match(text).then(|| finder.replace_all_bytes(text, &vec![HIDDEN; self.forms.len()]))
    }

    /// The same of every text in a JSON value, names included.
    pub fn mask_json(&mut self, value: &mut Value) {
        match value {
            Value::String(text) => {
                if let Some(masked) = self.mask(text.as_bytes()) {
                    *text = String::from_utf8_lossy(&masked).into_owned();
                }
            }
            Value::Array(list) => list.iter_mut().for_each(|inner| self.mask_json(inner)),
            Value::Object(inner) => {
                inner.values_mut().for_each(|value| self.mask_json(value));
                let is_told = |name: &String| self.mask(name.as_bytes()).is_some();
                let told: Vec<String> = inner.keys().cloned().collect::<Vec<_>>().into_iter().filter(is_told).collect();
                for name in told {
                    if let Some(value) = inner.shift_remove(&name) {
                        inner.insert(HIDDEN.to_owned(), value);
                    }
                }
            }
            _ => {}
        }
    }
}

/// As it is, as a part of a URL by both customs, and inside of a JSON text, with and without Unicode.
fn forms(secret: &str) -> BTreeSet<String> {
    let quoted = encode(secret);
    let json = serde_json::to_string(secret).unwrap_or_default();
    let json = json.trim_start_matches('"').strip_suffix('"').unwrap_or_default().to_owned();
    let ascii: String = json
        .chars()
        .flat_map(|one| {
            let escaped = if one.is_ascii() { one.to_string() } else { utf16_escapes(one) };
            escaped.chars().collect::<Vec<_>>()
        })
        .collect();
    let plus = quoted.replace("%20", "+");
    let all = [secret.to_owned(), quoted.clone(), quoted.to_lowercase(), plus, json, ascii];
    all.into_iter().filter(|form| !form.is_empty()).collect()
}

fn utf16_escapes(one: char) -> String {
    one.encode_utf16(&mut [0; 2]).iter().map(|unit| format!("\\u{unit:04x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn masked(secrets: &[&str], text: &str) -> String {
        let mut masker = Masker::default();
        secrets.iter().for_each(|secret| masker.add(secret));
        let found = masker.mask(text.as_bytes()).unwrap_or_else(|| text.into());
        String::from_utf8(found).unwrap()
    }

    #[test]
    fn a_secret_is_hidden_in_each_form_and_in_the_middle_of_a_word() {
        let secret = "p@ss w\"örd";
        for text in ["xp@ss w\"ördx", "xp%40ss%20w%22%C3%B6rdx", "xp%40ss+w%22%C3%B6rdx", "xp@ss w\\\"\\u00f6rdx"] {
            assert_eq!(masked(&[secret], text), "x***x");
        }
        assert_eq!(masked(&["first line\nsecond line"], "a second line b first line"), "a *** b ***");
        assert_eq!(masked(&["hunter", "hunter22"], "hunter22 hunter2"), "*** ***2");
    }

    #[test]
    fn short_ones_and_airflows_own_name_are_left() {
        assert_eq!(masked(&["abcd", "airflow", ""], "abcd airflow"), "abcd airflow");
    }

    #[test]
    fn names_decide_inside_of_json_and_values_are_found_anywhere() {
        let mut masker = Masker::default();
        masker.add_named("extra", &json!({"a": {"API_Key": ["geheim1", 5]}, "path": "visible"}));
        let mut value = json!({"x": ["say geheim1"], "geheim1": "visible"});
        masker.mask_json(&mut value);
        assert_eq!(value, json!({"x": ["say ***"], "***": "visible"}));
    }
}

//! Recognizes the names of secrets, and masks secret values anywhere in a text.
//! <https://airflow.apache.org/docs/apache-airflow/stable/security/secrets/mask-sensitive-values.html>

use crate::protocol::http::encode;
use aho_corasick::{AhoCorasick, MatchKind};
use serde_json::Value;
use std::borrow::Cow;
use std::collections::BTreeSet;
use std::ops::Range;

/// Replaces a secret.
pub const HIDDEN: &str = "***";

/// Airflow's list, one per line: a name that contains one of these is sensitive. The Python package masks by it, too.
pub const SENSITIVE: &str = include_str!("../../python/package/leoflow/common/secret_names.txt");

/// Airflow's `min_length_masked_secret`: masking shorter values would garble every text.
const MIN_CHARACTERS: usize = 5;
/// Never masked: Airflow itself prints this word everywhere.
const NEVER_MASKED: &str = "airflow";

pub fn is_sensitive(name: &str) -> bool {
    let name = name.to_lowercase();
    SENSITIVE.lines().any(|part| name.contains(part))
}

/// Secret values, and the encodings in which they may appear.
#[derive(Default)]
pub struct Masker {
    forms: BTreeSet<String>,
    /// Length of the longest form, bytes.
    longest: usize,
    /// Finds all forms; built on first use.
    finder: Option<AhoCorasick>,
}

impl Masker {
    /// Adds a secret. Each line of a multi-line text is a secret of its own, because logs are written by line; a lone
    /// carriage return ends a line of a log, too.
    pub fn add(&mut self, secret: &str) {
        for part in secret.split(['\n', '\r']).chain([secret]) {
            if part.chars().count() < MIN_CHARACTERS || part.eq_ignore_ascii_case(NEVER_MASKED) {
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

    /// Adds the strings in `value` whose key is sensitive; `name` is the key of `value` itself. An item of a list has
    /// the key of the list.
    pub fn add_named(&mut self, name: &str, value: &Value) {
        match value {
            Value::Object(object) => object.iter().for_each(|(name, value)| self.add_named(name, value)),
            Value::Array(list) => list.iter().for_each(|value| self.add_named(name, value)),
            Value::String(text) if is_sensitive(name) => self.add(text),
            _ => {}
        }
    }

    /// Adds every string in `value`, all of which is secret.
    pub fn add_texts(&mut self, value: &Value) {
        match value {
            Value::Object(object) => object.values().for_each(|value| self.add_texts(value)),
            Value::Array(list) => list.iter().for_each(|value| self.add_texts(value)),
            Value::String(text) => self.add(text),
            _ => {}
        }
    }

    pub fn is_empty(&self) -> bool {
        self.forms.is_empty()
    }

    /// Length of the longest form, bytes. A caller that masks a text in pieces must keep this much of each piece for
    /// the next one, because a secret may continue there.
    pub fn longest(&self) -> usize {
        self.longest
    }

    /// Masks the secrets in a text; `None` when it contains none.
    pub fn mask(&mut self, text: &[u8]) -> Option<Vec<u8>> {
        if self.forms.is_empty() {
            return None;
        }
        if self.finder.is_none() {
            // Fails only with far more secrets than people store; then the whole text is masked.
            let built = AhoCorasick::builder().match_kind(MatchKind::LeftmostLongest).build(&self.forms);
            match built {
                Ok(finder) => self.finder = Some(finder),
                Err(_) => return Some(HIDDEN.into()),
            }
        }
        let finder = self.finder.as_ref()?;
        finder.is_match(text).then(|| finder.replace_all_bytes(text, &vec![HIDDEN; self.forms.len()]))
    }

    /// Masks the secrets in every text of a JSON value, including names.
    pub fn mask_json(&mut self, value: &mut Value) {
        match value {
            Value::String(text) => {
                if let Some(masked) = self.mask(text.as_bytes()) {
                    *text = String::from_utf8_lossy(&masked).into_owned();
                }
            }
            Value::Array(list) => list.iter_mut().for_each(|item| self.mask_json(item)),
            Value::Object(object) => {
                object.values_mut().for_each(|value| self.mask_json(value));
                let is_secret = |name: &String| self.mask(name.as_bytes()).is_some();
                let secret_names: Vec<String> =
                    object.keys().cloned().collect::<Vec<_>>().into_iter().filter(is_secret).collect();
                for name in secret_names {
                    if let Some(value) = object.shift_remove(&name) {
                        object.insert(HIDDEN.to_owned(), value);
                    }
                }
            }
            _ => {}
        }
    }

    /// Masks the secrets in every text of a JSON document, including names; `None` when it contains none. Unlike
    /// [`mask_json`](Self::mask_json) it takes no memory for the parsed document, which may have megabytes.
    pub fn mask_json_text(&mut self, json: &str) -> Option<String> {
        // Without escapes, every text is in the document as it is.
        if self.is_empty() || !json.contains('\\') && self.mask(json.as_bytes()).is_none() {
            return None;
        }
        let (mut masked, mut copied) = (String::new(), 0);
        for range in strings(json) {
            if let Some(string) = self.mask_json_string(&json[range.clone()]) {
                masked += &json[copied..range.start];
                masked += &string;
                copied = range.end;
            }
        }
        masked += json.get(copied..).filter(|_| copied > 0)?;
        Some(masked)
    }

    /// Masks the secrets in a JSON string with its quotes.
    fn mask_json_string(&mut self, string: &str) -> Option<String> {
        let escaped = string.get(1..string.len().saturating_sub(1))?;
        let text = match escaped.contains('\\') {
            // Half of a surrogate pair, which PostgreSQL accepts, is masked and shown as it is.
            true => serde_json::from_str(string).map_or(Cow::Borrowed(escaped), Cow::Owned),
            false => Cow::Borrowed(escaped),
        };
        let masked = self.mask(text.as_bytes())?;
        serde_json::to_string(&String::from_utf8_lossy(&masked)).ok()
    }
}

/// The positions of the strings in a JSON document, with their quotes.
fn strings(json: &str) -> impl Iterator<Item = Range<usize>> {
    let bytes = json.as_bytes();
    let mut position = 0;
    std::iter::from_fn(move || {
        let start = position + bytes.get(position..)?.iter().position(|byte| *byte == b'"')?;
        let mut end = start + 1;
        while *bytes.get(end)? != b'"' {
            end += if bytes[end] == b'\\' { 2 } else { 1 };
        }
        position = end + 1;
        Some(start..position)
    })
}

/// All forms of a secret: as is; percent-encoded, also in lower case and with `+` for blanks; escaped for JSON once and
/// twice, with and without Unicode escapes; and as Python's `repr()`, `ascii()` and `repr()` of its bytes.
fn forms(secret: &str) -> BTreeSet<String> {
    let percent_encoded = encode(secret);
    let json = json_form(secret);
    let ascii_json: String = json
        .chars()
        .flat_map(|letter| {
            let escaped = if letter.is_ascii() { letter.to_string() } else { utf16_escapes(letter) };
            escaped.chars().collect::<Vec<_>>()
        })
        .collect();
    let plus_for_blank = percent_encoded.replace("%20", "+");
    let in_json_text = [json_form(&json), json_form(&ascii_json)];
    let mut all = vec![
        secret.to_owned(),
        percent_encoded.clone(),
        percent_encoded.to_lowercase(),
        plus_for_blank,
        json,
        ascii_json,
    ];
    all.extend(in_json_text);
    for escape in [python_repr, python_ascii, python_bytes] {
        let form: String = secret.chars().map(escape).collect();
        // repr() chooses the kind of quotes from the whole text and escapes that kind, so both forms are possible.
        all.extend([form.replace('\'', "\\'"), form]);
    }
    all.into_iter().filter(|form| !form.is_empty()).collect()
}

/// A text as the inside of a JSON string.
fn json_form(text: &str) -> String {
    let json = serde_json::to_string(text).unwrap_or_default();
    json.strip_prefix('"').and_then(|json| json.strip_suffix('"')).unwrap_or_default().to_owned()
}

/// A character as Python's `repr()` of a text shows it.
fn python_repr(letter: char) -> String {
    match letter {
        '\\' => "\\\\".to_owned(),
        '\n' => "\\n".to_owned(),
        '\r' => "\\r".to_owned(),
        '\t' => "\\t".to_owned(),
        _ if letter.is_control() || matches!(letter, '\u{a0}' | '\u{ad}') => format!("\\x{:02x}", u32::from(letter)),
        _ => letter.to_string(),
    }
}

/// A character as Python's `ascii()` shows it.
fn python_ascii(letter: char) -> String {
    match u32::from(letter) {
        0..=0x7f => python_repr(letter),
        code @ 0x80..=0xff => format!("\\x{code:02x}"),
        code @ 0x100..=0xffff => format!("\\u{code:04x}"),
        code => format!("\\U{code:08x}"),
    }
}

/// A character as Python's `repr()` of its UTF-8 bytes shows it.
fn python_bytes(letter: char) -> String {
    if letter.is_ascii() {
        return python_repr(letter);
    }
    letter.encode_utf8(&mut [0; 4]).bytes().map(|byte| format!("\\x{byte:02x}")).collect()
}

fn utf16_escapes(letter: char) -> String {
    letter.encode_utf16(&mut [0; 2]).iter().map(|unit| format!("\\u{unit:04x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn masked(secrets: &[&str], text: &str) -> String {
        let mut masker = Masker::default();
        secrets.iter().for_each(|secret| masker.add(secret));
        let masked = masker.mask(text.as_bytes()).unwrap_or_else(|| text.into());
        String::from_utf8(masked).unwrap()
    }

    #[test]
    fn masks_each_form_of_a_secret_inside_a_word() {
        let secret = "p@ss w\"örd";
        for text in ["xp@ss w\"ördx", "xp%40ss%20w%22%C3%B6rdx", "xp%40ss+w%22%C3%B6rdx", "xp@ss w\\\"\\u00f6rdx"] {
            assert_eq!(masked(&[secret], text), "x***x");
        }
        // As Python shows it: repr(), in quotes of either kind, ascii(), bytes, and a text of JSON in JSON.
        let secret = "p\\a'\"ö\t€";
        for text in [
            r#"xp\\a\'"ö\t€x"#,
            r#"xp\\a'"ö\t€x"#,
            r#"xp\\a\'"\xf6\t\u20acx"#,
            r#"xp\\a\'"\xc3\xb6\t\xe2\x82\xacx"#,
            r#"xp\\\\a'\\\"ö\\t€x"#,
        ] {
            assert_eq!(masked(&[secret], text), "x***x", "{text}");
        }
        assert_eq!(masked(&["first line\nsecond line"], "a second line b first line"), "a *** b ***");
        for secret in ["first line\rsecond line", "first line\r\nsecond line", "second line\r"] {
            assert_eq!(masked(&[secret], "a second line b"), "a *** b", "{secret:?}");
        }
        assert_eq!(masked(&["hunter", "hunter22"], "hunter22 hunter2"), "*** ***2");
    }

    #[test]
    fn reads_the_sensitive_names_of_the_python_package() {
        let mut names = SENSITIVE.lines();
        assert_eq!((names.next(), names.next_back()), (Some("access_key"), Some("webhook_url")));
        assert!(SENSITIVE.lines().all(|part| part.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_')));
        assert!(is_sensitive("DB_Password") && is_sensitive("my_token") && !is_sensitive("host"));
    }

    #[test]
    fn short_values_and_the_word_airflow_stay() {
        assert_eq!(masked(&["abcd", "airflow", ""], "abcd airflow"), "abcd airflow");
    }

    #[test]
    fn masks_json_by_name_and_by_value() {
        let mut masker = Masker::default();
        masker.add_named("extra", &json!({"a": {"API_Key": ["geheim1", 5]}, "path": "visible"}));
        let mut value = json!({"x": ["say geheim1"], "geheim1": "visible"});
        masker.mask_json(&mut value);
        assert_eq!(value, json!({"x": ["say ***"], "***": "visible"}));
    }

    #[test]
    fn masks_the_text_of_a_json_document() {
        let mut masker = Masker::default();
        assert_eq!(masker.mask_json_text(r#""geheim1""#), None, "no secrets");
        ["geheim1", "p\\a'\"ö", "12345"].into_iter().for_each(|secret| masker.add(secret));
        let mut masked = |json: &str| {
            let text = masker.mask_json_text(json);
            let mut value: Value = serde_json::from_str(json).unwrap();
            masker.mask_json(&mut value);
            let parsed = |text: &str| serde_json::from_str::<Value>(text).unwrap();
            assert_eq!(parsed(text.as_deref().unwrap_or(json)), value, "as the parsed document");
            text
        };
        for same in [r#"{"a": [1.50, "b\"", {}], "12": 12345}"#, r#""a\\""#, "null", r#""""#, " [12345] "] {
            assert_eq!(masked(same), None, "{same}");
        }
        // Only the texts change: numbers keep their notation and their value.
        let json = r#"{"x": ["say geheim1\n", 1.50, "\"", 12345], "geheim1": "p\\a'\"\u00F6!"}"#;
        assert_eq!(masked(json).unwrap(), r#"{"x": ["say ***\n", 1.50, "\"", 12345], "***": "***!"}"#);
        assert_eq!(masker.mask_json_text(r#""\ud800 geheim1""#).unwrap(), r#""\\ud800 ***""#, "half of a pair");
        assert_eq!(masker.mask_json_text(r#""\ud800""#), None);
    }
}

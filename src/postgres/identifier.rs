//! Quotes SQL identifiers.
//! Source: <https://www.postgresql.org/docs/18/sql-syntax-lexical.html#SQL-SYNTAX-IDENTIFIERS>.

/// The identifier in double quotes.
pub fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// The identifier as a user would write it: in quotes only if it needs them. May return a key word without quotes, so
/// only for messages.
pub(crate) fn readable(name: &str) -> String {
    let is_plain = name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_');
    if is_plain && !name.is_empty() { name.to_owned() } else { quoted(name) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotes_a_quote_by_doubling_it() {
        assert_eq!(quoted(r#"a "b"; DROP"#), r#""a ""b""; DROP""#);
        assert_eq!(readable("my_table1"), "my_table1");
        assert_eq!([readable("My"), readable("")], ["\"My\"", "\"\""]);
    }
}

//! `backup.invariants`: named queries whose answers must not change in a restore, upgrade or rollback.

use serde_yaml::{Mapping, Value};

/// A named SQL query over the datastore. Its answer stays the same unless data is lost or altered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Invariant {
    pub name: String,
    pub query: String,
}

/// Maximum number of queries.
const COUNT_LIMIT: usize = 50;
/// Maximum length of a query, in bytes.
const QUERY_LIMIT: usize = 10_000;
/// Maximum length of a name, in bytes.
const NAME_LIMIT: usize = 100;

/// Describes the allowed values.
pub(super) const INVARIANTS: &str = "a mapping of at most 50 names to SQL queries; a name consists of letters, digits, blanks, - \
                                     and _, a query of at most 10000 bytes";

impl Invariant {
    /// True for names that messages can show and the command line can address.
    pub fn is_name(name: &str) -> bool {
        let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || [b' ', b'-', b'_'].contains(&byte);
        (1..=NAME_LIMIT).contains(&name.len()) && name.trim() == name && name.bytes().all(is_allowed)
    }

    /// True for a text that may be a query: not empty, no NUL, within the limit. Only PostgreSQL can check its syntax.
    pub fn is_query(query: &str) -> bool {
        !query.trim().is_empty() && query.len() <= QUERY_LIMIT && !query.contains('\0')
    }

    /// Reads the value of the key; `None` for values that are not allowed.
    pub(super) fn read_all(value: &Value) -> Option<Vec<Self>> {
        let mapping = value.as_mapping().filter(|mapping| mapping.len() <= COUNT_LIMIT)?;
        let read = |(name, query): (&Value, &Value)| {
            let (name, query) = (name.as_str()?, query.as_str()?);
            let is_valid = Self::is_name(name) && Self::is_query(query);
            is_valid.then(|| Self { name: name.to_owned(), query: query.to_owned() })
        };
        mapping.iter().map(read).collect()
    }
}

/// Parses a mapping from the command line or an environment variable.
pub(super) fn mapping_of(text: &str) -> Option<Mapping> {
    serde_yaml::from_str::<Value>(text).ok()?.as_mapping().cloned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_names_and_queries_only() {
        let read = |text: &str| Invariant::read_all(&serde_yaml::from_str(text).unwrap());
        let paid = Invariant { name: "paid orders".to_owned(), query: "SELECT 1".to_owned() };
        assert_eq!(read("{paid orders: SELECT 1}"), Some(vec![paid]));
        assert_eq!(read("{}"), Some(Vec::new()));
        let many: String = (0..51).map(|n| format!("n{n}: SELECT 1\n")).collect();
        for wrong in ["[SELECT 1]", "SELECT 1", "{a: 1}", "{a: ''}", "{a.b: SELECT 1}", "{' a': x}", "{1: x}", &many] {
            assert_eq!(read(wrong), None, "{wrong}");
        }
        assert_eq!(read(&format!("a: '{}'", "x".repeat(10_001))), None);
    }
}

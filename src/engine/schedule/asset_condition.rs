//! When a DAG that waits for assets is due. Pure.

use serde_json::Value;

/// Whether a condition is met, given what is known to be updated.
fn is_met(condition: &Value, updated: &impl Fn(&Reference<'_>) -> bool) -> bool {
    let parts = |name: &str| condition.get(name).and_then(Value::as_array);
    if let Some(all) = parts("all") {
        return all.iter().all(|one| is_met(one, updated));
    }
    if let Some(any) = parts("any") {
        return any.iter().any(|one| is_met(one, updated));
    }
    reference(condition).is_some_and(|reference| updated(&reference))
}

/// An asset that has been updated, and the aliases that it was known by.
#[derive(Debug, Clone, Copy)]
pub struct Updated<'a> {
    pub name: &'a str,
    pub uri: &'a str,
    pub aliases: &'a [String],
}

impl Updated<'_> {
    fn is(&self, reference: &Reference<'_>) -> bool {
        match reference {
            Reference::Asset { name, uri } => self.name == *name && self.uri == *uri,
            Reference::Name(name) => self.name == *name,
            Reference::Uri(uri) => self.uri == *uri,
            Reference::Alias(name) => self.aliases.iter().any(|alias| alias == name),
        }
    }
}

/// Whether a condition is met by what has been updated.
pub fn is_met_by(condition: &Value, updated: &[Updated<'_>]) -> bool {
    is_met(condition, &|reference| updated.iter().any(|one| one.is(reference)))
}

/// What a condition, an inlet or an outlet names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reference<'a> {
    Asset { name: &'a str, uri: &'a str },
    Name(&'a str),
    Uri(&'a str),
    Alias(&'a str),
}

impl<'a> Reference<'a> {
    /// As `dag_asset` has it: kind, name, uri.
    pub fn columns(&self) -> (&'static str, &'a str, &'a str) {
        match *self {
            Self::Asset { name, uri } => ("asset", name, uri),
            Self::Name(name) => ("name", name, ""),
            Self::Uri(uri) => ("uri", "", uri),
            Self::Alias(name) => ("alias", name, ""),
        }
    }
}

pub fn reference(value: &Value) -> Option<Reference<'_>> {
    let text = |name: &str| value.get(name).and_then(Value::as_str);
    if let Some(asset) = value.get("asset") {
        let (name, uri) = (asset.get("name")?.as_str()?, asset.get("uri")?.as_str()?);
        return Some(Reference::Asset { name, uri });
    }
    text("alias").map(Reference::Alias).or(text("name").map(Reference::Name)).or(text("uri").map(Reference::Uri))
}

/// All that a condition names, each once.
pub fn references<'a>(condition: &'a Value, found: &mut Vec<&'a Value>) {
    for name in ["all", "any"] {
        if let Some(parts) = condition.get(name).and_then(Value::as_array) {
            parts.iter().for_each(|part| references(part, found));
            return;
        }
    }
    if reference(condition).is_some() && !found.iter().any(|other| reference(other) == reference(condition)) {
        found.push(condition);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn conditions_are_read_as_they_are_nested() {
        let asset = |name: &str| json!({"asset": {"name": name, "uri": name}});
        let condition = json!({"any": [asset("a"), {"all": [asset("b"), {"name": "c"}]}]});
        let met = |names: &[&str]| {
            is_met(&condition, &|reference| match reference {
                Reference::Asset { name, .. } | Reference::Name(name) => names.contains(name),
                _ => false,
            })
        };
        assert!(met(&["a"]) && met(&["b", "c"]));
        assert!(!met(&["b"]) && !met(&[]));
        let mut found = Vec::new();
        references(&condition, &mut found);
        assert_eq!(found.len(), 3);
        assert!(is_met(&json!({"all": []}), &|_| false), "nothing to wait for");
    }
}

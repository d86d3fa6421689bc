//! Evaluates the asset condition of an asset-scheduled DAG. Pure.

use serde_json::Value;

/// Evaluates a condition; `is_updated` returns true if the referenced asset has been updated.
fn is_met(condition: &Value, is_updated: &impl Fn(&Reference<'_>) -> bool) -> bool {
    let parts = |name: &str| condition.get(name).and_then(Value::as_array);
    if let Some(all) = parts("all") {
        return all.iter().all(|part| is_met(part, is_updated));
    }
    if let Some(any) = parts("any") {
        return any.iter().any(|part| is_met(part, is_updated));
    }
    reference(condition).is_some_and(|reference| is_updated(&reference))
}

/// An updated asset, with the aliases that resolve to it.
#[derive(Debug, Clone, Copy)]
pub struct Updated<'a> {
    pub name: &'a str,
    pub uri: &'a str,
    pub aliases: &'a [String],
}

impl Updated<'_> {
    /// True if the reference refers to this asset.
    fn matches(&self, reference: &Reference<'_>) -> bool {
        match reference {
            Reference::Asset { name, uri } => self.name == *name && self.uri == *uri,
            Reference::Name(name) => self.name == *name,
            Reference::Uri(uri) => self.uri == *uri,
            Reference::Alias(name) => self.aliases.iter().any(|alias| alias == name),
        }
    }
}

/// True if the condition is met by these updated assets.
pub(crate) fn is_met_by(condition: &Value, updated: &[Updated<'_>]) -> bool {
    is_met(condition, &|reference| updated.iter().any(|asset| asset.matches(reference)))
}

/// A reference to an asset or alias, in a condition, an inlet or an outlet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reference<'a> {
    Asset { name: &'a str, uri: &'a str },
    Name(&'a str),
    Uri(&'a str),
    Alias(&'a str),
}

impl<'a> Reference<'a> {
    /// The values of the columns `kind`, `name` and `uri` of the table `dag_asset`.
    pub fn columns(&self) -> (&'static str, &'a str, &'a str) {
        match *self {
            Self::Asset { name, uri } => ("asset", name, uri),
            Self::Name(name) => ("name", name, ""),
            Self::Uri(uri) => ("uri", "", uri),
            Self::Alias(name) => ("alias", name, ""),
        }
    }
}

/// Parses a reference; `None` if the value is not a reference.
pub fn reference(value: &Value) -> Option<Reference<'_>> {
    let text = |name: &str| value.get(name).and_then(Value::as_str);
    if let Some(asset) = value.get("asset") {
        let (name, uri) = (asset.get("name")?.as_str()?, asset.get("uri")?.as_str()?);
        return Some(Reference::Asset { name, uri });
    }
    text("alias").map(Reference::Alias).or(text("name").map(Reference::Name)).or(text("uri").map(Reference::Uri))
}

/// Appends the distinct references of a condition to `collected`.
pub fn references<'a>(condition: &'a Value, collected: &mut Vec<&'a Value>) {
    for name in ["all", "any"] {
        if let Some(parts) = condition.get(name).and_then(Value::as_array) {
            parts.iter().for_each(|part| references(part, collected));
            return;
        }
    }
    if reference(condition).is_some() && !collected.iter().any(|other| reference(other) == reference(condition)) {
        collected.push(condition);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn evaluates_nested_conditions() {
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
        let mut collected = Vec::new();
        references(&condition, &mut collected);
        assert_eq!(collected.len(), 3);
        assert!(is_met(&json!({"all": []}), &|_| false), "nothing to wait for");
    }
}

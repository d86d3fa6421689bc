//! Variables in requirements, constraints and indexes: `${NAME}`, as pip expands it. Names are stored and displayed,
//! values never are.

use super::addresses::without_logins;
use super::error::LineError;
use leoflow_base::sys::env_vars;
use regex::{Captures, Regex};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::LazyLock;

/// Shortest value that `mask` replaces, bytes: a shorter value would match unrelated text.
const SHORTEST_MASKED: usize = 3;

/// The values of the variables that a declaration contains and that were set when it was read.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Variables(BTreeMap<String, String>);

impl fmt::Debug for Variables {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

/// A variable. Like pip, accepts capitals, digits and underscores.
static VARIABLE: LazyLock<Regex> = LazyLock::new(|| Regex::new(r"\$\{([A-Z0-9_]+)\}").expect("a valid expression"));

fn names_in_all<'a>(texts: impl IntoIterator<Item = &'a String>) -> BTreeSet<String> {
    texts.into_iter().flat_map(|text| VARIABLE.captures_iter(text)).map(|variable| variable[1].to_owned()).collect()
}

impl Variables {
    pub const NONE: Self = Self(BTreeMap::new());

    /// Looks up the variables that the texts contain.
    pub fn read<'a>(texts: impl IntoIterator<Item = &'a String>, lookup: &dyn Fn(&str) -> Option<String>) -> Self {
        let read = |name: String| lookup(&name).map(|value| (name, value));
        Self(names_in_all(texts).into_iter().filter_map(read).collect())
    }

    fn get(&self, name: &str) -> Option<String> {
        self.0.get(name).cloned().or_else(|| env_vars::text(name))
    }

    /// The variables in these texts, each with its value. The error names one that is not set.
    pub fn required<'a>(
        &self,
        texts: impl IntoIterator<Item = &'a String>,
    ) -> Result<Vec<(String, String)>, LineError> {
        let required = |name: String| match self.get(&name) {
            Some(value) => Ok((name, value)),
            None => Err(LineError::Unset(name)),
        };
        names_in_all(texts).into_iter().map(required).collect()
    }

    /// Replaces the variables in a text by their values.
    pub fn expand(&self, text: &str) -> Result<String, LineError> {
        expand(text, &|name| self.get(name))
    }

    /// Replaces the values in a text by `${NAME}`, for messages.
    pub fn mask(&self, text: &str) -> String {
        let values = self.0.iter().filter(|(_, value)| value.len() >= SHORTEST_MASKED);
        values.fold(text.to_owned(), |text, (name, value)| text.replace(value.as_str(), &format!("${{{name}}}")))
    }

    /// The values that are part of a declaration's hash: all except those in the login of an address, because a new
    /// password does not change the packages.
    pub(crate) fn identifying_values<'a>(
        &self,
        texts: impl IntoIterator<Item = &'a String>,
    ) -> BTreeMap<String, Value> {
        let without_logins: Vec<String> = texts.into_iter().map(|text| without_logins(text)).collect();
        names_in_all(&without_logins).into_iter().map(|name| (name.clone(), self.get(&name).into())).collect()
    }
}

/// Replaces `${NAME}` by the value of NAME. The error names a variable that is not set.
pub fn expand(text: &str, lookup: &dyn Fn(&str) -> Option<String>) -> Result<String, LineError> {
    let mut unset = None;
    let expanded = VARIABLE.replace_all(text, |variable: &Captures<'_>| {
        lookup(&variable[1]).unwrap_or_else(|| unset.insert(variable[1].to_owned()).clone())
    });
    let expanded = expanded.into_owned();
    unset.map_or(Ok(expanded), |name| Err(LineError::Unset(name)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn variables() -> (Variables, [String; 2]) {
        let texts = ["https://${U}:${P}@${HOST}/simple".to_owned(), "x @ https://${HOST}/${lower}/x.whl".to_owned()];
        let lookup = |name: &str| ["U", "P", "HOST"].contains(&name).then(|| format!("{}-value", name.to_lowercase()));
        (Variables::read(&texts, &lookup), texts)
    }

    #[test]
    fn names_are_expanded_and_values_never_shown() {
        let (variables, texts) = variables();
        assert_eq!(variables.expand(&texts[0]).unwrap(), "https://u-value:p-value@host-value/simple");
        assert_eq!(variables.expand(&texts[1]).unwrap(), "x @ https://host-value/${lower}/x.whl");
        assert_eq!(variables.mask("401 for https://u-value:p-value@h"), "401 for https://${U}:${P}@h");
        assert_eq!(format!("{variables:?}"), r#"{"HOST", "P", "U"}"#);
        let error = Variables::default().expand("${LEOFLOW_NO_SUCH}").unwrap_err().to_string();
        assert!(error.starts_with("${LEOFLOW_NO_SUCH} is not set; set LEOFLOW_NO_SUCH in"), "{error}");
    }

    #[test]
    fn a_new_login_keeps_the_identifying_values() {
        let (variables, texts) = variables();
        assert_eq!(variables.identifying_values(&texts), [("HOST".to_owned(), Value::from("host-value"))].into());
        assert_eq!(variables.required(&texts).unwrap().len(), 3);
    }
}

//! Our own pages, out of templates. A debug build reads its files anew each time, so that they can be edited and looked at
//! without a rebuild; a release has them within itself.

use crate::server::api_error::ApiError;
use axum::http::header;
use axum::response::{Html, IntoResponse};
use minijinja::value::Value as Shown;
use minijinja::{Environment, UndefinedBehavior};
use serde_json::Value;
use std::borrow::Cow;
use std::collections::BTreeMap;

/// A file of this folder: where it is, and what a release has of it.
struct Asset {
    name: &'static str,
    text: &'static str,
}

macro_rules! assets {
    ($($name:literal)*) => {
        &[$(Asset { name: $name, text: include_str!($name) }),*]
    };
}

const ASSETS: &[Asset] = assets! {
    "templates/layout.html"
    "templates/backups.html"
    "templates/docs.html"
    "templates/doctor.html"
    "templates/login.html"
    "templates/operation.html"
    "templates/processes.html"
    "templates/releases.html"
    "templates/without_ui.html"
    "pages/docs.js"
    "pages/icon.svg"
    "pages/operation.js"
    "pages/status.js"
    "pages/style.css"
    "pages/times.js"
};

fn text(name: &str) -> Option<Cow<'static, str>> {
    let asset = ASSETS.iter().find(|asset| asset.name == name)?;
    if cfg!(debug_assertions) {
        let source = concat!(env!("CARGO_MANIFEST_DIR"), "/src/server/lite/");
        // A binary that was moved away from its sources has them within itself, too.
        if let Ok(edited) = std::fs::read_to_string(format!("{source}{name}")) {
            return Some(edited.into());
        }
    }
    Some(asset.text.into())
}

/// A file as it is.
pub fn file(name: &str, media_type: &'static str) -> impl IntoResponse + use<> {
    let found = text(name).ok_or_else(|| ApiError::internal(&format!("there is no {name}")));
    found.map(|text| ([(header::CONTENT_TYPE, media_type)], text))
}

/// The template `name` of the folder `templates`, filled in. What a page asks for and is not given is an error, and what it
/// is given is never markup.
pub fn page(name: &str, given: &Value) -> Result<Html<String>, ApiError> {
    let mut environment = Environment::new();
    environment.set_undefined_behavior(UndefinedBehavior::Strict);
    environment.set_loader(|name: &str| Ok(text(&format!("templates/{name}")).map(Cow::into_owned)));
    let rendered = environment.get_template(name).and_then(|template| template.render(shown(given)));
    rendered.map(Html).map_err(|error| ApiError::internal(&format!("{name}: {error:#}")))
}

/// As templates know it: their numbers are no texts.
pub fn shown(value: &Value) -> Shown {
    match value {
        Value::Null => Shown::from(()),
        Value::Bool(is) => Shown::from(*is),
        Value::Number(number) => match (number.as_i64(), number.as_f64()) {
            (Some(whole), _) => Shown::from(whole),
            (None, Some(fraction)) => Shown::from(fraction),
            (None, None) => Shown::from(number.to_string()),
        },
        Value::String(text) => Shown::from(text.as_str()),
        Value::Array(list) => Shown::from(list.iter().map(shown).collect::<Vec<_>>()),
        Value::Object(fields) => {
            Shown::from(fields.iter().map(|(name, value)| (name.clone(), shown(value))).collect::<BTreeMap<_, _>>())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_others_say_cannot_become_markup() {
        let given = json!({"email": "a@b", "error": "<script>alert('x')</script> & \"more\""});
        let Html(page) = page("login.html", &given).unwrap();
        assert!(
            page.contains("&lt;script&gt;alert(&#x27;x&#x27;)&lt;&#x2f;script&gt; &amp; &quot;more&quot;"),
            "{page}"
        );
    }

    #[test]
    fn what_a_page_is_not_given_is_an_error() {
        assert!(page("login.html", &json!({"email": "a@b"})).is_err());
    }

    #[test]
    fn numbers_stay_numbers() {
        assert_eq!(shown(&json!([1, -2, 1.5])), Shown::from(vec![Shown::from(1), Shown::from(-2), Shown::from(1.5)]));
        assert_eq!((shown(&json!(null)), shown(&json!(true))), (Shown::from(()), Shown::from(true)));
    }
}

//! Renders our own pages from templates, and serves their static files. A debug build reads the files of this folder for
//! each page, so that a change shows without a rebuild; a release build embeds them.

use crate::http::api_error::ApiError;
use axum::extract::Path;
use axum::http::header;
use axum::response::{Html, IntoResponse};
use leoflow_base::home::{self, Home};
use minijinja::value::Value as TemplateValue;
use minijinja::{Environment, UndefinedBehavior};
use serde_json::Value;
use std::borrow::Cow;
use std::collections::BTreeMap;

/// A file of this folder, as it was when the program was built.
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
    "templates/docs_page.html"
    "templates/doctor.html"
    "templates/login.html"
    "templates/notifications.html"
    "templates/operation.html"
    "templates/releases.html"
    "templates/status.html"
    "templates/without_ui.html"
    "static/docs.js"
    "static/frame.js"
    "static/icon.svg"
    "static/operation.js"
    "static/status.js"
    "static/style.css"
    "static/times.js"
};

fn text(name: &str) -> Option<Cow<'static, str>> {
    let asset = ASSETS.iter().find(|asset| asset.name == name)?;
    if cfg!(debug_assertions) {
        let source = concat!(env!("CARGO_MANIFEST_DIR"), "/pages/");
        // A binary away from its sources uses the embedded text.
        if let Ok(edited) = std::fs::read_to_string(format!("{source}{name}")) {
            return Some(edited.into());
        }
    }
    Some(asset.text.into())
}

/// `GET /lite/static/…`: the style sheet, a script or the icon.
pub async fn static_file(Path(name): Path<String>) -> Result<impl IntoResponse, ApiError> {
    let media_type = match name.rsplit_once('.') {
        Some((_, "css")) => "text/css; charset=utf-8",
        Some((_, "svg")) => "image/svg+xml",
        _ => "text/javascript; charset=utf-8",
    };
    let text = text(&format!("static/{name}")).ok_or_else(|| ApiError::not_found("Not Found"))?;
    Ok(([(header::CONTENT_TYPE, media_type)], text))
}

/// Renders the template `name` of the folder `templates`. A variable that the template uses and `context` lacks is an
/// error; all values are escaped. The layout gets the instance's name, and the section of the navigation: the
/// template's name.
pub fn page(name: &str, instance: &str, mut context: Value) -> Result<Html<String>, ApiError> {
    if let Value::Object(fields) = &mut context {
        fields.insert("instance".to_owned(), instance.into());
        fields.insert("section".to_owned(), name.trim_end_matches(".html").into());
    }
    let mut environment = Environment::new();
    environment.set_undefined_behavior(UndefinedBehavior::Strict);
    environment.set_loader(|name: &str| Ok(text(&format!("templates/{name}")).map(Cow::into_owned)));
    let rendered = environment.get_template(name).and_then(|template| template.render(template_value(&context)));
    rendered.map(Html).map_err(|error| ApiError::internal(&format!("{name}: {error:#}")))
}

/// Converts JSON to a template's value. Serde would turn numbers of arbitrary precision into maps.
pub fn template_value(value: &Value) -> TemplateValue {
    match value {
        Value::Null => TemplateValue::from(()),
        Value::Bool(flag) => TemplateValue::from(*flag),
        Value::Number(number) => match (number.as_i64(), number.as_f64()) {
            (Some(whole), _) => TemplateValue::from(whole),
            (None, Some(fraction)) => TemplateValue::from(fraction),
            (None, None) => TemplateValue::from(number.to_string()),
        },
        Value::String(text) => TemplateValue::from(text.as_str()),
        Value::Array(list) => TemplateValue::from(list.iter().map(template_value).collect::<Vec<_>>()),
        Value::Object(fields) => TemplateValue::from(
            fields.iter().map(|(name, value)| (name.clone(), template_value(value))).collect::<BTreeMap<_, _>>(),
        ),
    }
}

/// The start of a command of this program on a page.
const COMMAND: &str = "<code>leoflow ";

/// Adds the option that chooses `home` to each command of this program on a page, unless a command acts on this home
/// without the option or already has one.
pub fn with_home(page: Html<String>, home: &Home) -> Html<String> {
    match home::option_for(home.root()) {
        Some(option) => Html(with_option(&page.0, &option)),
        None => page,
    }
}

fn with_option(page: &str, option: &str) -> String {
    let escaped = minijinja::HtmlEscape(option).to_string();
    let mut parts = page.split(COMMAND);
    let mut result = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        result.push_str(COMMAND);
        let arguments = part.split("</code>").next().unwrap_or_default();
        if !arguments.split_whitespace().any(|word| ["--home", "--instance"].contains(&word)) {
            result.push_str(&escaped);
            result.push(' ');
        }
        result.push_str(part);
    }
    result
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn commands_on_pages_name_the_home() {
        let text = "<code>leoflow doctor</code> of leoflow <code>leoflow --home /c lite stop</code>";
        let expected = "<code>leoflow --home &#x27;&#x2f;a b&#x27; doctor</code> of leoflow \
                        <code>leoflow --home /c lite stop</code>";
        assert_eq!(with_option(text, "--home '/a b'"), expected);
    }

    #[test]
    fn values_are_escaped() {
        let context = json!({"email": "a@b", "error": "<script>alert('x')</script> & \"more\""});
        let Html(page) = page("login.html", "one", context).unwrap();
        assert!(
            page.contains("&lt;script&gt;alert(&#x27;x&#x27;)&lt;&#x2f;script&gt; &amp; &quot;more&quot;"),
            "{page}"
        );
    }

    #[test]
    fn a_missing_variable_is_an_error() {
        assert!(page("login.html", "one", json!({"email": "a@b"})).is_err());
    }

    #[test]
    fn the_title_names_the_instance() {
        let Html(page) = page("login.html", "<mine>", json!({"email": "a@b", "error": null})).unwrap();
        assert!(page.contains("<title>Log in · &lt;mine&gt; · Leoflow Lite</title>"), "{page}");
    }

    #[test]
    fn the_navigation_marks_the_current_page() {
        let context = json!({"checks": [], "verdict": "healthy", "summary": "all checks passed", "reason": null});
        let Html(page) = page("doctor.html", "one", context).unwrap();
        assert!(page.contains("<a href=\"/lite/doctor\" aria-current=\"page\">Doctor</a>"), "{page}");
        assert_eq!(page.matches("aria-current").count(), 1);
    }

    #[test]
    fn numbers_stay_numbers() {
        assert_eq!(
            template_value(&json!([1, -2, 1.5])),
            TemplateValue::from(vec![TemplateValue::from(1), TemplateValue::from(-2), TemplateValue::from(1.5)])
        );
        assert_eq!(
            (template_value(&json!(null)), template_value(&json!(true))),
            (TemplateValue::from(()), TemplateValue::from(true))
        );
    }
}

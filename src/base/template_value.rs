//! Values of templates from JSON.

use minijinja::value::Value as TemplateValue;
use serde_json::Value;
use std::collections::BTreeMap;

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

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

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

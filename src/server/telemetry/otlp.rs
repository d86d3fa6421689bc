//! The JSON form of OpenTelemetry's protocol, OTLP. Numbers of 64 bits are texts, and ids are hexadecimal.

use jiff::Timestamp;
use serde_json::{Value, json};

const SCOPE: &str = "leoflow";

/// A request with the spans of a resource.
pub fn traces(resource: &[(String, String)], version: &str, spans: &[Value]) -> Value {
    json!({"resourceSpans": [{"resource": attributes(resource), "scopeSpans": [{"scope": scope(version), "spans": spans}]}]})
}

/// A request with the metrics of a resource.
pub fn metrics(resource: &[(String, String)], version: &str, metrics: &[Value]) -> Value {
    json!({"resourceMetrics": [
        {"resource": attributes(resource), "scopeMetrics": [{"scope": scope(version), "metrics": metrics}]}
    ]})
}

fn scope(version: &str) -> Value {
    json!({"name": SCOPE, "version": version})
}

fn attributes(resource: &[(String, String)]) -> Value {
    json!({"attributes": resource.iter().map(|(name, value)| attribute(name, value)).collect::<Vec<_>>()})
}

pub fn attribute(name: &str, value: &str) -> Value {
    json!({"key": name, "value": {"stringValue": value}})
}

pub fn integer_attribute(name: &str, value: i32) -> Value {
    json!({"key": name, "value": {"intValue": value.to_string()}})
}

/// Nanoseconds since 1970.
pub fn nanoseconds(time: Timestamp) -> String {
    time.as_nanosecond().max(0).to_string()
}

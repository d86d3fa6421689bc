//! Where traces and metrics are sent: the variables of OpenTelemetry and those of Airflow.

use percent_encoding::percent_decode_str;
use reqwest::Url;
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use std::fmt::{self, Display, Formatter};
use std::time::Duration;

const DEFAULT_INTERVAL: Duration = Duration::from_secs(60);
const DEFAULT_SERVICE: &str = "airflow";

/// A variable with a value that nothing can be sent with.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidTelemetry {
    #[error(
        "{0} demands gRPC, and Leoflow sends over HTTP: set it to http/protobuf, and use the endpoint for HTTP, whose port is usually 4318"
    )]
    Grpc(String),
    #[error("{0} is not an http address")]
    Endpoint(String),
    #[error("{0} must have the form NAME=VALUE,NAME=VALUE")]
    Pairs(String),
}

/// The variables; `None` for one that is not set or empty.
pub struct Variables<'a>(pub &'a dyn Fn(&str) -> Option<String>);

/// A kind of data.
#[derive(Debug, Clone, Copy)]
enum Signal {
    Traces,
    Metrics,
}

#[derive(Clone, PartialEq)]
pub struct Destination {
    pub url: Url,
    pub headers: HeaderMap,
}

impl Display for Destination {
    /// The address without what may be a secret: a user's name, a password and the query.
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", self.url.scheme(), self.url.host_str().unwrap_or_default())?;
        self.url.port().map_or(Ok(()), |port| write!(f, ":{port}"))?;
        f.write_str(self.url.path())
    }
}

impl fmt::Debug for Destination {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// The settings; without destinations nothing is sent.
#[derive(Debug)]
pub struct Settings {
    pub traces: Option<Destination>,
    pub metrics: Option<Destination>,
    /// The share of runs that are traced, from 0 to 1.
    pub ratio: f64,
    pub metrics_interval: Duration,
    /// Attributes of the resource, with `service.name`.
    pub resource: Vec<(String, String)>,
}

impl Settings {
    pub fn read(variables: &Variables<'_>) -> Result<Self, InvalidTelemetry> {
        let is_disabled = variables.is_true("OTEL_SDK_DISABLED");
        let destination = |signal| if is_disabled { Ok(None) } else { variables.destination(signal) };
        let interval = variables.get("OTEL_METRIC_EXPORT_INTERVAL").and_then(|text| text.trim().parse().ok());
        Ok(Self {
            traces: destination(Signal::Traces)?,
            metrics: destination(Signal::Metrics)?,
            ratio: variables.ratio(),
            metrics_interval: interval.filter(|ms| *ms > 0).map_or(DEFAULT_INTERVAL, Duration::from_millis),
            resource: variables.resource()?,
        })
    }
}

impl Variables<'_> {
    fn get(&self, name: &str) -> Option<String> {
        self.0(name).filter(|value| !value.trim().is_empty())
    }

    fn is_true(&self, name: &str) -> bool {
        let value = self.get(name).map(|value| value.trim().to_lowercase());
        value.is_some_and(|value| ["true", "t", "1"].contains(&value.as_str()))
    }

    /// The name and the value of the variable of a signal, else of the one for all signals.
    fn of_signal(&self, signal: Signal, suffix: &str) -> Option<(String, String)> {
        let names = [format!("OTEL_EXPORTER_OTLP_{}_{suffix}", signal.upper()), format!("OTEL_EXPORTER_OTLP_{suffix}")];
        names.into_iter().find_map(|name| self.get(&name).map(|value| (name, value)))
    }

    fn destination(&self, signal: Signal) -> Result<Option<Destination>, InvalidTelemetry> {
        let airflow = |key: &str| format!("AIRFLOW__{}__OTEL_{key}", signal.upper());
        let is_none = |value: String| value.split(',').any(|exporter| exporter.trim() == "none");
        if self.get(&format!("OTEL_{}_EXPORTER", signal.upper())).is_some_and(is_none) {
            return Ok(None);
        }
        let (name, address) = match self.of_signal(signal, "ENDPOINT") {
            Some((name, base)) if name == "OTEL_EXPORTER_OTLP_ENDPOINT" => {
                let address = format!("{}{}", base.trim_end_matches('/'), signal.path());
                (name, address)
            }
            Some(own) => own,
            None if self.is_true(&airflow("ON")) => {
                let scheme = if self.is_true(&airflow("SSL_ACTIVE")) { "https" } else { "http" };
                let host = self.get(&airflow("HOST")).unwrap_or_else(|| "localhost".to_owned());
                let port = self.get(&airflow("PORT")).unwrap_or_else(|| "4318".to_owned());
                (airflow("HOST"), format!("{scheme}://{host}:{port}{}", signal.path()))
            }
            None => return Ok(None),
        };
        if let Some((name, _)) = self.of_signal(signal, "PROTOCOL").filter(|(_, protocol)| protocol.trim() == "grpc") {
            return Err(InvalidTelemetry::Grpc(name));
        }
        let url = address.parse().ok().filter(|url: &Url| matches!(url.scheme(), "http" | "https"));
        let url = url.ok_or(InvalidTelemetry::Endpoint(name))?;
        let headers = self.of_signal(signal, "HEADERS");
        let headers = headers.map_or(Ok(HeaderMap::new()), |(name, text)| read_headers(name, &text))?;
        Ok(Some(Destination { url, headers }))
    }

    /// The share of runs that are traced.
    fn ratio(&self) -> f64 {
        let sampler = self.get("OTEL_TRACES_SAMPLER").unwrap_or_default();
        let argument = || self.get("OTEL_TRACES_SAMPLER_ARG").and_then(|text| text.trim().parse::<f64>().ok());
        match sampler.trim().trim_start_matches("parentbased_") {
            "always_off" => 0.0,
            "traceidratio" => argument().map_or(1.0, |ratio| ratio.clamp(0.0, 1.0)),
            _ => 1.0,
        }
    }

    fn resource(&self) -> Result<Vec<(String, String)>, InvalidTelemetry> {
        let name = "OTEL_RESOURCE_ATTRIBUTES";
        let mut attributes = pairs(name, &self.get(name).unwrap_or_default())?;
        let is_service = |attribute: &(String, String)| attribute.0 == "service.name";
        if let Some(own) = self.get("OTEL_SERVICE_NAME") {
            attributes.retain(|attribute| !is_service(attribute));
            attributes.push(("service.name".to_owned(), own));
        } else if !attributes.iter().any(is_service) {
            let airflow = ["AIRFLOW__TRACES__OTEL_SERVICE", "AIRFLOW__METRICS__OTEL_SERVICE"];
            let service = airflow.iter().find_map(|name| self.get(name)).unwrap_or_else(|| DEFAULT_SERVICE.to_owned());
            attributes.push(("service.name".to_owned(), service));
        }
        Ok(attributes)
    }
}

impl Signal {
    /// The part of variables' names.
    fn upper(self) -> &'static str {
        match self {
            Self::Traces => "TRACES",
            Self::Metrics => "METRICS",
        }
    }

    fn path(self) -> &'static str {
        match self {
            Self::Traces => "/v1/traces",
            Self::Metrics => "/v1/metrics",
        }
    }
}

/// Reads `NAME=VALUE,NAME=VALUE`, with percent encoding.
fn pairs(variable: &str, text: &str) -> Result<Vec<(String, String)>, InvalidTelemetry> {
    let decoded = |text: &str| percent_decode_str(text.trim()).decode_utf8_lossy().into_owned();
    let parts = text.split(',').filter(|part| !part.trim().is_empty());
    let pair = |part: &str| part.split_once('=').map(|(name, value)| (decoded(name), decoded(value)));
    parts.map(|part| pair(part).ok_or_else(|| InvalidTelemetry::Pairs(variable.to_owned()))).collect()
}

fn read_headers(variable: String, text: &str) -> Result<HeaderMap, InvalidTelemetry> {
    let mut headers = HeaderMap::new();
    for (name, value) in pairs(&variable, text)? {
        let header = HeaderName::try_from(name).ok().zip(HeaderValue::try_from(value).ok());
        let (name, mut value) = header.ok_or_else(|| InvalidTelemetry::Pairs(variable.clone()))?;
        value.set_sensitive(true);
        headers.insert(name, value);
    }
    Ok(headers)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(set: &[(&str, &str)]) -> Result<Settings, InvalidTelemetry> {
        let lookup = |name: &str| set.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned());
        Settings::read(&Variables(&lookup))
    }

    fn urls(set: &[(&str, &str)]) -> (Option<String>, Option<String>) {
        let settings = read(set).unwrap();
        let url = |destination: Option<Destination>| destination.map(|destination| destination.url.to_string());
        (url(settings.traces), url(settings.metrics))
    }

    #[test]
    fn destinations_follow_the_variables() {
        let both = |base: &str| (Some(format!("{base}/v1/traces")), Some(format!("{base}/v1/metrics")));
        let endpoint = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://collector:4318/");
        assert_eq!(urls(&[]), (None, None));
        assert_eq!(urls(&[endpoint]), both("http://collector:4318"));
        assert_eq!(urls(&[endpoint, ("OTEL_SDK_DISABLED", "true")]), (None, None));
        assert_eq!(urls(&[endpoint, ("OTEL_METRICS_EXPORTER", "none")]).1, None);
        let own = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "https://traces.example/in");
        assert_eq!(urls(&[endpoint, own]).0.as_deref(), Some("https://traces.example/in"));
        let airflow = [("AIRFLOW__TRACES__OTEL_ON", "True"), ("AIRFLOW__TRACES__OTEL_HOST", "collector")];
        assert_eq!(urls(&airflow), (Some("http://collector:4318/v1/traces".to_owned()), None));
        assert_eq!(urls(&[("AIRFLOW__TRACES__OTEL_HOST", "collector")]), (None, None));
    }

    #[test]
    fn values_that_cannot_work_are_refused_by_name() {
        let endpoint = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://collector:4318");
        let error = |other| read(&[endpoint, other]).unwrap_err();
        let protocol = "OTEL_EXPORTER_OTLP_PROTOCOL";
        assert_eq!(error((protocol, "grpc")), InvalidTelemetry::Grpc(protocol.to_owned()));
        let headers = "OTEL_EXPORTER_OTLP_HEADERS";
        assert_eq!(error((headers, "Authorization")), InvalidTelemetry::Pairs(headers.to_owned()));
        let address = read(&[("OTEL_EXPORTER_OTLP_ENDPOINT", "collector:4317")]).unwrap_err();
        assert_eq!(address, InvalidTelemetry::Endpoint("OTEL_EXPORTER_OTLP_ENDPOINT".to_owned()));
    }

    #[test]
    fn headers_are_decoded_and_the_service_has_a_name() {
        let settings = read(&[
            ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://collector:4318"),
            ("OTEL_EXPORTER_OTLP_HEADERS", "Authorization=Basic%20YTpi,x-team=data"),
            ("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment=laptop"),
            ("OTEL_TRACES_SAMPLER", "parentbased_traceidratio"),
            ("OTEL_TRACES_SAMPLER_ARG", "0.25"),
        ])
        .unwrap();
        let headers = settings.traces.unwrap().headers;
        assert_eq!(headers.get("authorization").unwrap(), "Basic YTpi");
        assert_eq!(headers.get("x-team").unwrap(), "data");
        let resource: Vec<_> = settings.resource.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        assert_eq!(resource, [("deployment.environment", "laptop"), ("service.name", "airflow")]);
        assert_eq!(settings.ratio, 0.25);
    }
}

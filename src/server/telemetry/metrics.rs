//! Metrics for OpenTelemetry, from the text that `/metrics` answers, so that both have the same numbers.

use super::otlp;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

/// The protocol's word for values that count from the start of the process.
const CUMULATIVE: u8 = 2;

/// Prefixes of metrics' names for Prometheus, each with the one for OpenTelemetry, where dots separate the parts.
const PREFIXES: [(&str, &str); 9] = [
    ("airflow_dagrun_duration_", "airflow.dagrun.duration."),
    ("airflow_dagrun_", "airflow.dagrun."),
    ("airflow_dag_processing_", "airflow.dag_processing."),
    ("airflow_executor_", "airflow.executor."),
    ("airflow_pool_", "airflow.pool."),
    ("airflow_scheduler_scheduler_", "airflow.scheduler.scheduler_"),
    ("airflow_ti_", "airflow.ti."),
    ("airflow_triggers_", "airflow.triggers."),
    ("airflow_", "airflow."),
];

fn dotted(name: &str) -> String {
    let dotted = PREFIXES.iter().find_map(|(prefix, dotted)| Some(format!("{dotted}{}", name.strip_prefix(prefix)?)));
    dotted.unwrap_or_else(|| name.replacen('_', ".", 1))
}

/// A sample line: `NAME{LABEL="VALUE",…} NUMBER`.
struct Sample<'a> {
    name: &'a str,
    labels: BTreeMap<String, String>,
    value: &'a str,
}

impl<'a> Sample<'a> {
    fn read(line: &'a str) -> Option<Self> {
        let end = line.find(['{', ' '])?;
        let (name, rest) = line.split_at(end);
        let (labels, value) = match rest.strip_prefix('{') {
            Some(rest) => read_labels(rest)?,
            None => (BTreeMap::new(), rest),
        };
        Some(Self { name, labels, value: value.trim() })
    }

    fn attributes(&self) -> Vec<Value> {
        self.labels.iter().map(|(name, value)| otlp::attribute(name, value)).collect()
    }

    fn number(&self) -> f64 {
        self.value.parse().unwrap_or(0.0)
    }
}

/// Reads labels up to the closing brace; returns them and what follows.
fn read_labels(text: &str) -> Option<(BTreeMap<String, String>, &str)> {
    let (mut labels, mut rest) = (BTreeMap::new(), text);
    while !rest.starts_with('}') {
        let (name, quoted) = rest.trim_start_matches(',').split_once("=\"")?;
        let (mut value, mut chars) = (String::new(), quoted.char_indices());
        let end = loop {
            match chars.next()? {
                (_, '\\') => match chars.next()?.1 {
                    'n' => value.push('\n'),
                    other => value.push(other),
                },
                (at, '"') => break at,
                (_, other) => value.push(other),
            }
        };
        labels.insert(name.to_owned(), value);
        rest = &quoted[end + 1..];
    }
    Some((labels, &rest[1..]))
}

/// A histogram of one set of labels.
#[derive(Default)]
struct Histogram {
    /// Upper bounds, each with the number of values up to it.
    buckets: Vec<(f64, u64)>,
    sum: f64,
    count: u64,
}

/// Reads OpenMetrics text. `start` and `now` are the times, in nanoseconds since 1970, since when counters count and of
/// the values.
pub fn read(text: &str, start: &str, now: &str) -> Vec<Value> {
    let (mut metrics, mut lines) = (Vec::new(), text.lines().peekable());
    while let Some(line) = lines.next() {
        // The description is before the type, or after it.
        let Some((name, kind)) = comment(line, "TYPE") else { continue };
        let mut samples = Vec::new();
        while let Some(line) = lines.next_if(|line| comment(line, "TYPE").is_none() && comment(line, "HELP").is_none())
        {
            samples.extend(Sample::read(line).filter(|_| !line.starts_with('#')));
        }
        let mut metric = Map::from_iter([("name".to_owned(), Value::from(dotted(name)))]);
        let points = |with_start: bool| -> Vec<Value> {
            samples.iter().map(|sample| point(sample, with_start.then_some(start), now)).collect()
        };
        let (key, value) = match kind {
            "counter" => {
                ("sum", json!({"dataPoints": points(true), "aggregationTemporality": CUMULATIVE, "isMonotonic": true}))
            }
            "histogram" => {
                metric.insert("unit".to_owned(), Value::from("s"));
                let points = histogram_points(name, &samples, start, now);
                ("histogram", json!({"dataPoints": points, "aggregationTemporality": CUMULATIVE}))
            }
            _ => ("gauge", json!({"dataPoints": points(false)})),
        };
        metric.insert(key.to_owned(), value);
        metrics.push(Value::Object(metric));
    }
    metrics
}

/// The name and the text of a comment of a kind.
fn comment<'a>(line: &'a str, kind: &str) -> Option<(&'a str, &'a str)> {
    line.strip_prefix("# ")?.strip_prefix(kind)?.trim_start().split_once(' ')
}

fn point(sample: &Sample<'_>, start: Option<&str>, now: &str) -> Value {
    json!({
        "attributes": sample.attributes(), "startTimeUnixNano": start.unwrap_or("0"), "timeUnixNano": now,
        "asDouble": sample.number(),
    })
}

fn histogram_points(name: &str, samples: &[Sample<'_>], start: &str, now: &str) -> Vec<Value> {
    let mut histograms: BTreeMap<BTreeMap<String, String>, Histogram> = BTreeMap::new();
    for sample in samples {
        let mut labels = sample.labels.clone();
        let bound = labels.remove("le");
        let histogram = histograms.entry(labels).or_default();
        match (sample.name.strip_prefix(name), bound) {
            (Some("_bucket"), Some(bound)) => {
                let bound = bound.parse().unwrap_or(f64::INFINITY);
                histogram.buckets.push((bound, sample.value.parse().unwrap_or(0)));
            }
            (Some("_sum"), _) => histogram.sum = sample.number(),
            (Some("_count"), _) => histogram.count = sample.value.parse().unwrap_or(0),
            _ => {}
        }
    }
    let point = |(labels, histogram): (BTreeMap<String, String>, Histogram)| {
        let attributes: Vec<Value> = labels.iter().map(|(name, value)| otlp::attribute(name, value)).collect();
        let before = [0].into_iter().chain(histogram.buckets.iter().map(|(_, count)| *count));
        // Prometheus counts the values up to a bound, OpenTelemetry those between two bounds.
        let counts =
            histogram.buckets.iter().zip(before).map(|((_, count), before)| count.saturating_sub(before).to_string());
        let bounds = histogram.buckets.iter().map(|(bound, _)| *bound).filter(|bound| bound.is_finite());
        json!({
            "attributes": attributes, "startTimeUnixNano": start, "timeUnixNano": now,
            "count": histogram.count.to_string(), "sum": histogram.sum,
            "bucketCounts": counts.collect::<Vec<_>>(), "explicitBounds": bounds.collect::<Vec<_>>(),
        })
    };
    histograms.into_iter().map(point).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_and_labels_are_those_of_the_text() {
        let text = "# HELP airflow_ti_finish Task instances.\n# TYPE airflow_ti_finish counter\n\
                    airflow_ti_finish_total{dag_id=\"a\\\"b\\n,c}\",state=\"success\"} 3\n\
                    # HELP airflow_dagrun_duration_success Seconds.\n# TYPE airflow_dagrun_duration_success histogram\n\
                    airflow_dagrun_duration_success_sum{dag_id=\"x\"} 7.5\n\
                    airflow_dagrun_duration_success_count{dag_id=\"x\"} 3\n\
                    airflow_dagrun_duration_success_bucket{le=\"1.0\",dag_id=\"x\"} 1\n\
                    airflow_dagrun_duration_success_bucket{le=\"5.0\",dag_id=\"x\"} 3\n\
                    airflow_dagrun_duration_success_bucket{le=\"+Inf\",dag_id=\"x\"} 3\n\
                    # HELP leoflow_datastore_up One.\n# TYPE leoflow_datastore_up gauge\nleoflow_datastore_up 1\n# EOF\n";
        let metrics = read(text, "5", "9");
        let names: Vec<&str> = metrics.iter().filter_map(|metric| metric["name"].as_str()).collect();
        assert_eq!(names, ["airflow.ti.finish", "airflow.dagrun.duration.success", "leoflow.datastore_up"]);
        let counter = &metrics[0]["sum"]["dataPoints"][0];
        assert_eq!(counter["asDouble"], 3.0);
        assert_eq!(counter["attributes"][0]["value"]["stringValue"], "a\"b\n,c}");
        let histogram = &metrics[1]["histogram"]["dataPoints"][0];
        assert_eq!(histogram["bucketCounts"], json!(["1", "2", "0"]));
        assert_eq!(histogram["explicitBounds"], json!([1.0, 5.0]));
        assert_eq!((&histogram["count"], &histogram["sum"]), (&json!("3"), &json!(7.5)));
        assert_eq!(metrics[2]["gauge"]["dataPoints"][0]["asDouble"], 1.0);
    }
}

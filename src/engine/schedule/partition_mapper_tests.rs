use super::*;
use serde_json::json;

fn mapper(value: Value) -> Limited {
    serde_json::from_value(value).unwrap()
}

fn start_of(period: &str, output_format: &str) -> Value {
    json!({"kind": "start_of", "period": period, "timezone": "UTC", "input_format": "%Y-%m-%dT%H:%M:%S",
           "output_format": output_format})
}

fn downstream(value: Value, key: &str) -> Result<Vec<String>, PartitionError> {
    mapper(value).to_downstream(key)
}

// Expected values are those of Airflow 3.3.2's mappers.
#[test]
fn start_of_maps_to_the_start_of_the_period() {
    let upstream_key = "2024-03-13T10:42:15";
    for (period, format, key, date) in [
        ("hour", "%Y-%m-%dT%H", "2024-03-13T10", "2024-03-13T10:00:00Z"),
        ("day", "%Y-%m-%d", "2024-03-13", "2024-03-13T00:00:00Z"),
        ("week", "%Y-%m-%d (W%V)", "2024-03-11 (W11)", "2024-03-11T00:00:00Z"),
        ("month", "%Y-%m", "2024-03", "2024-03-01T00:00:00Z"),
        ("quarter", "%Y-Q{quarter}", "2024-Q1", "2024-01-01T00:00:00Z"),
        ("year", "%Y", "2024", "2024-01-01T00:00:00Z"),
    ] {
        let mapper = mapper(start_of(period, format));
        assert_eq!(mapper.to_downstream(upstream_key).unwrap(), [key], "{period}");
        assert_eq!(mapper.mapper.date_of(key).unwrap(), Some(date.parse().unwrap()), "{period}");
    }
    assert!(downstream(start_of("day", "%Y-%m-%d"), "2024-03-13").is_err(), "does not match input_format");
    assert!(mapper(start_of("week", "W%V")).mapper.date_of("W11").is_err(), "contains no date");
}

#[test]
fn dates_respect_the_time_zone() {
    let mut berlin = start_of("day", "%Y-%m-%d");
    berlin["timezone"] = "Europe/Berlin".into();
    assert_eq!(
        mapper(berlin.clone()).mapper.date_of("2024-07-01").unwrap(),
        Some("2024-06-30T22:00:00Z".parse().unwrap())
    );
    berlin["input_format"] = "%Y-%m-%dT%H:%M:%S%z".into();
    for key in
        ["2024-06-30T22:30:00+0000", "2024-06-30T22:30:00+00:00", "2024-06-30T22:30:00Z", "2024-07-01T03:30:00+05:00"]
    {
        assert_eq!(downstream(berlin.clone(), key).unwrap(), ["2024-07-01"], "{key}");
    }
}

#[test]
fn products_and_chains_map_keys() {
    let product = json!({"kind": "product", "delimiter": "|",
                         "mappers": [{"kind": "identity"}, start_of("day", "%Y-%m-%d")]});
    assert_eq!(downstream(product.clone(), "us|2026-06-14T03:00:00").unwrap(), ["us|2026-06-14"]);
    assert!(downstream(product.clone(), "us").is_err());
    let date = mapper(product).mapper.date_of("us|2026-06-14").unwrap();
    assert_eq!(date, Some("2026-06-14T00:00:00Z".parse().unwrap()));
    let mut month = start_of("month", "%Y-%m");
    month["input_format"] = "%Y-%m-%d".into();
    let chain = json!({"kind": "chain", "mappers": [start_of("day", "%Y-%m-%d"), month]});
    assert_eq!(downstream(chain, "2026-06-14T03:00:00").unwrap(), ["2026-06"]);
}

#[test]
fn a_rollup_waits_for_its_window() {
    let day =
        json!({"kind": "rollup", "upstream": start_of("day", "%Y-%m-%d"), "window": {"period": "day"}, "wait": "all"});
    let day = mapper(day);
    assert_eq!(day.to_downstream("2026-06-14T03:00:00").unwrap(), ["2026-06-14"]);
    let (mut expected, wait) = day.mapper.expected("2026-06-14").unwrap().unwrap();
    assert_eq!(expected.len(), 24);
    assert!(expected.contains("2026-06-14T23:00:00"));
    assert_eq!(wait.is_over(&expected.clone(), &expected), Some(true));
    let all = expected.clone();
    expected.pop_first();
    assert_eq!(wait.is_over(&expected, &all), Some(false));

    let mut month = start_of("month", "%Y-%m");
    month["input_format"] = "%Y-%m-%d".into();
    let month = json!({"kind": "rollup", "upstream": month, "window": {"period": "month"}, "wait": {"minimum": -1}});
    let (expected, _) = mapper(month).mapper.expected("2024-02").unwrap().unwrap();
    assert_eq!((expected.len(), expected.last().map(String::as_str)), (29, Some("2024-02-29")));
}

#[test]
fn a_minimum_can_complete_a_window() {
    let set = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<BTreeSet<_>>();
    let all = set(&["us", "eu", "apac"]);
    assert_eq!(Wait::Minimum(2).is_over(&set(&["us", "mars"]), &all), Some(false));
    assert_eq!(Wait::Minimum(2).is_over(&set(&["us", "eu"]), &all), Some(true));
    assert_eq!(Wait::Minimum(-1).is_over(&set(&["us", "eu"]), &all), Some(true));
    assert_eq!(Wait::Minimum(4).is_over(&all, &all), None, "can never be met");
}

#[test]
fn fan_out_maps_one_key_to_many_runs() {
    let week = |backward: bool, limit: Option<usize>| {
        json!({"kind": "fan_out", "upstream": start_of("week", "%Y-%m-%d (W%V)"),
               "window": {"period": "week", "backward": backward}, "downstream": start_of("day", "%Y-%m-%d"),
               "max_downstream_keys": limit})
    };
    let days =
        |value| downstream(value, "2024-03-11T00:00:00").map(|keys| (keys.len(), keys[0].clone(), keys[6].clone()));
    assert_eq!(days(week(false, None)).unwrap(), (7, "2024-03-11".to_owned(), "2024-03-17".to_owned()));
    assert_eq!(days(week(true, Some(7))).unwrap(), (7, "2024-03-05".to_owned(), "2024-03-11".to_owned()));
    assert!(days(week(true, Some(6))).is_err());
    let segments = json!({"kind": "fan_out", "upstream": {"kind": "identity"}, "downstream": {"kind": "identity"},
                          "window": {"segments": ["us", "eu"]}});
    assert_eq!(downstream(segments, "live").unwrap(), ["eu", "us"]);
}

#[test]
fn rejects_keys_not_allowed_empty_or_too_long() {
    let allowed = json!({"kind": "allowed_key", "keys": ["us"]});
    assert_eq!(downstream(allowed.clone(), "us").unwrap(), ["us"]);
    assert_eq!(downstream(allowed, "eu").unwrap_err().to_string(), "Key \"eu\" not in allowed keys [\"us\"]");
    assert!(downstream(json!({"kind": "identity"}), " ").is_err());
    assert!(downstream(json!({"kind": "identity"}), &"x".repeat(251)).is_err());
}

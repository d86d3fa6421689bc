//! Names of task instances as printed and typed: `work`, or `work[7]` for one instance of a mapped task.

use crate::error::Error;
use serde_json::Value;

/// Formats an instance's name; a task that is not mapped has index -1.
pub fn display_name(task_id: &str, map_index: i32) -> String {
    if map_index < 0 { task_id.to_owned() } else { format!("{task_id}[{map_index}]") }
}

/// The name of a task instance in a response of the API.
pub fn name_of(task_instance: &Value) -> String {
    let map_index = task_instance["map_index"].as_i64().and_then(|index| i32::try_from(index).ok()).unwrap_or(-1);
    display_name(task_instance["task_id"].as_str().unwrap_or_default(), map_index)
}

/// Splits a name into the task's id and its map index; `None` without an index.
pub fn split(name: &str) -> (&str, Option<i32>) {
    let name_and_index = name.strip_suffix(']').and_then(|text| text.rsplit_once('['));
    match name_and_index
        .and_then(|(task_id, index)| Some((task_id, index.parse::<i32>().ok().filter(|index| *index >= 0)?)))
    {
        Some((task_id, index)) => (task_id, Some(index)),
        None => (name, None),
    }
}

/// Combines a name with `--map-index`, which must not contradict it. Returns -1 when neither has an index.
pub fn instance_name(name: &str, option: Option<i32>) -> Result<(&str, i32), Error> {
    match (split(name), option) {
        ((_, Some(in_name)), Some(option_value)) if in_name != option_value => {
            Err(Error::usage(format!("{name} and --map-index {option_value} are different instances"))
                .hint("use one of them: `work[7]`, or --map-index 7"))
        }
        ((task_id, in_name), option_value) => Ok((task_id, in_name.or(option_value).unwrap_or(-1))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn printed_names_parse_back() {
        for (task_id, index) in [("work", -1), ("work", 0), ("group.work-1", 12)] {
            let name = display_name(task_id, index);
            assert_eq!(instance_name(&name, None).unwrap(), (task_id, index), "{name}");
        }
        assert_eq!(split("work[x]"), ("work[x]", None));
        assert_eq!(instance_name("work", Some(3)).unwrap(), ("work", 3));
        assert_eq!(instance_name("work[3]", Some(3)).unwrap(), ("work", 3));
        assert!(instance_name("work[3]", Some(4)).is_err());
    }
}

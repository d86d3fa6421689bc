//! Names of task instances as printed and typed: `work`, `work[7]` for one instance of a mapped task, and `work@2` or
//! `work[7]@2` in the iteration 2 of a loop.

use crate::error::Error;
use leoflow_engine::model::keys::{NOT_MAPPED, Position};
use serde::Deserialize;
use serde_json::Value;

/// The name of a task instance in a response of the API.
pub fn name_of(task_instance: &Value) -> String {
    // The API names the iteration in a field of Airflow's, the local one beside the map index.
    let in_loop =
        task_instance["loop_iteration"]["iteration"].as_i64().and_then(|iteration| i32::try_from(iteration).ok());
    let named = Position::deserialize(task_instance).unwrap_or(Position::ONLY);
    let position = Position::checked(in_loop.or(named.iteration()), named.map_index()).unwrap_or(named);
    format!("{}{position}", task_instance["task_id"].as_str().unwrap_or_default())
}

/// Splits a name into the task's id and its position; `None` without an index and an iteration.
pub fn split(name: &str) -> (&str, Option<Position>) {
    let number = |text: &str| text.parse::<i32>().ok().filter(|number| *number >= 0);
    let in_loop = name.rsplit_once('@').and_then(|(rest, iteration)| Some((rest, number(iteration)?)));
    let (rest, iteration) = in_loop.map_or((name, None), |(rest, iteration)| (rest, Some(iteration)));
    let mapped = rest.strip_suffix(']').and_then(|text| text.rsplit_once('['));
    let mapped = mapped.and_then(|(task_id, index)| Some((task_id, number(index)?)));
    let (task_id, index) = match mapped {
        None if iteration.is_none() => return (name, None),
        mapped => mapped.unwrap_or((rest, NOT_MAPPED)),
    };
    Position::checked(iteration, index).map_or((name, None), |position| (task_id, Some(position)))
}

/// Combines a name with `--map-index`, which must not contradict it.
pub fn instance_name(name: &str, option: Option<i32>) -> Result<(&str, Position), Error> {
    match (split(name), option) {
        ((_, Some(in_name)), Some(option_value)) if ![option_value, NOT_MAPPED].contains(&in_name.map_index()) => {
            Err(Error::usage(format!("{name} and --map-index {option_value} are different instances"))
                .hint("use one of them: `work[7]`, or --map-index 7"))
        }
        ((task_id, position), None) => Ok((task_id, position.unwrap_or(Position::ONLY))),
        ((task_id, position), Some(index)) => Ok((task_id, position.unwrap_or(Position::ONLY).with_map_index(index))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn printed_names_parse_back() {
        let in_loop = Position::in_loop;
        let positions = [Position::ONLY, Position::mapped(0), Position::mapped(12), in_loop(2, -1), in_loop(0, 7)];
        for (task_id, position) in ["work", "group.work-1", "a", "b", "c"].into_iter().zip(positions) {
            let name = format!("{task_id}{position}");
            assert_eq!(instance_name(&name, None).unwrap(), (task_id, position), "{name}");
        }
        assert_eq!(split("work[x]"), ("work[x]", None));
        assert_eq!(split("work[1]@x"), ("work[1]@x", None));
        assert_eq!(split("work@99999"), ("work@99999", None));
        assert_eq!(instance_name("work", Some(3)).unwrap(), ("work", Position::mapped(3)));
        assert_eq!(instance_name("work[3]", Some(3)).unwrap(), ("work", Position::mapped(3)));
        assert_eq!(instance_name("work@1", Some(3)).unwrap(), ("work", in_loop(1, 3)));
        assert!(instance_name("work[3]", Some(4)).is_err());
    }
}

//! Names of task instances, as they are printed and typed: `work`, or `work[7]` for one instance of a mapped task.

use crate::error::Error;

/// Of an instance; a task that is not mapped has index -1.
pub fn printed(task_id: &str, map_index: i32) -> String {
    if map_index < 0 { task_id.to_owned() } else { format!("{task_id}[{map_index}]") }
}

/// The task and the index that a name has in it.
pub fn split(name: &str) -> (&str, Option<i32>) {
    let inner = name.strip_suffix(']').and_then(|rest| rest.rsplit_once('['));
    match inner.and_then(|(task_id, index)| Some((task_id, index.parse::<i32>().ok().filter(|index| *index >= 0)?))) {
        Some((task_id, index)) => (task_id, Some(index)),
        None => (name, None),
    }
}

/// The same, with `--map-index`, which may say nothing else. -1 where neither says one.
pub fn one_of(name: &str, option: Option<i32>) -> Result<(&str, i32), Error> {
    match (split(name), option) {
        ((_, Some(named)), Some(given)) if named != given => {
            Err(Error::usage(format!("{name} is one instance, and --map-index {given} another"))
                .hint("name it once: `work[7]`, or --map-index 7"))
        }
        ((task_id, named), given) => Ok((task_id, named.or(given).unwrap_or(-1))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_printed_is_understood() {
        for (task_id, index) in [("work", -1), ("work", 0), ("group.work-1", 12)] {
            let name = printed(task_id, index);
            assert_eq!(one_of(&name, None).unwrap(), (task_id, index), "{name}");
        }
        assert_eq!(split("work[x]"), ("work[x]", None));
        assert_eq!(one_of("work", Some(3)).unwrap(), ("work", 3));
        assert_eq!(one_of("work[3]", Some(3)).unwrap(), ("work", 3));
        assert!(one_of("work[3]", Some(4)).is_err());
    }
}

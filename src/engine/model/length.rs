//! The number of instances of a mapped task or copies of a mapped group.

use serde::{Deserialize, Serialize};

/// Number of elements that a task or group is mapped over, as an expression over the lists that tasks return.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Length {
    Known(usize),
    OfTask { task: String },
    Product { product: Vec<Length> },
    Sum { sum: Vec<Length> },
    Shortest { shortest: Vec<Length> },
    Longest { longest: Vec<Length> },
}

impl Length {
    /// Computes the number. `task_length` returns the number of elements that a task has returned; the result is `None`
    /// until it is known for every task that the length depends on.
    pub fn resolve(&self, task_length: &impl Fn(&str) -> Option<usize>) -> Option<usize> {
        let resolve_all =
            |parts: &[Self]| parts.iter().map(|part| part.resolve(task_length)).collect::<Option<Vec<_>>>();
        match self {
            Self::Known(length) => Some(*length),
            Self::OfTask { task } => task_length(task),
            Self::Product { product } => resolve_all(product).map(|parts| parts.into_iter().product()),
            Self::Sum { sum } => resolve_all(sum).map(|parts| parts.into_iter().sum()),
            Self::Shortest { shortest } => resolve_all(shortest).map(|parts| parts.into_iter().min().unwrap_or(0)),
            Self::Longest { longest } => resolve_all(longest).map(|parts| parts.into_iter().max().unwrap_or(0)),
        }
    }
}

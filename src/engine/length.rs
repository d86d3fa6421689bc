//! How many copies of a mapped task or group there are.

use serde::{Deserialize, Serialize};

/// How many elements something is mapped over.
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
    /// `None` as long as a task that it depends on has not said.
    pub fn resolve(&self, of_task: &impl Fn(&str) -> Option<usize>) -> Option<usize> {
        let all = |parts: &[Self]| parts.iter().map(|part| part.resolve(of_task)).collect::<Option<Vec<_>>>();
        match self {
            Self::Known(length) => Some(*length),
            Self::OfTask { task } => of_task(task),
            Self::Product { product } => all(product).map(|parts| parts.into_iter().product()),
            Self::Sum { sum } => all(sum).map(|parts| parts.into_iter().sum()),
            Self::Shortest { shortest } => all(shortest).map(|parts| parts.into_iter().min().unwrap_or(0)),
            Self::Longest { longest } => all(longest).map(|parts| parts.into_iter().max().unwrap_or(0)),
        }
    }
}

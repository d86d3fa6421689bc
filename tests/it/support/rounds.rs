//! How many rounds a test goes through. The machine that runs all tests for each change does a few of them;
//! `scripts/soak` does all.

use std::time::{SystemTime, UNIX_EPOCH};

/// Set by `scripts/soak`: every round.
const SOAK: &str = "LEOFLOW_SOAK";
/// Which ones are chosen when a few are; any number. Without it, others each day.
const SEED: &str = "LEOFLOW_TEST_SEED";

/// `few` of all rounds, spread evenly; all of them in a soak.
pub fn a_few<T>(all: impl IntoIterator<Item = T>, few: usize) -> Vec<T> {
    choose(all, few, &[])
}

/// The same with the first and the last of all: for checkpoints in their order, of which some are before and some after
/// the point of no return.
pub fn a_few_and_both_ends<T>(all: impl IntoIterator<Item = T>, few: usize) -> Vec<T> {
    let all: Vec<T> = all.into_iter().collect();
    let last = all.len().saturating_sub(1);
    choose(all, few, &[0, last])
}

fn choose<T>(all: impl IntoIterator<Item = T>, few: usize, always: &[usize]) -> Vec<T> {
    let all: Vec<T> = all.into_iter().collect();
    if is_soak() || all.len() <= few {
        return all;
    }
    // Shown when the test fails.
    eprintln!("these rounds again: {SEED}={}", seed());
    let chosen = spread(all.len(), few, seed());
    let is_chosen = |index: &usize| chosen.contains(index) || always.contains(index);
    all.into_iter().enumerate().filter(|(index, _)| is_chosen(index)).map(|(_, round)| round).collect()
}

pub fn is_soak() -> bool {
    std::env::var_os(SOAK).is_some()
}

pub fn seed() -> usize {
    let day = || SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs() / 86_400);
    let today = || usize::try_from(day()).unwrap_or(0);
    std::env::var(SEED).ok().and_then(|text| text.parse().ok()).unwrap_or_else(today)
}

/// One index of each of `few` equal parts, at the place in it that the seed says.
fn spread(count: usize, few: usize, seed: usize) -> Vec<usize> {
    (0..few)
        .map(|part| {
            let (from, to) = (part * count / few, (part + 1) * count / few);
            from + (seed + part) % (to - from)
        })
        .collect()
}

#[test]
fn every_round_has_its_turn_with_some_seed() {
    for (count, few) in [(30, 6), (13, 5), (7, 7)] {
        let mut seen: Vec<usize> = (0..count).flat_map(|seed| spread(count, few, seed)).collect();
        assert!(seen.chunks(few).all(|chosen| chosen.is_sorted()), "{seen:?}");
        seen.sort_unstable();
        seen.dedup();
        assert_eq!(seen, (0..count).collect::<Vec<_>>());
    }
}

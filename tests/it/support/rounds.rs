//! Chooses the rounds of a repeated test. Ordinary test runs do a few of them; `scripts/soak` does all.

use std::time::{SystemTime, UNIX_EPOCH};

/// Environment variable that selects all rounds; `scripts/soak` sets it.
const SOAK: &str = "LEOFLOW_SOAK";
/// Environment variable with the number that selects the rounds; the default changes each day.
const SEED: &str = "LEOFLOW_TEST_SEED";

/// Chooses `few` of all rounds, spread evenly; all of them in a soak.
pub fn sample_rounds<T>(all: impl IntoIterator<Item = T>, few: usize) -> Vec<T> {
    choose(all, few, &[])
}

/// Like [`sample_rounds`], but always includes the first and the last: for ordered checkpoints, some of which are
/// before and some after the point of no return.
pub fn sample_rounds_and_ends<T>(all: impl IntoIterator<Item = T>, few: usize) -> Vec<T> {
    let all: Vec<T> = all.into_iter().collect();
    let last = all.len().saturating_sub(1);
    choose(all, few, &[0, last])
}

fn choose<T>(all: impl IntoIterator<Item = T>, few: usize, always: &[usize]) -> Vec<T> {
    let all: Vec<T> = all.into_iter().collect();
    if is_soak() || all.len() <= few {
        return all;
    }
    // The output of a failed test includes this line.
    eprintln!("repeat these rounds with {SEED}={}", seed());
    let chosen = spread_indexes(all.len(), few, seed());
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

/// Chooses one index of each of `few` equal parts, at the offset that the seed gives.
fn spread_indexes(count: usize, few: usize, seed: usize) -> Vec<usize> {
    (0..few)
        .map(|part| {
            let (from, to) = (part * count / few, (part + 1) * count / few);
            from + (seed + part) % (to - from)
        })
        .collect()
}

#[test]
fn every_round_is_chosen_by_some_seed() {
    for (count, few) in [(30, 6), (13, 5), (7, 7)] {
        let mut seen: Vec<usize> = (0..count).flat_map(|seed| spread_indexes(count, few, seed)).collect();
        assert!(seen.chunks(few).all(|chosen| chosen.is_sorted()), "{seen:?}");
        seen.sort_unstable();
        seen.dedup();
        assert_eq!(seen, (0..count).collect::<Vec<_>>());
    }
}

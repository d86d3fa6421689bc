//! Compares the answers of invariants around the batches of a data migration, in the batch's own transaction, so that a
//! batch that alters data is rolled back.

use super::SchemaError;
use crate::PgError;
use crate::totals::{self, Answer, Invariant, Limits};
use std::time::{Duration, Instant};
use tokio_postgres::Transaction;

/// A comparison that takes at most this long is made around every batch.
const CHEAP: Duration = Duration::from_millis(200);
/// A longer comparison is made around the first batch, and again once this many times its duration has passed.
const INTERVAL: u32 = 10;
/// Time limit of all invariants together, because a batch locks its rows meanwhile.
const TIME_LIMIT: Duration = Duration::from_secs(1);

/// The invariants that a data migration must not change.
pub struct TotalsGuard {
    invariants: &'static [Invariant],
    /// End and duration of the last comparison.
    last: Option<(Instant, Duration)>,
}

/// The answers before a batch, and how long they took.
pub(super) struct Before {
    answers: Vec<Answer>,
    took: Duration,
}

impl TotalsGuard {
    pub fn new(invariants: &'static [Invariant]) -> Self {
        Self { invariants, last: None }
    }

    /// True when the next batch is to be compared. Its transaction must then be REPEATABLE READ, so that writes of
    /// others do not count.
    pub(super) fn is_due(&self) -> bool {
        self.last.is_none_or(|(end, took)| took <= CHEAP || end.elapsed() >= took * INTERVAL)
    }

    /// Answers the invariants before a batch. Those without an answer are not compared.
    pub(super) async fn before(&self, transaction: &Transaction<'_>) -> Result<Before, PgError> {
        let begun = Instant::now();
        let answers = totals::ask(transaction, self.invariants, Limits::total(TIME_LIMIT)).await?.answers;
        Ok(Before { answers, took: begun.elapsed() })
    }

    /// Fails if the batch changed an answer.
    pub(super) async fn after(&mut self, transaction: &Transaction<'_>, before: Before) -> Result<(), SchemaError> {
        let begun = Instant::now();
        let asked = totals::answered(self.invariants, &before.answers);
        let after = totals::ask(transaction, &asked, Limits::total(TIME_LIMIT)).await?.answers;
        self.last = Some((Instant::now(), before.took + begun.elapsed()));
        match totals::differences(&before.answers, &after).into_iter().next() {
            Some(difference) => Err(SchemaError::Totals(difference)),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_comparisons_are_made_now_and_then() {
        let guard = |last| TotalsGuard { invariants: &[], last };
        let (now, long) = (Instant::now(), Duration::from_secs(3600));
        assert!(guard(None).is_due() && guard(Some((now, CHEAP))).is_due());
        assert!(!guard(Some((now, long))).is_due());
        assert!(guard(now.checked_sub(CHEAP * 2 * INTERVAL).map(|end| (end, CHEAP * 2))).is_due());
    }
}

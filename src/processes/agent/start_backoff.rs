//! Backs off while tasks cannot start: without disk space, processes, descriptors, a working disk or the datastore.
//! `lite status` shows the reason; meanwhile tasks wait in the queue.

use leoflow_base::protocol::child::Notifier;
use std::time::Duration;
use tokio::time::Instant;
use tracing::{info, warn};

/// Pause before the first new attempt; each failure doubles it.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// A new attempt that lasts this long without a failure ends the backoff.
const PROBATION: Duration = Duration::from_secs(3);

pub struct StartBackoff {
    notifier: Notifier,
    /// The current backoff; `None` while tasks start normally.
    current: Option<Backoff>,
    /// Why a task folder cannot be read, and when this report ends unless a read fails again.
    unread: Option<(String, Instant)>,
}

struct Backoff {
    reason: String,
    pause: Duration,
    /// When `step` is due: the end of the pause or of the probation.
    until: Instant,
    /// True while one task is started as a test.
    on_probation: bool,
}

impl StartBackoff {
    pub fn new(notifier: Notifier) -> Self {
        Self { notifier, current: None, unread: None }
    }

    /// Notes a transient failure. Several failures within one pause count as one.
    pub fn note(&mut self, reason: String, now: Instant) {
        let (pause, until) = match &self.current {
            None => (FIRST_PAUSE, now + FIRST_PAUSE),
            Some(backoff) if !backoff.on_probation && backoff.until > now => (backoff.pause, backoff.until),
            Some(backoff) => {
                let pause = (backoff.pause * 2).min(LONGEST_PAUSE);
                (pause, now + pause)
            }
        };
        if self.current.as_ref().is_none_or(|backoff| backoff.reason != reason) {
            warn!("{reason}; retrying");
        }
        self.current = Some(Backoff { reason, pause, until, on_probation: false });
        self.report();
    }

    /// Notes that the folder of one try cannot be read. Other tries still start.
    pub fn note_unread(&mut self, reason: String, now: Instant) {
        let until = now + PROBATION;
        match &mut self.unread {
            // Keeps the first reason: with several unreadable folders, the report would alternate.
            Some((_, reported_until)) => *reported_until = until,
            None => {
                warn!("{reason}; retrying the read");
                self.unread = Some((reason, until));
            }
        }
        self.report();
    }

    /// How many of `free` task slots may be used now.
    pub fn capacity(&self, free: usize) -> usize {
        match &self.current {
            None => free,
            Some(backoff) if backoff.on_probation => free.min(1),
            Some(_) => 0,
        }
    }

    /// Completes when the next step is due; then call `step`.
    pub async fn due(&self) {
        let deadlines =
            [self.current.as_ref().map(|backoff| backoff.until), self.unread.as_ref().map(|(_, until)| *until)];
        match deadlines.into_iter().flatten().min() {
            Some(deadline) => tokio::time::sleep_until(deadline).await,
            None => std::future::pending().await,
        }
    }

    /// Allows a new attempt after a pause; ends the backoff after an attempt without failures.
    pub fn step(&mut self, now: Instant) {
        self.unread.take_if(|(_, until)| *until <= now);
        match &mut self.current {
            Some(backoff) if backoff.until > now => {}
            Some(backoff) if !backoff.on_probation => {
                backoff.on_probation = true;
                backoff.until = now + PROBATION;
            }
            Some(_) => {
                self.current = None;
                info!("tasks start again");
            }
            None => {}
        }
        self.report();
    }

    /// Sends the current reason every time: the supervisor may have been replaced, and a datagram may be lost.
    fn report(&self) {
        let reason = self.current.as_ref().map(|backoff| &backoff.reason);
        let reason = reason.or(self.unread.as_ref().map(|(reason, _)| reason));
        self.notifier.hindered(reason.map(String::as_str));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn nothing_starts_during_a_pause_then_one_then_all() {
        let mut start_backoff = StartBackoff::new(Notifier::silent());
        let pause = |start_backoff: &StartBackoff| start_backoff.current.as_ref().map(|backoff| backoff.pause);
        let now = Instant::now();
        assert_eq!(start_backoff.capacity(32), 32);
        start_backoff.note("disk full".to_owned(), now);
        start_backoff.note("disk full".to_owned(), now);
        assert_eq!(
            (start_backoff.capacity(32), pause(&start_backoff)),
            (0, Some(FIRST_PAUSE)),
            "failures within a pause count as one"
        );
        start_backoff.step(now + FIRST_PAUSE / 2);
        assert_eq!(start_backoff.capacity(32), 0, "before its time");
        let now = now + FIRST_PAUSE;
        start_backoff.step(now);
        assert_eq!(start_backoff.capacity(32), 1);
        start_backoff.note("disk full".to_owned(), now);
        assert_eq!((start_backoff.capacity(32), pause(&start_backoff)), (0, Some(FIRST_PAUSE * 2)));
        start_backoff.step(now + FIRST_PAUSE * 2);
        start_backoff.step(now + FIRST_PAUSE * 2 + PROBATION);
        assert_eq!((start_backoff.capacity(32), pause(&start_backoff)), (32, None));
    }

    #[test]
    fn failures_during_a_pause_do_not_prolong_it() {
        let mut start_backoff = StartBackoff::new(Notifier::silent());
        let (begin, mut attempts) = (Instant::now(), 0);
        for second in 0..60 {
            let now = begin + SECOND * second;
            start_backoff.step(now);
            attempts += usize::from(start_backoff.capacity(32) == 1);
            start_backoff.note("disk full".to_owned(), now);
        }
        assert!(attempts >= 60 / 6, "{attempts}");
    }

    #[test]
    fn an_unreadable_try_is_reported_and_blocks_no_other() {
        let mut start_backoff = StartBackoff::new(Notifier::silent());
        let begin = Instant::now();
        for second in 0..60 {
            let now = begin + SECOND * second;
            start_backoff.note_unread("cannot be read".to_owned(), now);
            start_backoff.step(now);
            assert_eq!((start_backoff.capacity(32), start_backoff.unread.is_some()), (32, true));
        }
        start_backoff.step(begin + SECOND * 60 + PROBATION);
        assert!(start_backoff.unread.is_none());
    }
}

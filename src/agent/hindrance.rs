//! What keeps the agent from its work for a while: no room on the disk, no process or descriptor left, a device that
//! fails. It is shown by `lite status`; meanwhile tasks wait in the queue.

use crate::protocol::child::Notifier;
use std::time::Duration;
use tokio::time::Instant;
use tracing::{info, warn};

/// Until the first new attempt; each one that fails doubles it.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// How long a new attempt has to fail before the trouble counts as over.
const PROBATION: Duration = Duration::from_secs(3);

pub struct Hindrance {
    notifier: Notifier,
    now: Option<Trouble>,
    /// A task folder that cannot be read, and until when this is reported unless it happens again.
    unread: Option<(String, Instant)>,
}

struct Trouble {
    reason: String,
    pause: Duration,
    until: Instant,
    /// Whether a first task is tried again.
    on_probation: bool,
}

impl Hindrance {
    pub fn new(notifier: Notifier) -> Self {
        Self { notifier, now: None, unread: None }
    }

    /// Something failed for a reason that passes. Several failures within one pause count as one.
    pub fn note(&mut self, reason: String, now: Instant) {
        let (pause, until) = match &self.now {
            None => (FIRST_PAUSE, now + FIRST_PAUSE),
            Some(trouble) if !trouble.on_probation && trouble.until > now => (trouble.pause, trouble.until),
            Some(trouble) => {
                let pause = (trouble.pause * 2).min(LONGEST_PAUSE);
                (pause, now + pause)
            }
        };
        if self.now.as_ref().is_none_or(|trouble| trouble.reason != reason) {
            warn!("{reason}; trying again until it passes");
        }
        self.now = Some(Trouble { reason, pause, until, on_probation: false });
        self.report();
    }

    /// The folder of one try cannot be read. Others start meanwhile.
    pub fn note_unread(&mut self, reason: String, now: Instant) {
        let until = now + PROBATION;
        match &mut self.unread {
            // The first reason stays: several folders would alternate.
            Some((_, reported_until)) => *reported_until = until,
            None => {
                warn!("{reason}; reading it again until it can be read");
                self.unread = Some((reason, until));
            }
        }
        self.report();
    }

    /// How many tasks may be started now, of so many.
    pub fn room(&self, room: usize) -> usize {
        match &self.now {
            None => room,
            Some(trouble) if trouble.on_probation => room.min(1),
            Some(_) => 0,
        }
    }

    /// Completes when the next step is due; then call `step`.
    pub async fn due(&self) {
        let at = [self.now.as_ref().map(|trouble| trouble.until), self.unread.as_ref().map(|(_, until)| *until)];
        match at.into_iter().flatten().min() {
            Some(at) => tokio::time::sleep_until(at).await,
            None => std::future::pending().await,
        }
    }

    /// After a pause: a new attempt. After an attempt in which nothing failed: it is over.
    pub fn step(&mut self, now: Instant) {
        self.unread.take_if(|(_, until)| *until <= now);
        match &mut self.now {
            Some(trouble) if trouble.until > now => {}
            Some(trouble) if !trouble.on_probation => {
                trouble.on_probation = true;
                trouble.until = now + PROBATION;
            }
            Some(_) => {
                self.now = None;
                info!("tasks are started again");
            }
            None => {}
        }
        self.report();
    }

    /// Sent each time: the supervisor may be a new one, and a datagram may be lost.
    fn report(&self) {
        let reason = self.now.as_ref().map(|trouble| &trouble.reason);
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
        let mut hindrance = Hindrance::new(Notifier::silent());
        let pause = |hindrance: &Hindrance| hindrance.now.as_ref().map(|trouble| trouble.pause);
        let now = Instant::now();
        assert_eq!(hindrance.room(32), 32);
        hindrance.note("no room".to_owned(), now);
        hindrance.note("no room".to_owned(), now);
        assert_eq!((hindrance.room(32), pause(&hindrance)), (0, Some(FIRST_PAUSE)), "failures together are one");
        hindrance.step(now + FIRST_PAUSE / 2);
        assert_eq!(hindrance.room(32), 0, "before its time");
        let now = now + FIRST_PAUSE;
        hindrance.step(now);
        assert_eq!(hindrance.room(32), 1);
        hindrance.note("no room".to_owned(), now);
        assert_eq!((hindrance.room(32), pause(&hindrance)), (0, Some(FIRST_PAUSE * 2)));
        hindrance.step(now + FIRST_PAUSE * 2);
        hindrance.step(now + FIRST_PAUSE * 2 + PROBATION);
        assert_eq!((hindrance.room(32), pause(&hindrance)), (32, None));
    }

    #[test]
    fn failures_during_a_pause_do_not_prolong_it() {
        let mut hindrance = Hindrance::new(Notifier::silent());
        let (begin, mut attempts) = (Instant::now(), 0);
        for second in 0..60 {
            let now = begin + SECOND * second;
            hindrance.step(now);
            attempts += usize::from(hindrance.room(32) == 1);
            hindrance.note("no room".to_owned(), now);
        }
        assert!(attempts >= 60 / 6, "{attempts}");
    }

    #[test]
    fn an_unreadable_try_is_reported_and_holds_up_no_other() {
        let mut hindrance = Hindrance::new(Notifier::silent());
        let begin = Instant::now();
        for second in 0..60 {
            let now = begin + SECOND * second;
            hindrance.note_unread("cannot be read".to_owned(), now);
            hindrance.step(now);
            assert_eq!((hindrance.room(32), hindrance.unread.is_some()), (32, true));
        }
        hindrance.step(begin + SECOND * 60 + PROBATION);
        assert!(hindrance.unread.is_none());
    }
}

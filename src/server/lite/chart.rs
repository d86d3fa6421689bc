//! The chart of finished tasks on the status page: counts become bars of an SVG. Reads no database and no clock.

use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};
use leoflow_engine::store::list::overview::FinishedTasks;
use serde::Serialize;

/// The time that one bar covers. The query, the number of bars and all labels depend on it.
pub const BAR_DURATION: SignedDuration = SignedDuration::from_mins(30);
/// The time that the whole chart covers; a multiple of [`BAR_DURATION`].
pub const CHART_DURATION: SignedDuration = SignedDuration::from_hours(24);

/// Units of the SVG's coordinates. The drawing is stretched to the page's width.
const BAR_WIDTH: i64 = 20;
const GAP: i64 = 4;
const HEIGHT: i64 = 1000;
/// The height of the smallest part of a bar, so that one failure among thousands is visible.
const SMALLEST: i64 = 20;

/// The time that the chart shows. Bars begin at full multiples of [`BAR_DURATION`], so that they stay the same from one
/// page load to the next; the last one is the current one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Window {
    pub start: Timestamp,
    pub end: Timestamp,
}

impl Window {
    pub fn ending_with(now: Timestamp) -> Self {
        let bar = BAR_DURATION.as_secs();
        let end = (now.as_second().div_euclid(bar) + 1) * bar;
        let time = |second| Timestamp::from_second(second).unwrap_or(now);
        Self { start: time(end - CHART_DURATION.as_secs()), end: time(end) }
    }
}

#[derive(Debug, PartialEq, Eq, Serialize)]
pub struct Chart {
    pub width: i64,
    pub height: i64,
    /// `30 minutes`
    pub bar_length: String,
    /// `24 hours`
    pub span: String,
    pub succeeded: i64,
    pub failed: i64,
    /// The most tasks of one bar.
    pub most: i64,
    /// Bars with at least one task, oldest first.
    pub bars: Vec<Bar>,
}

/// One bar: the part for failed tasks is above the part for succeeded ones.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub struct Bar {
    /// `14:30 to 15:00`
    pub time: String,
    pub succeeded: i64,
    pub failed: i64,
    pub x: i64,
    pub width: i64,
    pub succeeded_y: i64,
    pub succeeded_height: i64,
    pub failed_y: i64,
    pub failed_height: i64,
}

/// Draws the counts of a window; times are shown in `zone`. Counts outside the window are ignored.
pub fn chart(counts: &[FinishedTasks], window: Window, zone: &TimeZone) -> Chart {
    let bar_count = CHART_DURATION.as_secs() / BAR_DURATION.as_secs();
    let is_shown = |interval_counts: &&FinishedTasks| {
        (0..bar_count).contains(&interval_counts.interval) && total(interval_counts) > 0
    };
    let shown = counts.iter().filter(is_shown);
    let most = shown.clone().map(total).max().unwrap_or(0);
    Chart {
        width: bar_count * BAR_WIDTH,
        height: HEIGHT,
        bar_length: duration_text(BAR_DURATION),
        span: duration_text(CHART_DURATION),
        succeeded: shown.clone().map(|interval_counts| interval_counts.succeeded).sum(),
        failed: shown.clone().map(|interval_counts| interval_counts.failed).sum(),
        most,
        bars: shown.map(|interval_counts| bar(interval_counts, most, window, zone)).collect(),
    }
}

fn total(interval_counts: &FinishedTasks) -> i64 {
    interval_counts.succeeded + interval_counts.failed
}

fn bar(interval_counts: &FinishedTasks, most: i64, window: Window, zone: &TimeZone) -> Bar {
    let whole = height(total(interval_counts), most);
    // If a bar has both parts, each is at least SMALLEST high.
    let failed_height = match (interval_counts.failed, interval_counts.succeeded) {
        (0, _) => 0,
        (_, 0) => whole,
        (failed, _) => height(failed, most).min(whole - SMALLEST).max(SMALLEST),
    };
    let succeeded_height = (whole - failed_height).max(if interval_counts.succeeded > 0 { SMALLEST } else { 0 });
    let failed_y = (HEIGHT - succeeded_height - failed_height).max(0);
    let time = |interval: i64| {
        let second = window.start.as_second() + interval * BAR_DURATION.as_secs();
        let time = Timestamp::from_second(second).unwrap_or(window.start);
        time.to_zoned(zone.clone()).strftime("%H:%M").to_string()
    };
    Bar {
        time: format!("{} to {}", time(interval_counts.interval), time(interval_counts.interval + 1)),
        succeeded: interval_counts.succeeded,
        failed: interval_counts.failed,
        x: interval_counts.interval * BAR_WIDTH + GAP / 2,
        width: BAR_WIDTH - GAP,
        succeeded_y: HEIGHT - succeeded_height,
        succeeded_height,
        failed_y,
        failed_height,
    }
}

/// The height of `count` tasks if the highest bar has `most` tasks.
fn height(count: i64, most: i64) -> i64 {
    let exact = i128::from(count) * i128::from(HEIGHT) / i128::from(most.max(1));
    i64::try_from(exact).unwrap_or(HEIGHT).clamp(SMALLEST, HEIGHT)
}

/// `30 minutes`, `1 hour`
pub fn duration_text(duration: SignedDuration) -> String {
    let (count, unit) = match (duration.as_hours(), duration.as_mins()) {
        (hours, minutes) if hours > 0 && minutes % 60 == 0 => (hours, "hour"),
        (_, minutes) => (minutes, "minute"),
    };
    format!("{count} {unit}{}", if count == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn finished(interval: i64, succeeded: i64, failed: i64) -> FinishedTasks {
        FinishedTasks { interval, succeeded, failed }
    }

    fn drawn(counts: &[FinishedTasks]) -> Chart {
        chart(counts, Window::ending_with("2026-03-02T14:44:10Z".parse().unwrap()), &TimeZone::UTC)
    }

    #[test]
    fn the_last_bar_is_the_current_one() {
        let window = Window::ending_with("2026-03-02T14:44:10Z".parse().unwrap());
        assert_eq!(window.end.to_string(), "2026-03-02T15:00:00Z");
        assert_eq!(window.end.duration_since(window.start), CHART_DURATION);
        assert_eq!(CHART_DURATION.as_secs() % BAR_DURATION.as_secs(), 0);
        assert_eq!(drawn(&[finished(47, 1, 0)]).bars[0].time, "14:30 to 15:00");
    }

    #[test]
    fn parts_stack_up_to_the_highest_bar() {
        let drawn = drawn(&[finished(0, 6, 2), finished(3, 4, 0), finished(4, 0, 2)]);
        assert_eq!((drawn.succeeded, drawn.failed, drawn.most, drawn.bars.len()), (10, 4, 8, 3));
        let [both, good, bad] = &drawn.bars[..] else { panic!("{drawn:?}") };
        assert_eq!((both.failed_y, both.failed_height, both.succeeded_y, both.succeeded_height), (0, 250, 250, 750));
        assert_eq!((good.x, good.succeeded_height, good.failed_height), (3 * BAR_WIDTH + GAP / 2, 500, 0));
        assert_eq!((bad.failed_y, bad.failed_height, bad.succeeded_height), (750, 250, 0));
        assert!(both.x + both.width <= BAR_WIDTH && drawn.width == 48 * BAR_WIDTH);
    }

    #[test]
    fn one_failure_among_thousands_is_visible() {
        for (succeeded, failed) in [(100_000, 1), (1, 100_000)] {
            let drawn = drawn(&[finished(9, succeeded, failed)]);
            let bar = &drawn.bars[0];
            assert!(bar.failed_height >= SMALLEST && bar.succeeded_height >= SMALLEST, "{bar:?}");
            assert_eq!(bar.failed_height + bar.succeeded_height, HEIGHT);
        }
        let drawn = drawn(&[finished(9, 100_000, 0), finished(10, 1, 1)]);
        let small = &drawn.bars[1];
        assert_eq!((small.failed_height, small.succeeded_height), (SMALLEST, SMALLEST));
        assert_eq!(small.failed_y + small.failed_height, small.succeeded_y);
    }

    #[test]
    fn ignores_counts_outside_the_window() {
        let drawn = drawn(&[finished(-1, 9, 9), finished(48, 9, 9), finished(5, 0, 0)]);
        assert_eq!((drawn.bars.len(), drawn.most, drawn.succeeded), (0, 0, 0));
    }

    #[test]
    fn lengths_are_shown_in_words() {
        let text = |minutes| duration_text(SignedDuration::from_mins(minutes));
        assert_eq!((text(30).as_str(), text(60).as_str(), text(90).as_str()), ("30 minutes", "1 hour", "90 minutes"));
        assert_eq!(duration_text(CHART_DURATION), "24 hours");
    }
}

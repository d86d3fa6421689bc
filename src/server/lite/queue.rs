//! Why tasks and runs wait, for the status page and for the commands that show a run. Pure.
//!
//! The reasons follow the rules of `store::transition::run::start_queued` and `planner::pool_limits`, as far as counts
//! show them.

use jiff::Timestamp;
use leoflow_base::counted::counted;
use leoflow_base::sys::shell;
use leoflow_engine::store::instance::backlog::{Backlog, QueuedRuns, ScheduledTasks};
use leoflow_engine::store::instance::tries::SLOTS;
use leoflow_engine::store::pools::Pool;
use serde::Serialize;

/// Work that waits for one reason.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub struct Waiting {
    /// `12 tasks`, `1 run`
    pub what: String,
    /// `None` for work of any DAG.
    pub dag_id: Option<String>,
    pub reason: String,
    /// A command that lets the work run, if there is one.
    pub command: Option<String>,
    /// Since when the work waits, or when it is due.
    pub time: Option<WaitTime>,
}

#[derive(Debug, PartialEq, Eq, Serialize)]
pub struct WaitTime {
    /// `since` or `until`
    pub relation: &'static str,
    pub time: String,
}

/// Lists all waiting work: tasks first, then runs. `running` is the number of tasks that the agent runs.
pub fn waiting(backlog: &Backlog, pools: &[Pool], running: usize) -> Vec<Waiting> {
    let mut all = Vec::new();
    if backlog.queued > 0 {
        let reason = match running >= SLOTS {
            true => format!("The agent runs {SLOTS} tasks, as many as it runs at once"),
            false => "Waiting for the agent".to_owned(),
        };
        all.push(of_any_dag(backlog.queued, reason, wait_time("since", backlog.queued_since)));
    }
    if backlog.due > 0 {
        let reason = "Waiting for a retry or for the next check of a sensor".to_owned();
        all.push(of_any_dag(backlog.due, reason, wait_time("until", backlog.next_due)));
    }
    all.extend(of_backlog(backlog, pools));
    all
}

/// Lists the scheduled tasks and the queued runs, each with its own reason; tasks first.
pub fn of_backlog(backlog: &Backlog, pools: &[Pool]) -> Vec<Waiting> {
    let tasks = backlog.scheduled.iter().map(|tasks| of_tasks(tasks, pools));
    tasks.chain(backlog.runs.iter().map(of_runs)).collect()
}

fn of_any_dag(count: i64, reason: String, time: Option<WaitTime>) -> Waiting {
    Waiting { what: counted(count, "task"), dag_id: None, reason, command: None, time }
}

fn of_tasks(tasks: &ScheduledTasks, pools: &[Pool]) -> Waiting {
    let pool = pools.iter().find(|pool| pool.name == tasks.pool);
    let (name, open) = (&tasks.pool, pool.map_or(0, Pool::open));
    let has_slots = pool.is_some_and(|pool| pool.slots < 0) || open >= i64::from(tasks.pool_slots);
    let (reason, command) = if tasks.is_paused {
        ("The DAG is paused".to_owned(), Some(unpause(&tasks.dag_id)))
    } else if !tasks.is_run_running {
        ("Their run is not running".to_owned(), None)
    } else if pool.is_none() {
        let command = format!("leoflow pools set {} 8", shell::word(name));
        (format!("There is no pool {name}"), Some(command))
    } else if pool.is_some_and(|pool| pool.slots >= 0 && pool.slots < tasks.pool_slots) {
        let (slots, needed) = (pool.map_or(0, |pool| pool.slots), tasks.pool_slots);
        let command = format!("leoflow pools set {} {needed}", shell::word(name));
        (format!("The pool {name} has {slots} slots, and a task needs {needed}"), Some(command))
    } else if !has_slots {
        let slots = pool.map_or(0, |pool| pool.slots);
        let needs = match tasks.pool_slots {
            1 => String::new(),
            slots => format!(", and a task needs {slots}"),
        };
        let command = format!("leoflow pools set {} {}", shell::word(name), (i64::from(slots) * 2).max(1));
        (format!("The pool {name} is full: {open} of {slots} slots are free{needs}"), Some(command))
    } else {
        ("The limit of concurrent tasks of the DAG, its run or the task is reached".to_owned(), None)
    };
    let (what, dag_id) = (counted(tasks.count, "task"), Some(tasks.dag_id.clone()));
    Waiting { what, dag_id, reason, command, time: wait_time("since", tasks.since) }
}

fn of_runs(runs: &QueuedRuns) -> Waiting {
    let (reason, command) = if !runs.is_active {
        ("No file defines the DAG", None)
    } else if runs.is_paused {
        ("The DAG is paused", Some(unpause(&runs.dag_id)))
    } else if runs.is_backfill_paused {
        ("The backfill is paused", None)
    } else if runs.is_later {
        ("Due later", None)
    } else {
        ("The limit of active runs of the DAG or its backfill is reached (max_active_runs)", None)
    };
    let time = wait_time(if runs.is_later { "until" } else { "since" }, Some(runs.run_after));
    let (what, dag_id) = (counted(runs.count, "run"), Some(runs.dag_id.clone()));
    Waiting { what, dag_id, reason: reason.to_owned(), command, time }
}

/// Tasks that `depends_on_past` holds back until they have succeeded in the run `previous_run`.
pub fn of_past(count: usize, dag_id: &str, previous_run: &str) -> Waiting {
    let what = counted(count, "task");
    let reason = format!("Waiting for success in the previous run {previous_run} (depends_on_past)");
    Waiting { what, dag_id: Some(dag_id.to_owned()), reason, command: None, time: None }
}

fn wait_time(relation: &'static str, time: Option<Timestamp>) -> Option<WaitTime> {
    time.map(|time| WaitTime { relation, time: time.to_string() })
}

fn unpause(dag_id: &str) -> String {
    format!("leoflow dags unpause {}", shell::word(dag_id))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pool(slots: i32, running: i64) -> Pool {
        Pool {
            name: "default_pool".to_owned(),
            slots,
            description: None,
            include_deferred: false,
            running,
            queued: 0,
            scheduled: 3,
            deferred: 0,
        }
    }

    fn tasks() -> ScheduledTasks {
        ScheduledTasks {
            dag_id: "a b".to_owned(),
            pool: "default_pool".to_owned(),
            is_paused: false,
            is_run_running: true,
            pool_slots: 1,
            count: 3,
            since: None,
        }
    }

    fn reason(tasks: &ScheduledTasks, pools: &[Pool]) -> String {
        let backlog = Backlog { scheduled: vec![tasks.clone()], ..Backlog::default() };
        waiting(&backlog, pools, 0).remove(0).reason
    }

    #[test]
    fn tasks_wait_for_one_reason() {
        let full = [pool(2, 2)];
        assert!(reason(&tasks(), &full).contains("is full: 0 of 2 slots"));
        assert!(reason(&ScheduledTasks { pool_slots: 3, ..tasks() }, &[pool(3, 1)]).contains("a task needs 3"));
        assert!(
            reason(&ScheduledTasks { pool_slots: 9, ..tasks() }, &[pool(2, 0)])
                .contains("has 2 slots, and a task needs 9")
        );
        assert!(reason(&tasks(), &[pool(9, 2)]).contains("limit of concurrent tasks"));
        assert!(reason(&tasks(), &[pool(-1, 200)]).contains("limit of concurrent tasks"));
        assert!(reason(&tasks(), &[]).contains("no pool default_pool"));
        assert!(reason(&ScheduledTasks { is_run_running: false, ..tasks() }, &full).contains("not running"));
        let paused = of_tasks(&ScheduledTasks { is_paused: true, ..tasks() }, &full);
        assert_eq!(paused.command.as_deref(), Some("leoflow dags unpause 'a b'"));
        assert_eq!(paused.what, "3 tasks");
    }

    #[test]
    fn queued_tasks_wait_for_the_agent() {
        let backlog = Backlog { queued: 1, ..Backlog::default() };
        assert_eq!(waiting(&backlog, &[], 3)[0].reason, "Waiting for the agent");
        assert!(waiting(&backlog, &[], SLOTS)[0].reason.contains("as many as it runs at once"));
        assert_eq!(waiting(&Backlog::default(), &[], SLOTS), []);
    }

    #[test]
    fn runs_wait_for_their_dag_or_their_time() {
        let runs = QueuedRuns {
            dag_id: "a".to_owned(),
            is_paused: false,
            is_active: true,
            is_backfill_paused: false,
            is_later: false,
            count: 2,
            run_after: "2026-03-02T14:00:00Z".parse().unwrap(),
        };
        let reason = |runs: &QueuedRuns| of_runs(runs).reason;
        assert!(reason(&runs).contains("max_active_runs"));
        assert!(reason(&QueuedRuns { is_paused: true, ..runs.clone() }).contains("paused"));
        assert!(reason(&QueuedRuns { is_active: false, ..runs.clone() }).contains("No file"));
        assert!(reason(&QueuedRuns { is_backfill_paused: true, ..runs.clone() }).contains("backfill is paused"));
        let later = of_runs(&QueuedRuns { is_later: true, ..runs });
        assert_eq!((later.reason.as_str(), later.time.map(|time| time.relation)), ("Due later", Some("until")));
    }
}

//! Computes when runs of a DAG are due. Pure, except for random numbers.

pub mod asset_condition;
pub mod cron;
mod cron_field;
mod cron_random;
mod cron_text;
pub mod partition_key;
pub mod partition_mapper;
pub mod partition_ticks;
pub mod partition_window;
pub mod run_dates;
pub mod series;
pub mod timetable;
pub mod upcoming;
pub mod zone;

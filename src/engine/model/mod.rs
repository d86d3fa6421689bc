//! The objects of the engine without their storage: states, keys, the structure of a DAG, params.

pub mod dag;
pub mod dag_check;
pub mod keys;
pub mod length;
pub(crate) mod param_order;
pub mod params;
pub(crate) mod sensor_wait;
pub mod state;
pub(crate) mod task;

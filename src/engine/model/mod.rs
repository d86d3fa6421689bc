//! The objects of the engine without their storage: states, keys, the structure of a DAG, params.

pub mod dag;
pub mod dag_check;
pub(crate) mod json_fields;
pub mod keys;
pub mod length;
pub(crate) mod param_order;
pub mod params;
pub mod run_type;
pub(crate) mod sensor_wait;
pub mod state;
pub(crate) mod task;

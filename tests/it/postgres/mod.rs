//! The datastore: where it comes from, where it runs, its schema, its damage.

mod containers;
mod damage;
mod datastores;
mod migrations;
mod migrator;
mod postgres_sources;
mod schema_states;

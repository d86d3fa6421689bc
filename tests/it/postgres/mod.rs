//! The datastore: sources of PostgreSQL, external servers and containers, migrations, damage.

mod containers;
mod damage;
mod datastores;
mod migrations;
mod migrator;
mod postgres_sources;
mod schema_states;

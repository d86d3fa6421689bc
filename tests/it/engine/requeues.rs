//! Tries that go back into the queue because they cannot start.

use crate::support::TestHome;
use crate::support::own_datastore::{Datastore, run};
use leoflow::engine::store::instance::tries;
use leoflow::postgres::GenericClient;
use leoflow::schema::known;
use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, Error, Row};

/// A connection for the functions of the store.
struct Connection(Client);

type Parameters<'a> = &'a [&'a (dyn ToSql + Sync)];

impl GenericClient for Connection {
    async fn query(&self, query: &str, parameters: Parameters<'_>) -> Result<Vec<Row>, Error> {
        self.0.query(query, parameters).await
    }
    async fn query_one(&self, query: &str, parameters: Parameters<'_>) -> Result<Row, Error> {
        self.0.query_one(query, parameters).await
    }
    async fn query_opt(&self, query: &str, parameters: Parameters<'_>) -> Result<Option<Row>, Error> {
        self.0.query_opt(query, parameters).await
    }
    async fn execute(&self, query: &str, parameters: Parameters<'_>) -> Result<u64, Error> {
        self.0.execute(query, parameters).await
    }
}

/// A sensor whose try has deferred itself, was resumed, and was then rescheduled twice.
const RESCHEDULED: &str = "
    INSERT INTO dag (dag_id, fileloc) VALUES ('d', 'd.py');
    INSERT INTO dag_run (dag_id, run_id, run_type, state, run_after) VALUES ('d', 'r', 'manual', 'running', now());
    INSERT INTO task_instance (dag_id, run_id, task_id, state, try_number) VALUES ('d', 'r', 't', 'queued', 1);
    INSERT INTO task_try (dag_id, run_id, task_id, map_index, try_number, state, first_start_date, reschedules)
        VALUES ('d', 'r', 't', -1, 1, 'up_for_reschedule', now() - interval '1 hour', 2);
    INSERT INTO task_trigger (dag_id, run_id, task_id, map_index, try_number, classpath, kwargs, next_method, next_kwargs,
                              fired_at, resumed_at)
        VALUES ('d', 'r', 't', -1, 1, 'a.B', '{}', 'go_on', '{}', now(), now() - interval '30 minutes')";

#[test]
fn a_requeued_sensor_does_not_repeat_its_earlier_deferral() {
    let test = TestHome::new();
    run(async || {
        let datastore = Datastore::start(&test).await;
        datastore.migrate(known()).await.unwrap();
        datastore.sql(RESCHEDULED).await;
        let client = Connection(datastore.connect().await);
        let claim = async || tries::claim(&client, 1, "boot", || "token".to_owned()).await.unwrap().remove(0);
        let state = async || datastore.sql("SELECT state, reschedules FROM task_try").await;
        for _ in 0..2 {
            let claimed = claim().await;
            assert!(claimed.resumes && claimed.resumption.is_none(), "{claimed:?}");
            assert!(tries::requeue(&client, &claimed.key).await.unwrap());
            assert_eq!(state().await, "up_for_reschedule|2");
        }
        // A try that its trigger resumes goes back to that.
        datastore.sql("UPDATE task_try SET state = 'deferred'").await;
        for _ in 0..2 {
            let claimed = claim().await;
            assert_eq!(claimed.resumption.as_ref().map(|resumption| resumption.next_method.as_str()), Some("go_on"));
            assert!(tries::requeue(&client, &claimed.key).await.unwrap());
            assert_eq!(state().await, "deferred|2");
        }
    });
}

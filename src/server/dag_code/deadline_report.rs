//! Records how the callback of a deadline has ended, for the pages about deadlines.

use crate::state::Core;
use crate::state::database::DatastoreError;
use leoflow_engine::store::run::deadlines::{self, CallbackState};
use std::time::Duration;
use tokio::time::sleep;
use tracing::warn;

/// Pause between attempts.
const RETRY_PAUSE: Duration = Duration::from_secs(5);

/// Records the state and the log, which has no secrets. Tries again until that succeeds, because a callback without a
/// recorded end is called again. `name` is for messages.
pub async fn record(core: &Core, (id, name): (&str, &str), state: CallbackState, log: &str) {
    loop {
        let end = async {
            let client = core.database.get().await?;
            Ok::<_, DatastoreError>(deadlines::end_callback(&*client, id, state, log).await?)
        };
        match end.await {
            Ok(()) => return,
            Err(error) => warn!("{name}: cannot record its end: {error}; retrying"),
        }
        sleep(RETRY_PAUSE).await;
    }
}

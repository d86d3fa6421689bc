//! Structures of versions that were asked for lately, read once: a version never changes, and reading them is most of the
//! work of a list of DAGs.

use super::StoreError;
use crate::engine::dag::Structure;
use crate::postgres::GenericClient;
use jiff::Timestamp;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use tokio_postgres::types::Json;

/// Of their JSON, in bytes; read, they are a few times as large. Some hundreds of ordinary DAGs, and of large ones what one
/// list shows.
const MOST: usize = 4 * 1024 * 1024;

/// Its id, and when it was made: after a restore the same id may be another version's.
pub type VersionKey = (i64, Timestamp);

#[derive(Default)]
pub struct Structures(Mutex<Kept>);

#[derive(Default)]
struct Kept {
    found: HashMap<VersionKey, One>,
    bytes: usize,
    /// Counts up with each that is asked for.
    clock: u64,
}

struct One {
    structure: Arc<Structure>,
    bytes: usize,
    used: u64,
}

impl Structures {
    /// Of each of these versions that there is.
    pub async fn of(
        &self,
        client: &impl GenericClient,
        versions: &[VersionKey],
    ) -> Result<HashMap<VersionKey, Arc<Structure>>, StoreError> {
        let mut found = self.kept().known(versions);
        let missing: Vec<i64> = versions.iter().filter(|key| !found.contains_key(key)).map(|(id, _)| *id).collect();
        if missing.is_empty() {
            return Ok(found);
        }
        let query =
            "SELECT id, created_at, structure, octet_length(structure::text) FROM dag_version WHERE id = ANY ($1)";
        for row in client.query(query, &[&missing]).await? {
            let (key, Json(structure)) = ((row.get(0), row.get(1)), row.get(2));
            let structure = Arc::new(structure);
            found.insert(key, Arc::clone(&structure));
            let bytes = usize::try_from(row.get::<_, i32>(3)).unwrap_or(MOST);
            self.kept().keep(key, structure, bytes);
        }
        Ok(found)
    }

    fn kept(&self) -> std::sync::MutexGuard<'_, Kept> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Kept {
    fn known(&mut self, versions: &[VersionKey]) -> HashMap<VersionKey, Arc<Structure>> {
        self.clock += 1;
        let clock = self.clock;
        let mut known = HashMap::with_capacity(versions.len());
        for key in versions {
            if let Some(one) = self.found.get_mut(key) {
                one.used = clock;
                known.insert(*key, Arc::clone(&one.structure));
            }
        }
        known
    }

    fn keep(&mut self, key: VersionKey, structure: Arc<Structure>, bytes: usize) {
        if bytes > MOST {
            return;
        }
        let new = One { structure, bytes, used: self.clock };
        let old = self.found.insert(key, new).map_or(0, |old| old.bytes);
        self.bytes = self.bytes + bytes - old;
        while self.bytes > MOST {
            let oldest = self.found.iter().min_by_key(|(_, one)| one.used).map(|(key, _)| *key);
            let Some(gone) = oldest.and_then(|key| self.found.remove(&key)) else { return };
            self.bytes -= gone.bytes;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(id: i64) -> VersionKey {
        (id, Timestamp::UNIX_EPOCH)
    }

    #[test]
    fn what_was_not_asked_for_the_longest_goes_when_there_are_too_many() {
        let mut kept = Kept::default();
        let structure = Arc::new(serde_json::from_value(serde_json::json!({"dag_id": "d", "tasks": []})).unwrap());
        for id in 0..4 {
            kept.known(&[]);
            kept.keep(key(id), Arc::clone(&structure), MOST / 4);
        }
        assert_eq!((kept.known(&[key(0), key(9)]).len(), kept.bytes), (1, MOST));
        kept.keep(key(4), Arc::clone(&structure), MOST / 4);
        let known = kept.known(&[0, 1, 2, 3, 4].map(key));
        assert!(known.len() == 4 && !known.contains_key(&key(1)), "{:?}", known.keys());
        // The same once more is no more than it was, and what is too large is not kept.
        kept.keep(key(4), Arc::clone(&structure), MOST / 4);
        kept.keep(key(5), structure, MOST + 1);
        assert_eq!((kept.found.len(), kept.bytes), (4, MOST));
    }
}

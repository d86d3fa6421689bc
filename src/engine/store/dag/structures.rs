//! A cache of the structures of recently used DAG versions. A version never changes, and most of the cost of a list of
//! DAGs is to deserialize structures.

use crate::model::dag::Structure;
use crate::store::Result;
use jiff::Timestamp;
use leoflow_postgres::GenericClient;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use tokio_postgres::types::Json;

/// Maximum size of the cache in bytes of JSON; in memory, the structures take a few times as much. The cache holds some
/// hundreds of ordinary DAGs, or the large DAGs of one list.
const MAX_BYTES: usize = 4 * 1024 * 1024;

/// Id and creation time of a version. The id alone is not enough: after a restore, it may belong to another version.
pub type VersionKey = (i64, Timestamp);

#[derive(Default)]
pub struct Structures(Mutex<Cache>);

#[derive(Default)]
struct Cache {
    entries: HashMap<VersionKey, Entry>,
    bytes: usize,
    /// Incremented with each lookup; orders entries by last use.
    clock: u64,
}

struct Entry {
    structure: Arc<Structure>,
    bytes: usize,
    /// Value of the cache's clock at the last lookup.
    last_used: u64,
}

impl Structures {
    /// Returns the structures of these versions; versions that do not exist are left out.
    pub async fn get(
        &self,
        client: &impl GenericClient,
        versions: &[VersionKey],
    ) -> Result<HashMap<VersionKey, Arc<Structure>>> {
        let mut structures = self.cache().cached(versions);
        let missing: Vec<i64> =
            versions.iter().filter(|key| !structures.contains_key(key)).map(|(id, _)| *id).collect();
        if missing.is_empty() {
            return Ok(structures);
        }
        let query = "SELECT id, created_at, structure, octet_length(structure::text) AS bytes FROM dag_version WHERE id = ANY ($1)";
        for row in client.query(query, &[&missing]).await? {
            let (key, Json(structure)) = ((row.get("id"), row.get("created_at")), row.get("structure"));
            let structure = Arc::new(structure);
            structures.insert(key, Arc::clone(&structure));
            let bytes = usize::try_from(row.get::<_, i32>("bytes")).unwrap_or(MAX_BYTES);
            self.cache().keep(key, structure, bytes);
        }
        Ok(structures)
    }

    fn cache(&self) -> std::sync::MutexGuard<'_, Cache> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Cache {
    /// Returns the versions that are in the cache, and marks them as used now.
    fn cached(&mut self, versions: &[VersionKey]) -> HashMap<VersionKey, Arc<Structure>> {
        self.clock += 1;
        let clock = self.clock;
        let mut cached = HashMap::with_capacity(versions.len());
        for key in versions {
            if let Some(entry) = self.entries.get_mut(key) {
                entry.last_used = clock;
                cached.insert(*key, Arc::clone(&entry.structure));
            }
        }
        cached
    }

    /// Adds a structure and evicts the least recently used ones; `bytes` is its size as JSON.
    fn keep(&mut self, key: VersionKey, structure: Arc<Structure>, bytes: usize) {
        if bytes > MAX_BYTES {
            return;
        }
        let new = Entry { structure, bytes, last_used: self.clock };
        let old = self.entries.insert(key, new).map_or(0, |old| old.bytes);
        self.bytes = self.bytes + bytes - old;
        while self.bytes > MAX_BYTES {
            let oldest = self.entries.iter().min_by_key(|(_, entry)| entry.last_used).map(|(key, _)| *key);
            let Some(evicted) = oldest.and_then(|key| self.entries.remove(&key)) else { return };
            self.bytes -= evicted.bytes;
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
    fn evicts_the_least_recently_used_structure() {
        let mut cache = Cache::default();
        let structure = Arc::new(serde_json::from_value(serde_json::json!({"dag_id": "d", "tasks": []})).unwrap());
        for id in 0..4 {
            cache.cached(&[]);
            cache.keep(key(id), Arc::clone(&structure), MAX_BYTES / 4);
        }
        assert_eq!((cache.cached(&[key(0), key(9)]).len(), cache.bytes), (1, MAX_BYTES));
        cache.keep(key(4), Arc::clone(&structure), MAX_BYTES / 4);
        let cached = cache.cached(&[0, 1, 2, 3, 4].map(key));
        assert!(cached.len() == 4 && !cached.contains_key(&key(1)), "{:?}", cached.keys());
        // Adding the same version again takes no more space, and an oversized structure is not cached.
        cache.keep(key(4), Arc::clone(&structure), MAX_BYTES / 4);
        cache.keep(key(5), structure, MAX_BYTES + 1);
        assert_eq!((cache.entries.len(), cache.bytes), (4, MAX_BYTES));
    }
}

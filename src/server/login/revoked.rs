//! Tokens revoked by logout. They are stored, so that later servers refuse them too.

use crate::state::database::{Database, DatastoreError};
use jiff::Timestamp;
use leoflow_base::auth::token::Claims;
use leoflow_base::sys::mutex::lock;
use leoflow_engine::store::secret::revoked_tokens;
use sha2::{Digest, Sha256};
use std::collections::HashMap;
use std::sync::Mutex;

/// Token hashes, with the expiry of each token.
#[derive(Default)]
pub struct Revoked(Mutex<HashMap<Vec<u8>, Timestamp>>);

fn hash(token: &str) -> Vec<u8> {
    Sha256::digest(token.as_bytes()).to_vec()
}

impl Revoked {
    /// Loads the tokens that other servers have revoked.
    pub async fn load(&self, database: &Database) -> Result<(), DatastoreError> {
        let all = revoked_tokens::all(&*database.get().await?).await?;
        lock(&self.0).extend(all);
        Ok(())
    }

    pub fn has(&self, token: &str) -> bool {
        let revoked = lock(&self.0);
        !revoked.is_empty() && revoked.contains_key(&hash(token))
    }

    /// Refuses a token from now on, then stores it.
    pub async fn add(&self, database: &Database, token: &str, claims: &Claims) -> Result<(), DatastoreError> {
        let expires_at = Timestamp::from_second(claims.exp).unwrap_or(Timestamp::MAX);
        {
            let (mut revoked, now) = (lock(&self.0), Timestamp::now());
            revoked.retain(|_, expires_at| *expires_at > now);
            revoked.insert(hash(token), expires_at);
        }
        Ok(revoked_tokens::add(&*database.get().await?, &hash(token), expires_at).await?)
    }
}

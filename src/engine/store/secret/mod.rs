//! Variables, connections, and the encryption of secrets.

/// Defines how the rows of a table with encrypted columns are read, written and deleted. The module has the functions
/// `read`, which decrypts a row, and `insert`, which checks and writes one unless its id exists and is not overwritten.
macro_rules! encrypted_table {
    ($entity:ident in $table:ident, id: $id:ident, fields: $fields:ident) => {
        const WHAT: &str = stringify!($table);

        /// A page with the total number of matches.
        pub async fn list(
            client: &impl GenericClient,
            cipher: &Cipher,
            listing: Listing<$fields>,
        ) -> Result<ListPage<$entity>> {
            listing.fetch_with(client, &Source::new("*", WHAT), |row| read(row, cipher)).await?.transpose()
        }

        /// Returns all but those that cannot be decrypted.
        pub(super) async fn all_readable(client: &impl GenericClient, cipher: &Cipher) -> Result<Vec<$entity>> {
            let listing = Listing::<$fields>::default();
            let page = listing.fetch_with(client, &Source::new("*", WHAT), |row| read(row, cipher)).await?;
            page.rows.into_iter().filter(|row| !matches!(row, Err(StoreError::Sealed { .. }))).collect()
        }

        /// Returns which of these ids exist, whether they can be decrypted or not.
        pub async fn existing(client: &impl GenericClient, ids: &[String]) -> Result<Vec<String>> {
            let query = format!("SELECT {0} FROM {WHAT} WHERE {0} = ANY ($1)", stringify!($id));
            fetch_all(client, &query, &[&ids]).await
        }

        pub async fn get(client: &impl GenericClient, cipher: &Cipher, id: &str, read_for: ReadFor) -> Result<$entity> {
            let query = format!("SELECT * FROM {WHAT} WHERE {} = $1{}", stringify!($id), read_for.clause());
            match client.query_opt(&query, &[&id]).await? {
                Some(row) => read(&row, cipher),
                None => Err(StoreError::NotFound { what: WHAT, id: id.to_owned() }),
            }
        }

        /// Fails if the id exists.
        pub async fn create(client: &impl GenericClient, cipher: &Cipher, new: &$entity) -> Result<()> {
            match insert(client, cipher, new, OnExisting::Fail).await? {
                0 => Err(StoreError::AlreadyExists { what: WHAT, id: new.$id.clone() }),
                _ => Ok(()),
            }
        }

        /// Creates or replaces.
        pub async fn set(client: &impl GenericClient, cipher: &Cipher, new: &$entity) -> Result<()> {
            insert(client, cipher, new, OnExisting::Overwrite).await.map(drop)
        }

        pub async fn delete(client: &impl GenericClient, id: &str) -> Result<()> {
            let query = format!("DELETE FROM {WHAT} WHERE {} = $1", stringify!($id));
            match client.execute(&query, &[&id]).await? {
                0 => Err(StoreError::NotFound { what: WHAT, id: id.to_owned() }),
                _ => Ok(()),
            }
        }
    };
}
pub mod connections;
pub mod encryption_key;
pub mod revoked_tokens;
pub mod secrets;
pub mod variables;

//! An S3 bucket as a place for copies, of Amazon or of a compatible server.

use super::CopyError;
use super::files::{Entry, hash_of, in_file, open};
use crate::backup::format::archive::Hashed;
use futures_util::StreamExt;
use leoflow_base::config::Secret;
use leoflow_base::protocol::web;
use leoflow_base::sys::{checkpoint, env_vars};
use object_store::aws::{AmazonS3, AmazonS3Builder};
use object_store::path::Path as ObjectPath;
use object_store::{ClientOptions, ObjectStore, ObjectStoreExt, RetryConfig, WriteMultipart};
use std::io::{self, Read, Write};
use std::path::Path;
use std::time::Duration;

/// Size of the parts of an upload in bytes, and how many are sent at the same time.
const PART_SIZE: usize = 8 * 1024 * 1024;
const PARTS: usize = 4;
const CONNECT_LIMIT: Duration = Duration::from_secs(15);
/// Time limit for the next bytes of an answer. That to a part comes after all of it was sent, on a slow line too.
const READ_LIMIT: Duration = Duration::from_secs(300);
const RETRIES: usize = 3;
const RETRY_LIMIT: Duration = Duration::from_secs(180);

pub struct S3 {
    store: AmazonS3,
    prefix: ObjectPath,
}

impl S3 {
    /// What is not given is taken from the variables of AWS's own programs. None of them replaces what is given: they may be
    /// about another server.
    pub fn open(
        bucket: &str,
        prefix: &str,
        endpoint: Option<&str>,
        region: Option<&str>,
        keys: (Option<&Secret>, Option<&Secret>),
    ) -> Result<Self, CopyError> {
        web::install_tls();
        let options = ClientOptions::new()
            .with_connect_timeout(CONNECT_LIMIT)
            .with_read_timeout(READ_LIMIT)
            .with_timeout_disabled()
            .with_allow_http(true);
        let retry = RetryConfig { max_retries: RETRIES, retry_timeout: RETRY_LIMIT, ..RetryConfig::default() };
        // The copy is read back and compared, so a hash of each part would only cost time.
        let mut builder = AmazonS3Builder::new()
            .with_bucket_name(bucket)
            .with_client_options(options)
            .with_retry(retry)
            .with_unsigned_payload(true)
            // Requests to delete several objects have a checksum, which some servers refuse.
            .with_disable_bulk_delete(true);
        let or_variable = |given: Option<&str>, names: &[&str]| {
            given.map(str::to_owned).or_else(|| names.iter().find_map(|name| env_vars::text(name)))
        };
        if let Some(endpoint) = or_variable(endpoint, &["AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"]) {
            builder = builder.with_endpoint(endpoint);
        }
        if let Some(region) = or_variable(region, &["AWS_REGION", "AWS_DEFAULT_REGION"]) {
            builder = builder.with_region(region);
        }
        builder = match keys {
            (Some(access_key), Some(secret_key)) => {
                let read = |name, secret: &Secret| secret.read().map_err(|source| CopyError::Secret { name, source });
                builder
                    .with_access_key_id(read("access_key", access_key)?)
                    .with_secret_access_key(read("secret_key", secret_key)?)
            }
            _ => {
                let key = |name| env_vars::text(name).ok_or(CopyError::NoKeys);
                builder = builder
                    .with_access_key_id(key("AWS_ACCESS_KEY_ID")?)
                    .with_secret_access_key(key("AWS_SECRET_ACCESS_KEY")?);
                match env_vars::text("AWS_SESSION_TOKEN") {
                    Some(token) => builder.with_token(token),
                    None => builder,
                }
            }
        };
        Ok(Self { store: builder.build()?, prefix: parsed(prefix)? })
    }

    fn path(&self, name: &str) -> Result<ObjectPath, CopyError> {
        parsed(&format!("{}/{name}", self.prefix))
    }

    pub async fn list(&self) -> Result<Vec<Entry>, CopyError> {
        let listed = self.store.list_with_delimiter(Some(&self.prefix)).await?;
        let entry = |meta: object_store::ObjectMeta| {
            Some(Entry { name: meta.location.filename()?.to_owned(), size: meta.size })
        };
        Ok(listed.objects.into_iter().filter_map(entry).collect())
    }

    /// Uploads in parts; the object appears with the last request.
    pub async fn put(&self, file: &Path, name: &str) -> Result<String, CopyError> {
        let path = self.path(name)?;
        let mut upload = WriteMultipart::new_with_chunk_size(self.store.put_multipart(&path).await?, PART_SIZE);
        match send(file, &mut upload).await {
            Ok(sha256) => {
                checkpoint("copies.written");
                upload.finish().await?;
                Ok(sha256)
            }
            Err(error) => {
                // Parts that stay cost money. The first error is the one to report.
                let _ = upload.abort().await;
                Err(error)
            }
        }
    }

    pub async fn read(&self, name: &str, sink: &mut impl Write) -> Result<(), CopyError> {
        let mut content = self.store.get(&self.path(name)?).await?.into_stream();
        while let Some(bytes) = content.next().await {
            sink.write_all(&bytes?).map_err(in_file(Path::new(name)))?;
        }
        Ok(())
    }

    pub async fn remove(&self, name: &str) -> Result<(), CopyError> {
        match self.store.delete(&self.path(name)?).await {
            Err(object_store::Error::NotFound { .. }) => Ok(()),
            removed => Ok(removed?),
        }
    }
}

/// The path of an object. Unlike `ObjectPath::from`, which would write an encoded name, this takes each character as it is.
fn parsed(path: &str) -> Result<ObjectPath, CopyError> {
    ObjectPath::parse(path).map_err(|error| CopyError::S3(error.into()))
}

async fn send(file: &Path, upload: &mut WriteMultipart) -> Result<String, CopyError> {
    let content = open(file)?;
    let mut hashed = Hashed::new(io::sink());
    loop {
        let mut part = Vec::with_capacity(PART_SIZE);
        (&content).take(PART_SIZE as u64).read_to_end(&mut part).map_err(in_file(file))?;
        if part.is_empty() {
            return Ok(hash_of(hashed));
        }
        hashed.write_all(&part).map_err(in_file(file))?;
        upload.wait_for_capacity(PARTS).await?;
        upload.put(part.into());
    }
}

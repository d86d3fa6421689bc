//! Encrypted backups: the same archive in age's format, readable with `age -d` and `tar`.
//!
//! <https://age-encryption.org/v1>

use super::format::archive::Layer;
use age::secrecy::SecretString;
use age::{DecryptError, Decryptor, Encryptor};
use leoflow_base::config::{BackupSettings, Recipient, SecretReference};
use leoflow_base::sys::env_vars;
use leoflow_base::sys::fs::files;
use std::fmt;
use std::io::{self, BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

/// First bytes of an encrypted file.
const MAGIC: &[u8] = b"age-encryption.org/";
/// Size limit of a file with a key or a passphrase, in bytes.
const KEY_FILE_LIMIT: u64 = 64 * 1024;
const BUFFER_SIZE: usize = 256 * 1024;
/// Binary logarithm of the rounds of scrypt that derive a key from a passphrase, as `age` uses it: about a second and
/// 256 MiB of memory. The library's default depends on the speed of the machine at that moment, so a busy machine or a
/// slower one would refuse its backups.
const WORK_FACTOR: u8 = 18;
/// The largest work factor that is tried, as in `age`: 4 GiB of memory.
const MAX_WORK_FACTOR: u8 = 22;
/// Older versions encrypted to ssh-ed25519 keys too; age's own program still decrypts those backups.
const SSH_KEY: &str = "SSH keys are not supported; use a key that `age-keygen` made, and decrypt a backup made for an \
                       SSH key before restoring it: age -d -i KEY";

#[derive(Debug, thiserror::Error)]
pub enum EncryptionError {
    #[error("cannot read the passphrase from {reference}: {why}")]
    Passphrase { reference: String, why: String },
    #[error("cannot read {path}: {source}")]
    Key { path: PathBuf, source: io::Error },
    #[error("{path} is not a usable private key: {why}")]
    UnusableKey { path: PathBuf, why: String },
}

/// How to encrypt a backup.
pub enum EncryptTo {
    Off,
    Recipients(Vec<age::x25519::Recipient>),
    Passphrase(SecretString),
}

impl EncryptTo {
    pub fn of(settings: &BackupSettings) -> Result<Self, EncryptionError> {
        if let Some(reference) = &settings.passphrase {
            return read_passphrase(reference).map(Self::Passphrase);
        }
        Ok(Self::recipients(&settings.recipients))
    }

    pub fn recipients(recipients: &[Recipient]) -> Self {
        let parse = |recipient: &Recipient| recipient.as_str().parse().expect("a recipient is a valid key");
        let recipients: Vec<_> = recipients.iter().map(parse).collect();
        if recipients.is_empty() { Self::Off } else { Self::Recipients(recipients) }
    }

    pub(crate) fn is_off(&self) -> bool {
        matches!(self, Self::Off)
    }

    /// Encrypts what is written, or passes it on unchanged.
    pub fn writer<W: Layer<W> + 'static>(&self, writer: W) -> io::Result<Box<dyn Layer<W>>> {
        let encryptor = match self {
            Self::Off => return Ok(Box::new(writer)),
            Self::Passphrase(passphrase) => {
                let mut recipient = age::scrypt::Recipient::new(passphrase.clone());
                recipient.set_work_factor(WORK_FACTOR);
                Encryptor::with_recipients(std::iter::once(&recipient as &dyn age::Recipient))
            }
            Self::Recipients(recipients) => {
                Encryptor::with_recipients(recipients.iter().map(|recipient| recipient as &dyn age::Recipient))
            }
        };
        Ok(Box::new(encryptor.map_err(io::Error::other)?.wrap_output(writer)?))
    }
}

/// Reads the passphrase, the first line of the secret.
fn read_passphrase(reference: &SecretReference) -> Result<SecretString, EncryptionError> {
    let invalid = |why: String| EncryptionError::Passphrase { reference: reference.to_string(), why };
    let text = match reference {
        SecretReference::File(path) => files::read_text(path, KEY_FILE_LIMIT)
            .map_err(|error| invalid(error.to_string()))?
            .ok_or_else(|| invalid("it does not exist".to_owned()))?,
        SecretReference::Variable(name) => env_vars::text(name).ok_or_else(|| invalid("it is not set".to_owned()))?,
    };
    let first = text.lines().next().unwrap_or_default();
    if first.is_empty() { Err(invalid("its first line is empty".to_owned())) } else { Ok(first.to_owned().into()) }
}

/// Prompts for the passphrase of the backup. `None` if there is no terminal.
pub type AskPassphrase = fn() -> Option<String>;

/// Keys that open encrypted backups.
#[derive(Clone)]
pub struct Keys {
    identities: Arc<[age::x25519::Identity]>,
    passphrase: Option<SecretString>,
    ask: AskPassphrase,
    /// Reason why the key in config.yaml is unusable.
    unusable: Option<String>,
    /// The typed passphrase, cached because a backup is opened more than once.
    typed: Arc<OnceLock<Option<SecretString>>>,
}

/// Reason why a file could not be decrypted.
#[derive(Debug, PartialEq, Eq)]
pub enum NotOpened {
    /// No key was given.
    NoKey,
    /// No passphrase was given.
    NoPassphrase,
    /// The given key is not one of the recipients.
    WrongKey,
    WrongPassphrase,
    /// The passphrase's scrypt work factor is higher than [`MAX_WORK_FACTOR`].
    TooMuchWork,
    /// The key in config.yaml is unusable for this reason.
    Unusable(String),
}

impl fmt::Display for NotOpened {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NoKey => "no private key was given",
            Self::NoPassphrase => "no passphrase was given",
            Self::WrongKey => "the private key given is not a recipient",
            Self::WrongPassphrase => "the passphrase is wrong",
            Self::TooMuchWork => "its passphrase has a scrypt work factor above 22, which `age` does not open either",
            Self::Unusable(why) => return write!(f, "the private key in backup.identity is unusable: {why}"),
        })
    }
}

impl Keys {
    pub fn none() -> Self {
        Self { identities: Arc::new([]), passphrase: None, ask: || None, unusable: None, typed: Arc::default() }
    }

    /// Reads the keys in these files and those configured in config.yaml.
    pub fn read(
        files: &[PathBuf],
        passphrase: Option<&Path>,
        settings: Option<&BackupSettings>,
        ask: AskPassphrase,
    ) -> Result<Self, EncryptionError> {
        let (mut identities, mut unusable) = (Vec::new(), None);
        for path in files {
            identities.append(&mut read_identities(path)?);
        }
        if let Some(path) = settings.and_then(|settings| settings.identity.as_ref()) {
            match read_identities(path) {
                Ok(mut configured) => identities.append(&mut configured),
                Err(error) => unusable = Some(error.to_string()),
            }
        }
        let passphrase = match passphrase {
            Some(file) => Some(read_passphrase(&SecretReference::File(file.to_owned()))?),
            None => {
                let reference = settings.and_then(|settings| settings.passphrase.as_ref());
                reference.and_then(|reference| read_passphrase(reference).ok())
            }
        };
        Ok(Self { identities: identities.into(), passphrase, ask, unusable, typed: Arc::default() })
    }

    /// Opens a file, encrypted or not. The outer error is about reading; the inner one about the key.
    pub fn open<'a>(&self, file: impl Read + 'a) -> io::Result<Result<Box<dyn Read + 'a>, NotOpened>> {
        let mut file = BufReader::with_capacity(BUFFER_SIZE, file);
        if !file.fill_buf()?.starts_with(MAGIC) {
            return Ok(Ok(Box::new(file)));
        }
        let decryptor = Decryptor::new_buffered(file).map_err(damaged)?;
        if decryptor.is_scrypt() {
            let typed = || self.typed.get_or_init(|| (self.ask)().map(SecretString::from)).clone();
            let Some(passphrase) = self.passphrase.clone().or_else(typed) else {
                return Ok(Err(NotOpened::NoPassphrase));
            };
            let mut identity = age::scrypt::Identity::new(passphrase);
            identity.set_max_work_factor(MAX_WORK_FACTOR);
            return opened(
                decryptor.decrypt(std::iter::once(&identity as &dyn age::Identity)),
                NotOpened::WrongPassphrase,
            );
        }
        if self.identities.is_empty() {
            return Ok(Err(self.unusable.clone().map_or(NotOpened::NoKey, NotOpened::Unusable)));
        }
        let identities = self.identities.iter().map(|identity| identity as &dyn age::Identity);
        opened(decryptor.decrypt(identities), NotOpened::WrongKey)
    }
}

type Opened<'a> = io::Result<Result<Box<dyn Read + 'a>, NotOpened>>;

/// Converts the result of a decryption; `wrong_secret` is the reason if no key or passphrase fits.
fn opened<'a>(stream: Result<impl Read + 'a, DecryptError>, wrong_secret: NotOpened) -> Opened<'a> {
    match stream {
        Ok(stream) => Ok(Ok(Box::new(stream))),
        Err(DecryptError::NoMatchingKeys | DecryptError::DecryptionFailed | DecryptError::KeyDecryptionFailed) => {
            Ok(Err(wrong_secret))
        }
        Err(DecryptError::ExcessiveWork { .. }) => Ok(Err(NotOpened::TooMuchWork)),
        Err(error) => Err(damaged(error)),
    }
}

/// Converts an error that means the file was changed or cut off.
fn damaged(error: DecryptError) -> io::Error {
    match error {
        DecryptError::Io(error) => error,
        other => io::Error::new(io::ErrorKind::InvalidData, other.to_string()),
    }
}

/// Reads the identities in an age key file.
fn read_identities(path: &Path) -> Result<Vec<age::x25519::Identity>, EncryptionError> {
    let read_error = |source| EncryptionError::Key { path: path.to_owned(), source };
    let invalid = |why: String| EncryptionError::UnusableKey { path: path.to_owned(), why };
    let bytes = files::read_regular(path, KEY_FILE_LIMIT).map_err(read_error)?;
    let bytes = bytes.ok_or_else(|| read_error(io::ErrorKind::NotFound.into()))?;
    if bytes.starts_with(MAGIC) || bytes.starts_with(b"-----BEGIN AGE ENCRYPTED FILE") {
        return Err(invalid("the key file is encrypted; decrypt it first: age -d".to_owned()));
    }
    if bytes.starts_with(b"-----BEGIN") {
        return Err(invalid(SSH_KEY.to_owned()));
    }
    let mut identities = Vec::new();
    for (number, line) in (1..).zip(bytes.lines()) {
        let line = line.map_err(|error| invalid(error.to_string()))?;
        if !line.is_empty() && !line.starts_with('#') {
            let no_key = |_| invalid(format!("identity file contains non-identity data on line {number}"));
            identities.push(line.parse().map_err(no_key)?);
        }
    }
    if identities.is_empty() { Err(invalid("it contains no key".to_owned())) } else { Ok(identities) }
}

/// A backup to restore and the keys that open it.
#[derive(Clone)]
pub struct Input {
    pub path: PathBuf,
    pub keys: Keys,
}

impl Input {
    /// A backup that is not encrypted.
    pub fn plain(path: &Path) -> Self {
        Self { path: path.to_owned(), keys: Keys::none() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backup::format::archive::Hashed;
    use age::secrecy::ExposeSecret;
    use std::io::Write;

    fn settings(text: &str) -> BackupSettings {
        BackupSettings::read(&serde_yaml::from_str(text).unwrap()).unwrap()
    }

    fn encrypted(settings: &BackupSettings, text: &[u8]) -> Vec<u8> {
        let mut output = EncryptTo::of(settings).unwrap().writer(Hashed::new(Vec::new())).unwrap();
        output.write_all(text).unwrap();
        output.finish().unwrap().inner
    }

    fn read(keys: &Keys, bytes: &[u8]) -> Result<Vec<u8>, NotOpened> {
        let mut bytes_read = Vec::new();
        keys.open(bytes).unwrap()?.read_to_end(&mut bytes_read).unwrap();
        Ok(bytes_read)
    }

    #[test]
    fn refuses_ssh_keys() {
        // Written by ssh-keygen for this test; they open nothing.
        let keys: [&[u8]; 3] = [
            include_bytes!("test_keys/rsa_pem"),
            include_bytes!("test_keys/rsa_openssh"),
            include_bytes!("test_keys/ed25519"),
        ];
        for key in keys {
            let file = tempfile::NamedTempFile::new().unwrap();
            std::fs::write(file.path(), key).unwrap();
            let message = read_identities(file.path()).err().unwrap().to_string();
            assert!(message.contains("SSH keys are not supported"), "{message}");
        }
    }

    #[test]
    fn opens_with_the_right_key_only() {
        let folder = tempfile::tempdir().unwrap();
        let write_key = |name: &str| {
            let key = age::x25519::Identity::generate();
            let path = folder.path().join(name);
            std::fs::write(&path, format!("# mine\n{}\n", key.to_string().expose_secret())).unwrap();
            (path, key.to_public().to_string())
        };
        let ((mine, public), (other, _)) = (write_key("mine"), write_key("other"));
        let settings = settings(&format!("{{recipients: [{public}]}}"));
        let text = vec![7; 200_000];
        let bytes = encrypted(&settings, &text);
        let keys = |path: &Path| Keys::read(&[path.to_owned()], None, None, || None).unwrap();
        assert_eq!(read(&keys(&mine), &bytes), Ok(text.clone()));
        assert_eq!(read(&keys(&other), &bytes), Err(NotOpened::WrongKey));
        assert_eq!(read(&Keys::none(), &bytes), Err(NotOpened::NoKey));
        assert_eq!(read(&Keys::none(), b"plain"), Ok(b"plain".to_vec()));
        // A flipped bit or a missing end is an error.
        for damaged in [[&bytes[..70_000], &[bytes[70_000] ^ 1], &bytes[70_001..]].concat(), bytes[..150_000].to_vec()]
        {
            let mut bytes_read = Vec::new();
            assert!(keys(&mine).open(&damaged[..]).unwrap().unwrap().read_to_end(&mut bytes_read).is_err());
        }
        for (name, text) in [("none", "# nothing\n"), ("no", "swordfish\n"), ("pem", "-----BEGIN X-----\n")] {
            let path = folder.path().join(name);
            std::fs::write(&path, text).unwrap();
            let keys = Keys::read(&[path], None, None, || None);
            assert!(matches!(keys, Err(EncryptionError::UnusableKey { .. })), "{name}");
        }
        let gone = Keys::read(&[folder.path().join("gone")], None, None, || None);
        assert!(matches!(gone, Err(EncryptionError::Key { .. })));
    }

    #[test]
    fn reads_or_prompts_for_the_passphrase() {
        let folder = tempfile::tempdir().unwrap();
        let reference = folder.path().join("passphrase");
        let settings = settings(&format!("{{passphrase: 'file:{}'}}", reference.display()));
        assert!(matches!(EncryptTo::of(&settings), Err(EncryptionError::Passphrase { .. })));
        std::fs::write(&reference, "swordfish\n").unwrap();
        let bytes = encrypted(&settings, b"text");
        // The work factor is the same on each machine.
        let header = String::from_utf8_lossy(&bytes).lines().nth(1).unwrap_or_default().to_owned();
        assert!(header.starts_with("-> scrypt ") && header.ends_with(" 18"), "{header}");
        assert_eq!(read(&Keys::read(&[], None, Some(&settings), || None).unwrap(), &bytes), Ok(b"text".to_vec()));
        let typed = |ask: AskPassphrase| read(&Keys::read(&[], None, None, ask).unwrap(), &bytes);
        assert_eq!(typed(|| Some("swordfish".to_owned())), Ok(b"text".to_vec()));
        assert_eq!(typed(|| Some("tuna".to_owned())), Err(NotOpened::WrongPassphrase));
        assert_eq!(typed(|| None), Err(NotOpened::NoPassphrase));
    }
}

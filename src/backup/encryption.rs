//! Backups that only the holder of a key can read: the same file within age's format, so that `age -d` and `tar` read it.
//!
//! <https://age-encryption.org/v1>

use crate::config::{BackupSettings, Recipient, SecretPlace};
use crate::sys::{env_vars, files};
use age::secrecy::SecretString;
use age::stream::StreamWriter;
use age::{DecryptError, Decryptor, Encryptor, IdentityFile};
use std::fmt;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

/// How an encrypted file begins.
const MAGIC: &[u8] = b"age-encryption.org/";
const KEY_FILE_LIMIT: u64 = 64 * 1024;
const BUFFER: usize = 256 * 1024;

#[derive(Debug, thiserror::Error)]
pub enum EncryptionError {
    #[error("the passphrase cannot be read from {place}: {why}")]
    Passphrase { place: String, why: String },
    #[error("{path} cannot be read: {source}")]
    Key { path: PathBuf, source: io::Error },
    #[error("{path} is no private key that can be used: {why}")]
    NoKey { path: PathBuf, why: String },
}

/// What backups are encrypted to.
pub enum EncryptTo {
    Nobody,
    Recipients(Vec<Box<dyn age::Recipient + Send>>),
    Passphrase(SecretString),
}

impl EncryptTo {
    pub fn of(settings: &BackupSettings) -> Result<Self, EncryptionError> {
        if let Some(place) = &settings.passphrase {
            return passphrase_at(place).map(Self::Passphrase);
        }
        Ok(Self::recipients(&settings.recipients))
    }

    pub fn recipients(recipients: &[Recipient]) -> Self {
        let recipients: Vec<_> = recipients.iter().filter_map(Recipient::of_age).collect();
        if recipients.is_empty() { Self::Nobody } else { Self::Recipients(recipients) }
    }

    pub fn is_nobody(&self) -> bool {
        matches!(self, Self::Nobody)
    }

    pub fn writer<W: Write>(&self, writer: W) -> io::Result<Output<W>> {
        let encryptor = match self {
            Self::Nobody => return Ok(Output::Plain(writer)),
            Self::Passphrase(passphrase) => Encryptor::with_user_passphrase(passphrase.clone()),
            Self::Recipients(recipients) => {
                Encryptor::with_recipients(recipients.iter().map(|one| &**one as &dyn age::Recipient))
                    .map_err(io::Error::other)?
            }
        };
        Ok(Output::Encrypted(Box::new(encryptor.wrap_output(writer)?)))
    }
}

fn passphrase_at(place: &SecretPlace) -> Result<SecretString, EncryptionError> {
    let wrong = |why: String| EncryptionError::Passphrase { place: place.to_string(), why };
    let text = match place {
        SecretPlace::File(path) => files::read_text(path, KEY_FILE_LIMIT)
            .map_err(|error| wrong(error.to_string()))?
            .ok_or_else(|| wrong("it is not there".to_owned()))?,
        SecretPlace::Variable(name) => env_vars::text(name).ok_or_else(|| wrong("it is not set".to_owned()))?,
    };
    let first = text.lines().next().unwrap_or_default();
    if first.is_empty() { Err(wrong("its first line is empty".to_owned())) } else { Ok(first.to_owned().into()) }
}

/// Where something goes: as it is, or encrypted.
pub enum Output<W: Write> {
    Plain(W),
    Encrypted(Box<StreamWriter<W>>),
}

impl<W: Write> Output<W> {
    pub fn finish(self) -> io::Result<W> {
        match self {
            Self::Plain(writer) => Ok(writer),
            Self::Encrypted(stream) => stream.finish(),
        }
    }
}

impl<W: Write> Write for Output<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Plain(writer) => writer.write(bytes),
            Self::Encrypted(stream) => stream.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Plain(writer) => writer.flush(),
            Self::Encrypted(stream) => stream.flush(),
        }
    }
}

/// Asks somebody for a passphrase; the argument says which. `None` when there is nobody to ask.
pub type AskPassphrase = fn(&str) -> Option<String>;

/// By which encrypted backups are opened.
#[derive(Clone)]
pub struct Keys {
    identities: Arc<[Box<dyn age::Identity + Send + Sync>]>,
    passphrase: Option<SecretString>,
    ask: AskPassphrase,
    /// Why that of config.yaml is not among them.
    unusable: Option<String>,
    /// What was typed: a backup is opened more than once.
    typed: Arc<OnceLock<Option<SecretString>>>,
}

/// Why a file did not open.
#[derive(Debug, PartialEq, Eq)]
pub enum NotOpened {
    /// No key was given.
    NoKey,
    /// No passphrase was given.
    NoPassphrase,
    /// What was given is not what it is encrypted to.
    WrongKey,
    WrongPassphrase,
    /// It was made on a far faster machine.
    TooMuchWork,
    /// The key that config.yaml names cannot be used, for this reason.
    Unusable(String),
}

impl fmt::Display for NotOpened {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NoKey => "no private key was given",
            Self::NoPassphrase => "no passphrase was given",
            Self::WrongKey => "not for the private key that was given",
            Self::WrongPassphrase => "with another passphrase",
            Self::TooMuchWork => "its passphrase would take this machine too long to try",
            Self::Unusable(why) => return write!(f, "the private key of backup.identity cannot be used: {why}"),
        })
    }
}

impl Keys {
    pub fn none() -> Self {
        Self { identities: Arc::new([]), passphrase: None, ask: |_| None, unusable: None, typed: Arc::default() }
    }

    /// Of these files, and those that config.yaml names.
    pub fn read(
        files: &[PathBuf],
        passphrase: Option<&Path>,
        settings: Option<&BackupSettings>,
        ask: AskPassphrase,
    ) -> Result<Self, EncryptionError> {
        let (mut identities, mut unusable) = (Vec::new(), None);
        for path in files {
            identities.append(&mut identities_in(path, ask)?);
        }
        if let Some(own) = settings.and_then(|settings| settings.identity.as_ref()) {
            match identities_in(own, |_| None) {
                Ok(mut own) => identities.append(&mut own),
                Err(error) => unusable = Some(error.to_string()),
            }
        }
        let passphrase = match passphrase {
            Some(file) => Some(passphrase_at(&SecretPlace::File(file.to_owned()))?),
            None => {
                let place = settings.and_then(|settings| settings.passphrase.as_ref());
                place.and_then(|place| passphrase_at(place).ok())
            }
        };
        Ok(Self { identities: identities.into(), passphrase, ask, unusable, typed: Arc::default() })
    }

    /// The archive that a file holds, whether it is encrypted or not.
    pub fn open<'a>(&self, file: impl Read + 'a) -> io::Result<Result<Box<dyn Read + 'a>, NotOpened>> {
        let mut file = BufReader::with_capacity(BUFFER, file);
        if !file.fill_buf()?.starts_with(MAGIC) {
            return Ok(Ok(Box::new(file)));
        }
        let decryptor = Decryptor::new_buffered(file).map_err(damaged)?;
        if decryptor.is_scrypt() {
            let asked = || self.typed.get_or_init(|| (self.ask)("the backup").map(SecretString::from)).clone();
            let Some(passphrase) = self.passphrase.clone().or_else(asked) else {
                return Ok(Err(NotOpened::NoPassphrase));
            };
            let identity = age::scrypt::Identity::new(passphrase);
            return opened(
                decryptor.decrypt(std::iter::once(&identity as &dyn age::Identity)),
                NotOpened::WrongPassphrase,
            );
        }
        if self.identities.is_empty() {
            return Ok(Err(self.unusable.clone().map_or(NotOpened::NoKey, NotOpened::Unusable)));
        }
        let identities = self.identities.iter().map(|one| &**one as &dyn age::Identity);
        opened(decryptor.decrypt(identities), NotOpened::WrongKey)
    }
}

type Opened<'a> = io::Result<Result<Box<dyn Read + 'a>, NotOpened>>;

fn opened<'a>(stream: Result<impl Read + 'a, DecryptError>, wrong: NotOpened) -> Opened<'a> {
    match stream {
        Ok(stream) => Ok(Ok(Box::new(stream))),
        Err(DecryptError::NoMatchingKeys | DecryptError::DecryptionFailed | DecryptError::KeyDecryptionFailed) => {
            Ok(Err(wrong))
        }
        Err(DecryptError::ExcessiveWork { .. }) => Ok(Err(NotOpened::TooMuchWork)),
        Err(error) => Err(damaged(error)),
    }
}

fn damaged(error: DecryptError) -> io::Error {
    match error {
        DecryptError::Io(error) => error,
        other => io::Error::new(io::ErrorKind::InvalidData, other.to_string()),
    }
}

/// Those of an age key file, or of a private ssh key.
fn identities_in(
    path: &Path,
    ask: AskPassphrase,
) -> Result<Vec<Box<dyn age::Identity + Send + Sync>>, EncryptionError> {
    let key = |source| EncryptionError::Key { path: path.to_owned(), source };
    let wrong = |why: String| EncryptionError::NoKey { path: path.to_owned(), why };
    let bytes = files::read_regular(path, KEY_FILE_LIMIT).map_err(key)?;
    let bytes = bytes.ok_or_else(|| key(io::ErrorKind::NotFound.into()))?;
    if bytes.starts_with(MAGIC) || bytes.starts_with(b"-----BEGIN AGE ENCRYPTED FILE") {
        return Err(wrong("it is encrypted itself; decrypt it first: age -d".to_owned()));
    }
    if bytes.starts_with(b"-----BEGIN") {
        let name = Some(path.display().to_string());
        let identity = age::ssh::Identity::from_buffer(&bytes[..], name).map_err(|error| wrong(error.to_string()))?;
        let identity = match identity {
            age::ssh::Identity::Unsupported(_) => {
                return Err(wrong("it is an ssh key of a kind that age does not take".to_owned()));
            }
            age::ssh::Identity::Encrypted(locked) => {
                let passphrase = ask(&path.display().to_string());
                let passphrase =
                    passphrase.ok_or_else(|| wrong("it has a passphrase, which was not given".to_owned()))?;
                let opened = locked.decrypt(passphrase.into());
                opened.map_err(|_| wrong("its passphrase is another".to_owned()))?.into()
            }
            plain => plain,
        };
        return Ok(vec![Box::new(identity)]);
    }
    let file = IdentityFile::from_buffer(&bytes[..]).map_err(|error| wrong(error.to_string()))?;
    let found = file.into_identities().map_err(|error| wrong(error.to_string()))?;
    if found.is_empty() { Err(wrong("there is none in it".to_owned())) } else { Ok(found) }
}

/// A file to restore from, and by what it opens.
#[derive(Clone)]
pub struct Input {
    pub path: PathBuf,
    pub keys: Keys,
}

impl Input {
    /// One that is not encrypted.
    pub fn plain(path: &Path) -> Self {
        Self { path: path.to_owned(), keys: Keys::none() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backup::archive::Hashed;
    use age::secrecy::ExposeSecret;

    fn settings(text: &str) -> BackupSettings {
        BackupSettings::read(&serde_yaml::from_str(text).unwrap()).unwrap()
    }

    fn encrypted(settings: &BackupSettings, text: &[u8]) -> Vec<u8> {
        let mut output = EncryptTo::of(settings).unwrap().writer(Hashed::new(Vec::new())).unwrap();
        output.write_all(text).unwrap();
        output.finish().unwrap().inner
    }

    fn read(keys: &Keys, bytes: &[u8]) -> Result<Vec<u8>, NotOpened> {
        let mut found = Vec::new();
        keys.open(bytes).unwrap()?.read_to_end(&mut found).unwrap();
        Ok(found)
    }

    #[test]
    fn only_the_right_key_opens_it() {
        let folder = tempfile::tempdir().unwrap();
        let key = |name: &str| {
            let key = age::x25519::Identity::generate();
            let path = folder.path().join(name);
            std::fs::write(&path, format!("# mine\n{}\n", key.to_string().expose_secret())).unwrap();
            (path, key.to_public().to_string())
        };
        let ((mine, public), (other, _)) = (key("mine"), key("other"));
        let settings = settings(&format!("{{recipients: [{public}]}}"));
        let text = vec![7; 200_000];
        let bytes = encrypted(&settings, &text);
        let keys = |path: &Path| Keys::read(&[path.to_owned()], None, None, |_| None).unwrap();
        assert_eq!(read(&keys(&mine), &bytes), Ok(text.clone()));
        assert_eq!(read(&keys(&other), &bytes), Err(NotOpened::WrongKey));
        assert_eq!(read(&Keys::none(), &bytes), Err(NotOpened::NoKey));
        assert_eq!(read(&Keys::none(), b"plain"), Ok(b"plain".to_vec()));
        // A flipped bit, or an end that is missing, is no content.
        for damaged in [[&bytes[..70_000], &[bytes[70_000] ^ 1], &bytes[70_001..]].concat(), bytes[..150_000].to_vec()]
        {
            let mut found = Vec::new();
            assert!(keys(&mine).open(&damaged[..]).unwrap().unwrap().read_to_end(&mut found).is_err());
        }
        for (name, text) in [("none", "# nothing\n"), ("no", "swordfish\n"), ("pem", "-----BEGIN X-----\n")] {
            let path = folder.path().join(name);
            std::fs::write(&path, text).unwrap();
            assert!(matches!(Keys::read(&[path], None, None, |_| None), Err(EncryptionError::NoKey { .. })), "{name}");
        }
        let gone = Keys::read(&[folder.path().join("gone")], None, None, |_| None);
        assert!(matches!(gone, Err(EncryptionError::Key { .. })));
    }

    #[test]
    fn a_passphrase_is_read_where_it_is_kept_or_asked_for() {
        let folder = tempfile::tempdir().unwrap();
        let place = folder.path().join("passphrase");
        let settings = settings(&format!("{{passphrase: 'file:{}'}}", place.display()));
        assert!(matches!(EncryptTo::of(&settings), Err(EncryptionError::Passphrase { .. })));
        std::fs::write(&place, "swordfish\n").unwrap();
        let bytes = encrypted(&settings, b"text");
        assert_eq!(read(&Keys::read(&[], None, Some(&settings), |_| None).unwrap(), &bytes), Ok(b"text".to_vec()));
        let asked = |ask: AskPassphrase| read(&Keys::read(&[], None, None, ask).unwrap(), &bytes);
        assert_eq!(asked(|_| Some("swordfish".to_owned())), Ok(b"text".to_vec()));
        assert_eq!(asked(|_| Some("tuna".to_owned())), Err(NotOpened::WrongPassphrase));
        assert_eq!(asked(|_| None), Err(NotOpened::NoPassphrase));
    }
}

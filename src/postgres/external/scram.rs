//! Requires SCRAM from a server. Without TLS nothing authenticates the owner of a port, or of a socket in a
//! world-writable folder: while the real server is down, another program can take its place and ask for the clear-text
//! password. With SCRAM a server never sees the password and cannot complete the exchange without knowing it:
//! <https://www.postgresql.org/docs/18/sasl-authentication.html>.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Value of `PGREQUIREAUTH` for PostgreSQL's own programs.
pub const METHOD: &str = "scram-sha-256";

/// Reason why the password was not sent.
#[derive(Debug, thiserror::Error)]
#[error("{0}, and without TLS only SCRAM (scram-sha-256) is accepted: another program may be impersonating the server")]
pub(crate) struct NotScram(&'static str);

impl NotScram {
    /// Returns the refusal that made a login fail, if any.
    pub fn cause_of(error: &tokio_postgres::Error) -> Option<&Self> {
        std::error::Error::source(error)?.downcast_ref::<io::Error>()?.get_ref()?.downcast_ref()
    }
}

/// Codes of the AuthenticationXXX messages of a login by SCRAM, in order: SASL, SASLContinue, SASLFinal, Ok.
/// Source: <https://www.postgresql.org/docs/18/protocol-message-formats.html>.
const LOGIN: [u32; 4] = [10, 11, 12, 0];

/// Progress of the server's side of the login.
#[derive(Default)]
struct Exchange {
    /// Number of `LOGIN` messages received.
    done: usize,
    /// Start of a message: type, length, and for `R` the code.
    head: Vec<u8>,
    /// Bytes of the message not yet received.
    remaining: usize,
}

impl Exchange {
    fn is_done(&self) -> bool {
        self.done == LOGIN.len()
    }

    /// Checks bytes that the server sent.
    fn check(&mut self, mut bytes: &[u8]) -> Result<(), NotScram> {
        while !self.is_done() && !bytes.is_empty() {
            if self.remaining > 0 {
                let passed = self.remaining.min(bytes.len());
                self.remaining -= passed;
                bytes = &bytes[passed..];
                continue;
            }
            self.head.push(bytes[0]);
            bytes = &bytes[1..];
            let needed = if self.head[0] == b'R' { 9 } else { 5 };
            if self.head.len() == needed {
                self.remaining = self.message()?;
                self.head.clear();
            }
        }
        Ok(())
    }

    /// Checks a message by its head; returns the number of bytes that follow.
    fn message(&mut self) -> Result<usize, NotScram> {
        let number_at =
            |start: usize| self.head[start..start + 4].iter().fold(0_u32, |sum, byte| sum << 8 | u32::from(*byte));
        let length = usize::try_from(number_at(1)).unwrap_or(usize::MAX);
        let remaining =
            (length + 1).checked_sub(self.head.len()).ok_or(NotScram("it does not speak PostgreSQL's protocol"))?;
        match self.head[0] {
            b'R' if number_at(5) == LOGIN[self.done] => self.done += 1,
            b'R' => {
                return Err(NotScram(match number_at(5) {
                    0 => "the server asks for no password",
                    3 => "the server asks for the password in clear",
                    5 => "the server asks for the password by MD5",
                    _ => "the server asks for another kind of login",
                }));
            }
            // ErrorResponse, NoticeResponse, NegotiateProtocolVersion.
            b'E' | b'N' | b'v' => {}
            _ => return Err(NotScram("it does not speak PostgreSQL's protocol")),
        }
        Ok(remaining)
    }
}

/// A connection that fails unless the server uses SCRAM.
pub struct ScramOnly<S> {
    stream: S,
    exchange: Exchange,
}

impl<S> ScramOnly<S> {
    pub fn new(stream: S) -> Self {
        Self { stream, exchange: Exchange::default() }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for ScramOnly<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let polled = Pin::new(&mut self.stream).poll_read(context, buffer);
        if !self.exchange.is_done()
            && let Err(refused) = self.exchange.check(&buffer.filled()[before..])
        {
            buffer.set_filled(before);
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::PermissionDenied, refused)));
        }
        polled
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for ScramOnly<S> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(kind: u8, content: &[u8]) -> Vec<u8> {
        let length = u32::try_from(content.len() + 4).unwrap();
        [&[kind][..], &length.to_be_bytes(), content].concat()
    }

    fn authentication(code: u32, content: &[u8]) -> Vec<u8> {
        message(b'R', &[&code.to_be_bytes()[..], content].concat())
    }

    #[test]
    fn accepts_only_a_complete_scram_login() {
        let sasl = || authentication(10, b"SCRAM-SHA-256\0\0");
        let complete_login =
            [sasl(), authentication(11, b"r=x"), authentication(12, b"v=x"), authentication(0, b"")].concat();
        let row = [complete_login.clone(), message(b'D', &[7; 40])].concat();
        let error = message(b'E', b"SFATAL\0\0");
        for (bytes, passes) in [
            (complete_login, true),
            (row, true),
            (error.clone(), true),
            ([sasl(), error].concat(), true),
            (authentication(0, b""), false),
            (authentication(3, b""), false),
            (authentication(5, b"salt"), false),
            ([sasl(), authentication(3, b"")].concat(), false),
            ([sasl(), authentication(0, b"")].concat(), false),
            ([sasl(), authentication(11, b"r=x"), authentication(0, b"")].concat(), false),
            (message(b'Z', b"I"), false),
            (b"HTTP/1.1 400 Bad Request\r\n".to_vec(), false),
            (vec![b'R', 0, 0, 0, 0, 0, 0, 0, 10], false),
        ] {
            assert_eq!(Exchange::default().check(&bytes).is_ok(), passes, "{bytes:?}");
            let mut exchange = Exchange::default();
            let one_by_one = bytes.iter().try_for_each(|byte| exchange.check(&[*byte]));
            assert_eq!(one_by_one.is_ok(), passes, "byte by byte: {bytes:?}");
        }
    }

    /// Returns the bytes that a client sends to a server with this answer, and the client's error.
    async fn sent_to(answer: Vec<u8>) -> (Vec<u8>, tokio_postgres::Error) {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let (client, mut server) = tokio::io::duplex(4096);
        let serving = tokio::spawn(async move {
            let mut sent = vec![0; 4096];
            let first_length = server.read(&mut sent).await.unwrap();
            server.write_all(&answer).await.unwrap();
            let mut remainder = Vec::new();
            server.read_to_end(&mut remainder).await.unwrap();
            sent.truncate(first_length);
            [sent, remainder].concat()
        });
        let mut config = tokio_postgres::Config::new();
        config.user("postgres").password("the-secret").dbname("d");
        let connected = config.connect_raw(ScramOnly::new(client), tokio_postgres::NoTls).await;
        (serving.await.unwrap(), connected.err().unwrap())
    }

    #[tokio::test]
    async fn other_login_methods_get_no_password() {
        for code in [3_u32, 5, 0] {
            let (sent, error) = sent_to(authentication(code, b"salt")).await;
            let has = |bytes: &[u8]| sent.windows(bytes.len()).any(|part| part == bytes);
            assert!(has(b"postgres") && !has(b"the-secret") && !has(b"md5"), "{code}: {sent:?}");
            assert!(NotScram::cause_of(&error).is_some(), "{code}: {error:?}");
        }
    }
}

//! A server that has to prove that it knows the password. Without TLS nothing says who has a port, or a socket in a folder where
//! anybody may make one: while the real server is down, another program can take its place and ask for the password in clear.
//! With SCRAM a server never sees the password, and one that does not know it cannot complete the exchange:
//! <https://www.postgresql.org/docs/18/sasl-authentication.html>.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// The value of `PGREQUIREAUTH` for PostgreSQL's own programs.
pub const METHOD: &str = "scram-sha-256";

/// Why nothing was sent.
#[derive(Debug, thiserror::Error)]
#[error("{0}, and without TLS only SCRAM (scram-sha-256) is accepted: another program may have taken its place")]
pub struct NotScram(&'static str);

impl NotScram {
    /// The refusal that made a login fail, if it did.
    pub fn cause_of(error: &tokio_postgres::Error) -> Option<&Self> {
        std::error::Error::source(error)?.downcast_ref::<io::Error>()?.get_ref()?.downcast_ref()
    }
}

/// Codes of the AuthenticationXXX messages of a login by SCRAM, in order: SASL, SASLContinue, SASLFinal, Ok.
/// Source: <https://www.postgresql.org/docs/18/protocol-message-formats.html>.
const LOGIN: [u32; 4] = [10, 11, 12, 0];

/// What a server has sent of its side of the login.
#[derive(Default)]
struct Exchange {
    /// How many messages of `LOGIN` have come.
    done: usize,
    /// The beginning of a message: its type, its length, and for `R` its code.
    head: Vec<u8>,
    /// Bytes of the message that are still to come.
    rest: usize,
}

impl Exchange {
    fn is_done(&self) -> bool {
        self.done == LOGIN.len()
    }

    fn take(&mut self, mut bytes: &[u8]) -> Result<(), NotScram> {
        while !self.is_done() && !bytes.is_empty() {
            if self.rest > 0 {
                let passed = self.rest.min(bytes.len());
                self.rest -= passed;
                bytes = &bytes[passed..];
                continue;
            }
            self.head.push(bytes[0]);
            bytes = &bytes[1..];
            let needed = if self.head[0] == b'R' { 9 } else { 5 };
            if self.head.len() == needed {
                self.rest = self.message()?;
                self.head.clear();
            }
        }
        Ok(())
    }

    /// Judges a message by its head; the length of its rest.
    fn message(&mut self) -> Result<usize, NotScram> {
        let word = |at: usize| self.head[at..at + 4].iter().fold(0_u32, |sum, byte| sum << 8 | u32::from(*byte));
        let length = usize::try_from(word(1)).unwrap_or(usize::MAX);
        let rest =
            (length + 1).checked_sub(self.head.len()).ok_or(NotScram("it does not speak PostgreSQL's protocol"))?;
        match self.head[0] {
            b'R' if word(5) == LOGIN[self.done] => self.done += 1,
            b'R' => {
                return Err(NotScram(match word(5) {
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
        Ok(rest)
    }
}

/// A connection that ends before a client sees anything but a login by SCRAM.
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
            && let Err(refused) = self.exchange.take(&buffer.filled()[before..])
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
    fn only_a_whole_login_by_scram_passes() {
        let sasl = || authentication(10, b"SCRAM-SHA-256\0\0");
        let whole = [sasl(), authentication(11, b"r=x"), authentication(12, b"v=x"), authentication(0, b"")].concat();
        let row = [whole.clone(), message(b'D', &[7; 40])].concat();
        let error = message(b'E', b"SFATAL\0\0");
        for (bytes, passes) in [
            (whole, true),
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
            assert_eq!(Exchange::default().take(&bytes).is_ok(), passes, "{bytes:?}");
            let mut exchange = Exchange::default();
            let one_by_one = bytes.iter().try_for_each(|byte| exchange.take(&[*byte]));
            assert_eq!(one_by_one.is_ok(), passes, "byte by byte: {bytes:?}");
        }
    }

    /// What a client of such a server sends before it gives up, and why it does.
    async fn sent_to(answer: Vec<u8>) -> (Vec<u8>, tokio_postgres::Error) {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let (client, mut server) = tokio::io::duplex(4096);
        let serving = tokio::spawn(async move {
            let mut sent = vec![0; 4096];
            let first = server.read(&mut sent).await.unwrap();
            server.write_all(&answer).await.unwrap();
            let mut more = Vec::new();
            server.read_to_end(&mut more).await.unwrap();
            sent.truncate(first);
            [sent, more].concat()
        });
        let mut config = tokio_postgres::Config::new();
        config.user("postgres").password("the-secret").dbname("d");
        let connected = config.connect_raw(ScramOnly::new(client), tokio_postgres::NoTls).await;
        (serving.await.unwrap(), connected.err().unwrap())
    }

    #[tokio::test]
    async fn a_server_that_asks_otherwise_is_sent_no_password() {
        for code in [3_u32, 5, 0] {
            let (sent, error) = sent_to(authentication(code, b"salt")).await;
            let has = |word: &[u8]| sent.windows(word.len()).any(|part| part == word);
            assert!(has(b"postgres") && !has(b"the-secret") && !has(b"md5"), "{code}: {sent:?}");
            assert!(NotScram::cause_of(&error).is_some(), "{code}: {error:?}");
        }
    }
}

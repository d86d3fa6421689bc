//! Relays connections from the socket under the home, where all clients expect the datastore, to an external server or
//! a container. Where the URL requires TLS, it is verified here: some builds of PostgreSQL's programs have no TLS, so
//! this is the only TLS client. A failed connection is reported to the client as a protocol error. Source:
//! <https://www.postgresql.org/docs/18/protocol-flow.html>.

use super::scram::{NotScram, ScramOnly};
use super::tls::{self, TlsError};
use crate::location::{self, Container};
use crate::{Credentials, Endpoint, PgError, SOCKET_PORT};
use leoflow_base::config::{Address, ExternalUrl, Tls};
use leoflow_base::home::Home;
use leoflow_base::sys::net::{stream, unix_socket};
use leoflow_base::sys::process::{command, exit};
use rustls::pki_types::ServerName;
use std::io;
use std::path::PathBuf;
use std::process::{Child, ExitStatus, Stdio};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, copy_bidirectional_with_sizes};
use tokio::net::{TcpStream, UnixListener, UnixStream};
use tokio::signal::unix::{SignalKind, signal};
use tokio_postgres::{Client, NoTls};
use tokio_rustls::TlsConnector;
use tracing::{info, warn};

#[derive(Debug, thiserror::Error)]
pub enum RelayError {
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error(transparent)]
    Location(#[from] location::LocationError),
    #[error(transparent)]
    Tls(#[from] TlsError),
}

/// Why no connection to the server could be made.
#[derive(Debug, thiserror::Error)]
enum UpstreamError {
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error("it does not support TLS; sslmode=disable in the URL turns encryption off")]
    NoTls,
    #[error("{0} is not a valid name for a certificate")]
    Name(String),
    #[error("TLS: {0}")]
    Handshake(#[source] io::Error),
    #[error("no answer within {} s", ANSWER_LIMIT.as_secs())]
    Timeout,
}

/// Time limit for an answer of the server.
const ANSWER_LIMIT: Duration = Duration::from_secs(4);
/// Read buffer size, in bytes.
const BUFFER: usize = 16 * 1024;
/// Codes that a client sends in place of a protocol version to request TLS or GSSAPI.
const SSL_REQUEST: u32 = 80_877_103;
const GSS_REQUEST: u32 = 80_877_104;
/// Code of a request to cancel another connection's query.
const CANCEL_REQUEST: u32 = 80_877_102;
/// Size limit of a startup message, the same as PostgreSQL's, in bytes.
const MAX_STARTUP_MESSAGE: usize = 10_000;

/// Starts the container, if the datastore is one, and relays until a stop signal arrives or the container exits; both
/// end all connections.
pub async fn run(home: &Home) -> Result<(), RelayError> {
    let container = location::recorded(home)?.and_then(|recorded| recorded.container);
    let url = match &container {
        Some(container) => ExternalUrl::parse(&container.url()).map_err(io::Error::other)?,
        None => location::external(home)?,
    };
    let endpoint = Endpoint::for_home(home);
    endpoint.prepare()?;
    let upstream = Upstream::new(url)?;
    let listener = unix_socket::listen(&endpoint.socket_folder.join(format!(".s.PGSQL.{SOCKET_PORT}")))?;
    listener.set_nonblocking(true)?;
    let listener = UnixListener::from_std(listener)?;
    let mut stop = [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::quit()].map(signal);
    let [Ok(interrupt), Ok(terminate), Ok(quit)] = &mut stop else {
        return Err(io::Error::other("cannot listen for signals").into());
    };
    let mut parent_gone = std::pin::pin!(exit::wait_parent_gone());
    info!("relaying to {}", upstream.url.address);
    let mut attached = container.as_ref().map(Attached::start).transpose()?;
    let mut container_check = tokio::time::interval(CHECK_INTERVAL);
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((client, _)) => drop(tokio::task::spawn_local(upstream.clone().serve(client))),
                // For example too many open files: open connections continue, and some will end.
                Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
            },
            _ = interrupt.recv() => return Ok(()),
            _ = terminate.recv() => return Ok(()),
            _ = quit.recv() => return Ok(()),
            () = &mut parent_gone => return Ok(()),
            _ = container_check.tick(), if attached.is_some() => {
                if let Some(status) = attached.as_mut().and_then(Attached::ended) {
                    return Err(RelayError::Io(io::Error::other(format!("the container exited: {status}"))));
                }
            }
        }
    }
}

/// Interval of checks that the container is running.
const CHECK_INTERVAL: Duration = Duration::from_millis(250);

/// A container that runs as long as this value lives; drop stops it.
struct Attached<'a> {
    container: &'a Container,
    program: Child,
}

impl<'a> Attached<'a> {
    /// Starts the container. Its output goes to this process's output.
    fn start(container: &'a Container) -> io::Result<Self> {
        let mut command = container.start_attached();
        // Ctrl-C must not reach this program: `drop` stops the container.
        command::in_own_session(command.stdin(Stdio::null()));
        Ok(Self { container, program: command.spawn()? })
    }

    /// Exit status of the container; `None` while it runs.
    fn ended(&mut self) -> Option<ExitStatus> {
        self.program.try_wait().ok().flatten()
    }
}

impl Drop for Attached<'_> {
    fn drop(&mut self) {
        if let Err(error) = self.container.stop() {
            warn!("cannot stop the container: {error}");
        }
        // The program exits with the container; it is killed in case the container could not be stopped.
        let _ = self.program.kill();
        let _ = self.program.wait();
    }
}

/// Connects without the relay, for a check before the home uses the server.
pub async fn connect_directly(url: &ExternalUrl) -> Result<Client, PgError> {
    let upstream = Upstream::new(url.clone()).map_err(|error| PgError::ExternalServer(error.to_string()))?;
    let stream = upstream.in_time(upstream.connect()).await?;
    let endpoint = Endpoint { socket_folder: PathBuf::new() };
    let mut config = Credentials::from(url.clone()).application(&endpoint);
    config.options("-c search_path=pg_catalog -c statement_timeout=30s");
    let connecting = tokio::time::timeout(ANSWER_LIMIT, config.connect_raw(stream, NoTls)).await;
    let connected = connecting.map_err(|_| PgError::Timeout(ANSWER_LIMIT))?;
    let (client, connection) = connected.map_err(|error| match NotScram::cause_of(&error) {
        Some(refusal) => PgError::ExternalServer(format!("the datastore at {}: {refusal}", url.address)),
        None => endpoint.classify(error),
    })?;
    // An error here ends the connection, which the client reports at its next use.
    tokio::spawn(async move { drop(connection.await) });
    Ok(client)
}

/// The server that connections are relayed to.
#[derive(Clone)]
struct Upstream {
    url: ExternalUrl,
    tls: Option<TlsConnector>,
}

trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Stream for T {}

impl Upstream {
    fn new(url: ExternalUrl) -> Result<Self, TlsError> {
        let tls = match &url.tls {
            Tls::Off => None,
            Tls::Verified { authorities } => Some(tls::connector(authorities.as_deref())?),
        };
        Ok(Self { url, tls })
    }

    /// Relays one connection until either side ends it.
    async fn serve(self, mut client: UnixStream) {
        let Ok(startup) = startup_message(&mut client).await else { return };
        let answered = async {
            let mut server = self.connect().await?;
            server.write_all(&startup.bytes).await?;
            let mut answer = vec![0; BUFFER];
            // A cancel request gets no answer.
            let count = if startup.is_cancel { 0 } else { server.read(&mut answer).await? };
            answer.truncate(count);
            Ok((server, answer))
        };
        match self.in_time(answered).await {
            Ok((mut server, answer)) => {
                let relayed = async {
                    client.write_all(&answer).await?;
                    copy_bidirectional_with_sizes(&mut client, &mut server, BUFFER, BUFFER).await
                };
                // Either end may disconnect at any time; then both streams are dropped, which closes the other end.
                drop(relayed.await);
            }
            // The client may have disconnected.
            Err(error) => drop(client.write_all(&refusal(&error.to_string())).await),
        }
    }

    /// Limits the wait below the client's own timeout, so that the client learns which side failed to answer.
    async fn in_time<T>(&self, work: impl Future<Output = Result<T, UpstreamError>>) -> Result<T, PgError> {
        let done = tokio::time::timeout(ANSWER_LIMIT, work).await.unwrap_or(Err(UpstreamError::Timeout));
        done.map_err(|error| {
            PgError::ExternalServer(format!("cannot reach the datastore at {}: {error}", self.url.address))
        })
    }

    /// Connects; if the URL requires SCRAM, only to a server that proves knowledge of the password.
    async fn connect(&self) -> Result<Box<dyn Stream>, UpstreamError> {
        let stream = self.open().await?;
        Ok(if self.url.requires_scram() { Box::new(ScramOnly::new(stream)) } else { stream })
    }

    /// Opens the connection, encrypted if the URL says so.
    async fn open(&self) -> Result<Box<dyn Stream>, UpstreamError> {
        let (host, port) = match &self.url.address {
            Address::Tcp { host, port } => (host.as_str(), *port),
            Address::Socket { .. } => {
                let path = self.url.address.socket().unwrap_or_default();
                return Ok(Box::new(UnixStream::connect(path).await?));
            }
        };
        let mut tcp = TcpStream::connect((host, port)).await?;
        tcp.set_nodelay(true)?;
        stream::enable_keepalive(&tcp)?;
        let Some(tls) = &self.tls else { return Ok(Box::new(tcp)) };
        let mut request = [0; 8];
        request[..4].copy_from_slice(&8_u32.to_be_bytes());
        request[4..].copy_from_slice(&SSL_REQUEST.to_be_bytes());
        tcp.write_all(&request).await?;
        if tcp.read_u8().await? != b'S' {
            return Err(UpstreamError::NoTls);
        }
        let name = ServerName::try_from(host.to_owned()).map_err(|_| UpstreamError::Name(host.to_owned()))?;
        Ok(Box::new(tls.connect(name, tcp).await.map_err(UpstreamError::Handshake)?))
    }
}

/// A client's first message.
struct StartupMessage {
    bytes: Vec<u8>,
    is_cancel: bool,
}

/// Reads the startup message. Declines encryption, which is not needed on this machine.
async fn startup_message(client: &mut UnixStream) -> io::Result<StartupMessage> {
    let mut head = [0; 8];
    loop {
        client.read_exact(&mut head).await?;
        let [length, code] =
            [&head[..4], &head[4..]].map(|bytes| bytes.iter().fold(0_u32, |sum, byte| sum << 8 | u32::from(*byte)));
        if [SSL_REQUEST, GSS_REQUEST].contains(&code) {
            client.write_all(b"N").await?;
            continue;
        }
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        if !(8..=MAX_STARTUP_MESSAGE).contains(&length) {
            return Err(io::ErrorKind::InvalidData.into());
        }
        let mut bytes = head.to_vec();
        bytes.resize(length, 0);
        client.read_exact(&mut bytes[8..]).await?;
        return Ok(StartupMessage { bytes, is_cancel: code == CANCEL_REQUEST });
    }
}

/// Builds an ErrorResponse message with the SQLSTATE of failed connections.
fn refusal(text: &str) -> Vec<u8> {
    let mut fields = Vec::new();
    for (field, value) in [(b'S', "FATAL"), (b'V', "FATAL"), (b'C', "08001"), (b'M', text)] {
        fields.push(field);
        fields.extend(value.bytes().filter(|byte| *byte != 0));
        fields.push(0);
    }
    fields.push(0);
    let length = u32::try_from(fields.len() + 4).unwrap_or(u32::MAX);
    [&b"E"[..], &length.to_be_bytes(), &fields].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_impostor_on_the_port_gets_no_password() {
        for code in [0_u32, 3, 5] {
            let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
            let port = listener.local_addr().unwrap().port();
            let serving = tokio::spawn(async move {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut sent = vec![0; 4096];
                let first_length = stream.read(&mut sent).await.unwrap();
                stream
                    .write_all(&[&b"R"[..], &12_u32.to_be_bytes(), &code.to_be_bytes(), b"salt"].concat())
                    .await
                    .unwrap();
                let mut remainder = Vec::new();
                let _ = stream.read_to_end(&mut remainder).await;
                sent.truncate(first_length);
                [sent, remainder].concat()
            });
            let url = ExternalUrl::parse(&format!("postgres://ada:lovelace@127.0.0.1:{port}/b")).unwrap();
            let Err(PgError::ExternalServer(reason)) = connect_directly(&url).await else { panic!("{code}") };
            let sent = String::from_utf8_lossy(&serving.await.unwrap()).into_owned();
            assert!(
                reason.contains("SCRAM") && sent.contains("ada") && !sent.contains("lovelace") && !sent.contains("md5"),
                "{sent}"
            );
        }
    }
}

//! Finds the user who owns the other end of a local TCP connection, by asking the kernel for this one socket
//! (sock_diag(7)); `/proc/net/tcp` lists all sockets and is read only where that is forbidden. Only on Linux.

use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, recv, sendto, setsockopt, socket, sockopt,
};
use nix::sys::time::{TimeVal, TimeValLike};
use std::fs;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsRawFd;

/// Message types and flags of linux/netlink.h and linux/sock_diag.h.
const SOCK_DIAG_BY_FAMILY: u16 = 20;
const NLM_F_REQUEST: u16 = 1;
/// Bytes of `struct nlmsghdr` and `struct inet_diag_req_v2`.
const HEADER: usize = 16;
const REQUEST: usize = 56;
/// Offsets of `idiag_uid` and `idiag_inode` in an answer: after the header, four bytes, the socket's 48 bytes and three
/// numbers.
const UID: usize = HEADER + 4 + 48 + 12;
const INODE: usize = UID + 4;

/// The user of the process at the other end of a local connection. `None` when the kernel does not list it (any
/// longer), or when its process has closed it: such a socket has no owner.
pub fn uid_of_client(client: SocketAddr, server: SocketAddr) -> Option<u32> {
    if crate::sys::is_portable() {
        return None;
    }
    match from_sock_diag(client, server) {
        Ok(uid) => uid,
        Err(_) => from_table(client, server),
    }
}

fn from_sock_diag(client: SocketAddr, server: SocketAddr) -> io::Result<Option<u32>> {
    let flags = SockFlag::SOCK_CLOEXEC;
    let socket = socket(AddressFamily::Netlink, SockType::Datagram, flags, SockProtocol::NetlinkSockDiag)?;
    // The kernel answers while it handles the request; the limit only guards against one that does not.
    setsockopt(&socket, sockopt::ReceiveTimeout, &TimeVal::seconds(1))?;
    sendto(socket.as_raw_fd(), &request(client, server), &NetlinkAddr::new(0, 0), MsgFlags::empty())?;
    let mut answer = [0; 1024];
    let length = recv(socket.as_raw_fd(), &mut answer, MsgFlags::empty())?;
    let answer = answer.get(..length).unwrap_or_default();
    let kind = answer.get(4..6).map(|bytes| u16::from_ne_bytes([bytes[0], bytes[1]]));
    if kind == Some(SOCK_DIAG_BY_FAMILY) {
        return Ok(word_at(answer, INODE).filter(|inode| *inode != 0).and_then(|_| word_at(answer, UID)));
    }
    match word_at(answer, HEADER).map(|error| io::Error::from_raw_os_error((error as i32).wrapping_neg())) {
        Some(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Some(error) => Err(error),
        None => Err(io::ErrorKind::InvalidData.into()),
    }
}

/// A request for the socket whose local end is `client` and whose remote end is `server`.
fn request(client: SocketAddr, server: SocketAddr) -> Vec<u8> {
    let family = if client.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    let length = (HEADER + REQUEST) as u32;
    let mut request = Vec::with_capacity(HEADER + REQUEST);
    request.extend(length.to_ne_bytes());
    request.extend(SOCK_DIAG_BY_FAMILY.to_ne_bytes());
    request.extend(NLM_F_REQUEST.to_ne_bytes());
    // Sequence number and port id.
    request.extend([0; 8]);
    // Family, protocol, extensions, padding; all states.
    request.extend([family as u8, SockProtocol::Tcp as u8, 0, 0]);
    request.extend(u32::MAX.to_ne_bytes());
    request.extend(client.port().to_be_bytes());
    request.extend(server.port().to_be_bytes());
    request.extend(address_bytes(client.ip()));
    request.extend(address_bytes(server.ip()));
    // Any interface, and no cookie.
    request.extend([0; 4]);
    request.extend([0xff; 8]);
    request
}

fn address_bytes(ip: IpAddr) -> [u8; 16] {
    match ip {
        IpAddr::V4(ip) => {
            let mut bytes = [0; 16];
            bytes[..4].copy_from_slice(&ip.octets());
            bytes
        }
        IpAddr::V6(ip) => ip.octets(),
    }
}

fn word_at(bytes: &[u8], offset: usize) -> Option<u32> {
    let bytes = bytes.get(offset..offset + 4)?;
    Some(u32::from_ne_bytes(bytes.try_into().ok()?))
}

/// Finds the user in `/proc/net/tcp`. Columns as in proc_net_tcp(5): addresses in the second and third, uid in the
/// eighth, inode in the tenth.
fn from_table(client: SocketAddr, server: SocketAddr) -> Option<u32> {
    let table = if client.is_ipv4() { "/proc/net/tcp" } else { "/proc/net/tcp6" };
    let (local, remote) = (table_format(client), table_format(server));
    let text = fs::read_to_string(table).ok()?;
    text.lines().skip(1).find_map(|line| {
        let columns: Vec<&str> = line.split_ascii_whitespace().collect();
        let is_match = *columns.get(1)? == local && *columns.get(2)? == remote && *columns.get(9)? != "0";
        is_match.then(|| columns.get(7)?.parse().ok())?
    })
}

/// Formats an address as in the kernel's tables: words in native byte order.
fn table_format(address: SocketAddr) -> String {
    let word = |part: &[u8]| format!("{:08X}", u32::from_ne_bytes([part[0], part[1], part[2], part[3]]));
    let ip: String = match address.ip() {
        IpAddr::V4(ip) => word(&ip.octets()),
        IpAddr::V6(ip) => ip.octets().chunks(4).map(word).collect(),
    };
    format!("{ip}:{:04X}", address.port())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{TcpListener, TcpStream};

    #[test]
    fn names_the_user_at_the_other_end() {
        for host in ["127.0.0.1:0", "[::1]:0"] {
            let Ok(listener) = TcpListener::bind(host) else { continue };
            let stream = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            let (client, server) = (stream.local_addr().unwrap(), listener.local_addr().unwrap());
            if crate::sys::is_portable() {
                assert_eq!(uid_of_client(client, server), None);
                continue;
            }
            let own = Some(crate::sys::user::effective_uid());
            assert_eq!(uid_of_client(client, server), own, "{host}");
            assert_eq!(from_sock_diag(client, server).unwrap(), own, "{host}");
            assert_eq!(from_table(client, server), own, "{host}");
            let (accepted, _) = listener.accept().unwrap();
            drop(stream);
            // Closed by its process, but still known to the kernel while the server has not closed its end.
            // A process that another test forks at this moment holds the socket until it runs its program.
            let is_unknown = || (uid_of_client(client, server), from_table(client, server)) == (None, None);
            let mut attempts = 0..1000;
            while !is_unknown() {
                assert!(attempts.next().is_some(), "{host}");
                std::thread::sleep(std::time::Duration::from_millis(10));
            }
            drop(accepted);
        }
        let nobody = "127.0.0.1:1".parse().unwrap();
        assert_eq!(from_sock_diag(nobody, nobody).unwrap(), None);
    }
}

//! Sockets, listeners and ports.

pub mod listener;
#[cfg_attr(not(target_os = "linux"), path = "no_peer_owner.rs")]
pub mod peer_owner;
#[cfg_attr(not(target_os = "linux"), path = "ports_by_lsof.rs")]
pub mod ports;
pub mod sd_notify;
pub mod seqpacket;
pub mod stream;
pub mod unix_socket;

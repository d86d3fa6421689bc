//! Sockets, listeners and ports.

pub mod listener;
pub mod peer_owner;
pub mod ports;
pub mod sd_notify;
pub mod seqpacket;
pub mod stream;
pub mod unix_socket;

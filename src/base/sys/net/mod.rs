//! Sockets, listeners and ports.

pub mod listener;
pub mod notify;
pub mod peer_owner;
pub mod ports;
pub mod seqpacket;
pub mod stream;
pub mod unix_socket;

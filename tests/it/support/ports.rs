//! Ports for the servers of tests.

use std::net::TcpListener;
use std::ops::Range;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::sync::{Mutex, PoisonError};

/// The ports of tests are below the ephemeral range, of which the kernel gives ports to clients.
const FIRST: u16 = 12_000;
const BLOCKS: u16 = 200;
const BLOCK_SIZE: u16 = 100;

/// Ports that only this process uses, also while none of its servers listens on them.
struct Block {
    ports: Range<u16>,
    /// An abstract socket; the kernel removes it when this process ends.
    _reservation: UnixListener,
}

impl Block {
    fn reserve() -> Self {
        let begin = (std::process::id() % u32::from(BLOCKS)) as u16;
        let reserve = |offset: u16| {
            let number = (begin + offset) % BLOCKS;
            let address = SocketAddr::from_abstract_name(format!("leoflow-test-ports-{number}")).unwrap();
            let first = FIRST + number * BLOCK_SIZE;
            let reservation = UnixListener::bind_addr(&address).ok()?;
            Some(Self { ports: first..first + BLOCK_SIZE, _reservation: reservation })
        };
        (0..BLOCKS).find_map(reserve).expect("all ports of tests are reserved by other processes")
    }
}

/// Returns a port on which nothing listens, a different one from each call of all test processes.
pub fn free_port() -> u16 {
    static RESERVED: Mutex<Vec<Block>> = Mutex::new(Vec::new());
    let mut blocks = RESERVED.lock().unwrap_or_else(PoisonError::into_inner);
    loop {
        let is_free = |port: &u16| TcpListener::bind(("127.0.0.1", *port)).is_ok();
        if let Some(port) = blocks.last_mut().and_then(|block| block.ports.find(is_free)) {
            return port;
        }
        blocks.push(Block::reserve());
    }
}

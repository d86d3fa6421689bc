//! A web server that remembers the requests it got.

use serde_json::Value;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

/// A request that a receiver got: the first line with the headers, and the body.
#[derive(Debug, Clone)]
pub struct Received {
    pub head: String,
    pub body: Vec<u8>,
}

impl Received {
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        let value = |line: &'_ str| line.split_once(": ").filter(|(key, _)| key.eq_ignore_ascii_case(name)).is_some();
        self.head.lines().find(|line| value(line)).map(|line| line.split_once(": ").unwrap().1)
    }
}

/// A web server that remembers what it got. It answers `failures` requests with 500 first.
pub struct Receiver {
    pub port: u16,
    received: Arc<Mutex<Vec<Received>>>,
}

impl Receiver {
    pub fn new(failures: usize) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let (port, received) = (listener.local_addr().unwrap().port(), Arc::default());
        let log: Arc<Mutex<Vec<Received>>> = Arc::clone(&received);
        std::thread::spawn(move || {
            for (index, stream) in listener.incoming().flatten().enumerate() {
                let request = answer(stream, if index < failures { "500 No" } else { "200 OK" });
                log.lock().unwrap().extend(request.filter(|_| index >= failures));
            }
        });
        Self { port, received }
    }

    pub fn all(&self) -> Vec<Received> {
        self.received.lock().unwrap().clone()
    }

    /// The texts of the received messages.
    pub fn texts(&self) -> Vec<String> {
        self.all().iter().map(|received| received.json()["text"].as_str().unwrap().to_owned()).collect()
    }
}

fn answer(stream: TcpStream, status: &str) -> Option<Received> {
    let mut reader = BufReader::new(stream.try_clone().ok()?);
    let mut head = String::new();
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).ok()? == 0 || line == "\r\n" {
            break;
        }
        head += &line.replace('\r', "");
    }
    let received = Received { head, body: Vec::new() };
    let length = received.header("content-length").and_then(|length| length.parse().ok()).unwrap_or(0);
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    let mut stream = stream;
    write!(stream, "HTTP/1.1 {status}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n").ok()?;
    Some(Received { body, ..received })
}

//! Web servers on loopback that answer with errors, truncated bodies, redirects or ranges, as the test specifies.

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;

/// Maps a path to a status and a body.
pub type Answer = Arc<dyn Fn(&str) -> (u16, Vec<u8>) + Send + Sync>;

/// Serves until the test process ends; returns its address. `cut` closes the connection halfway through each body of
/// more than 1,000 bytes.
pub fn serve(answer: Answer, cut: bool) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let answer = answer.clone();
            std::thread::spawn(move || respond(stream, &answer, cut));
        }
    });
    address
}

/// Reads the head of a request; returns its first line.
pub fn first_line(stream: &TcpStream) -> Option<String> {
    let mut reader = BufReader::new(stream.try_clone().ok()?);
    let mut first = String::new();
    reader.read_line(&mut first).ok()?;
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        if line.trim().is_empty() {
            break;
        }
    }
    Some(first)
}

fn respond(mut stream: TcpStream, answer: &Answer, cut: bool) -> Option<()> {
    let first = first_line(&stream)?;
    let path = first.split(' ').nth(1)?;
    let (status, body) = answer(path);
    write!(stream, "HTTP/1.1 {status} X\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", body.len()).ok()?;
    let sent = if cut && body.len() > 1000 { body.len() / 2 } else { body.len() };
    stream.write_all(&body[..sent]).ok()
}

/// Redirects every request to itself, endlessly.
pub fn serve_redirects() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    let target = address.clone();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let mut line = String::new();
            let _ = BufReader::new(stream.try_clone().unwrap()).read_line(&mut line);
            let _ = write!(
                stream,
                "HTTP/1.1 302 X\r\nLocation: {target}/again\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
            );
        }
    });
    address
}

/// Maps a file's name, the start of the requested range and the file's size to the offset where the response stops.
pub type ServedLength = Arc<dyn Fn(&str, usize, usize) -> usize + Send + Sync>;

/// Serves a folder, with range requests; returns its address.
pub fn serve_ranges(folder: std::path::PathBuf, end: ServedLength) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let (folder, end) = (folder.clone(), end.clone());
            std::thread::spawn(move || respond_range(stream, &folder, &end));
        }
    });
    address
}

fn respond_range(mut stream: TcpStream, folder: &std::path::Path, end: &ServedLength) -> Option<()> {
    let mut reader = BufReader::new(stream.try_clone().ok()?);
    let mut first = String::new();
    reader.read_line(&mut first).ok()?;
    let mut from = 0;
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        let lower = line.to_ascii_lowercase();
        if let Some(range) = lower.strip_prefix("range: bytes=") {
            from = range.trim().trim_end_matches('-').parse().ok()?;
        }
        if line.trim().is_empty() {
            break;
        }
    }
    let name = first.split(' ').nth(1)?.trim_start_matches('/').to_owned();
    let Ok(bytes) = std::fs::read(folder.join(&name)) else {
        return write!(stream, "HTTP/1.1 404 X\r\nContent-Length: 0\r\nConnection: close\r\n\r\n").ok();
    };
    let status = if from > 0 { "206 X" } else { "200 X" };
    let length = bytes.len() - from;
    let range = match from {
        0 => String::new(),
        from => format!("Content-Range: bytes {from}-{}/{}\r\n", bytes.len() - 1, bytes.len()),
    };
    write!(stream, "HTTP/1.1 {status}\r\nContent-Length: {length}\r\n{range}Connection: close\r\n\r\n").ok()?;
    stream.write_all(&bytes[from..end(&name, from, bytes.len()).max(from)]).ok()
}

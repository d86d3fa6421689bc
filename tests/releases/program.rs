//! A program that simulates another release: all of Leoflow, with the version, public key, additional migrations and
//! faults of a trailer. A test copies the program and appends the trailer: JSON, the JSON's length as four
//! little-endian bytes, and `MARK`.

use leoflow::BUILT;
use leoflow::build_info::{self, BuildInfo, MigrationFile};
use leoflow::protocol::child::Inheritance;
use serde_json::Value;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::net::UnixListener;
use std::process::ExitCode;
use std::time::Duration;

const MARK: &[u8; 8] = b"LEOTRAIL";

fn main() -> ExitCode {
    let Some(trailer_json) = trailer() else {
        eprintln!("error: this program simulates a release; a test must append a trailer first");
        return ExitCode::from(2);
    };
    let text = |key: &str| trailer_json[key].as_str().map(|text| &*Box::leak(text.to_owned().into_boxed_str()));
    let migrations: Vec<MigrationFile> =
        trailer_json["migrations"].as_array().into_iter().flatten().map(migration).collect();
    build_info::set(BuildInfo {
        version: text("version").unwrap_or(BUILT.version),
        public_key: text("public_key"),
        more_migrations: Box::leak(migrations.into_boxed_slice()),
        ..BUILT
    });
    // The rehearsal of an upgrade passes `--database` to its processes.
    let is_live = !std::env::args().any(|argument| argument == "--database");
    let role = role();
    let live_fault = if is_live { trailer_json["faults"][format!("live-{role}")].as_str() } else { None };
    if let Some(fault) = trailer_json["faults"][role].as_str().or(live_fault) {
        inject_fault(fault);
    }
    leoflow::entry::main()
}

fn trailer() -> Option<Value> {
    let mut file = File::open("/proc/self/exe").ok()?;
    file.seek(SeekFrom::End(-12)).ok()?;
    let mut end = [0; 12];
    file.read_exact(&mut end).ok()?;
    let (length, mark) = end.split_at(4);
    if mark != MARK {
        return None;
    }
    let length = u32::from_le_bytes(length.try_into().ok()?);
    file.seek(SeekFrom::End(-12 - i64::from(length))).ok()?;
    serde_json::from_reader(file.take(length.into())).ok()
}

fn migration(entry: &Value) -> MigrationFile {
    let leak = |key: &str| entry[key].as_str().map(|text| &*Box::leak(text.to_owned().into_boxed_str()));
    (leak("file").unwrap_or_default(), leak("sql").unwrap_or_default(), leak("rollback"))
}

/// Role of this process: `server`, `agent`, `migrate-db`, `lite`.
fn role() -> String {
    let mut arguments = std::env::args();
    let argv0 = arguments.next().unwrap_or_default();
    if let Some((_, role)) = argv0.rsplit_once("leoflow-") {
        return role.to_owned();
    }
    let mut arguments = arguments.peekable();
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--home" => drop(arguments.next()),
            other if other.starts_with('-') => {}
            command => return command.to_owned(),
        }
    }
    String::new()
}

/// Simulates a fault of a bad release. Some faults run in a thread beside the normal work.
fn inject_fault(fault: &str) {
    let in_background = |work: fn()| drop(std::thread::spawn(work));
    match fault {
        "exits" => std::process::exit(7),
        "hangs" => std::thread::sleep(Duration::from_secs(3600)),
        "answers-500" => answer_500(),
        "dies-when-open" => in_background(|| {
            let mut arguments = std::env::args().skip_while(|argument| argument != "--private-socket");
            let private_socket = arguments.nth(1);
            // Exits once the server opens its public listeners and removes the private socket.
            while private_socket.as_ref().is_some_and(|path| std::path::Path::new(path).exists()) {
                std::thread::sleep(Duration::from_millis(5));
            }
            std::thread::sleep(Duration::from_millis(100));
            std::process::exit(7);
        }),
        "floods" => in_background(|| {
            let line = [b'x'; 1023];
            for _ in 0..64 * 1024 {
                if writeln!(std::io::stderr().lock(), "{}", String::from_utf8_lossy(&line)).is_err() {
                    return;
                }
            }
        }),
        unknown => panic!("unknown fault: {unknown}"),
    }
}

/// Answers each request with status 500, in the rehearsal and in live operation.
fn answer_500() -> ! {
    let mut inheritance = Inheritance::take().expect("listeners");
    let notifier = inheritance.notifier();
    let listener = inheritance.listener("private").or_else(|| inheritance.listener("api")).expect("a listener");
    let listener = UnixListener::from(listener);
    listener.set_nonblocking(false).expect("blocking");
    notifier.ready("serving");
    loop {
        notifier.alive();
        let Ok((mut stream, _)) = listener.accept() else { continue };
        stream.set_nonblocking(false).expect("blocking");
        let _ = stream.read(&mut [0; 4096]);
        let _ =
            stream.write_all(b"HTTP/1.1 500 Internal Server Error\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
    }
}

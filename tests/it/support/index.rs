//! A package index on loopback that serves wheels made by the test.

use super::mirror::first_line;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::io::{Cursor, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use zip::write::SimpleFileOptions;

/// Serves until the test process ends.
#[derive(Clone)]
pub struct Index {
    pub address: String,
    files: Arc<Mutex<BTreeMap<String, Vec<u8>>>>,
    /// Upload times by file name, of the files that have one.
    published: Arc<Mutex<BTreeMap<String, String>>>,
    request_count: Arc<AtomicUsize>,
    is_offline: Arc<AtomicBool>,
}

impl Index {
    pub fn new() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let index = Self {
            address: format!("http://{}/simple", listener.local_addr().unwrap()),
            files: Arc::default(),
            published: Arc::default(),
            request_count: Arc::default(),
            is_offline: Arc::default(),
        };
        let serving = index.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let serving = serving.clone();
                std::thread::spawn(move || serving.respond(stream));
            }
        });
        index
    }

    /// Adds a wheel that depends on `requires` and has one module with the package's name.
    pub fn add(&self, name: &str, version: &str, module: &str, requires: &[&str]) {
        self.add_with(name, version, &[(&format!("{name}.py"), module)], requires);
    }

    /// Adds a wheel that depends on `requires` and has these modules: path and text.
    pub fn add_with(&self, name: &str, version: &str, modules: &[(&str, &str)], requires: &[&str]) {
        self.add_wheel(name, version, "py3-none-any", modules, requires);
    }

    /// Adds a version that only machines of the wheel tag, such as `py3-none-win_amd64`, can install.
    pub fn add_for(&self, tag: &str, name: &str, version: &str) {
        self.add_wheel(name, version, tag, &[], &[]);
    }

    /// Adds a wheel that exists as a file.
    pub fn add_file(&self, wheel: &Path) {
        let name = wheel.file_name().unwrap().to_str().unwrap().to_owned();
        self.files.lock().unwrap().insert(name, std::fs::read(wheel).unwrap());
    }

    /// Serves a text at `/files/NAME`; returns its address.
    pub fn add_text(&self, name: &str, text: &str) -> String {
        self.files.lock().unwrap().insert(name.to_owned(), text.as_bytes().to_vec());
        self.address.replace("/simple", &format!("/files/{name}"))
    }

    fn add_wheel(&self, name: &str, version: &str, tag: &str, modules: &[(&str, &str)], requires: &[&str]) {
        let info = format!("{name}-{version}.dist-info");
        let requires: String = requires.iter().map(|requirement| format!("Requires-Dist: {requirement}\n")).collect();
        let metadata = format!("Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n{requires}");
        let wheel = format!("Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: {tag}\n");
        let mut files: Vec<(String, String)> =
            modules.iter().map(|(path, text)| ((*path).to_owned(), (*text).to_owned())).collect();
        files.push((format!("{info}/METADATA"), metadata));
        files.push((format!("{info}/WHEEL"), wheel));
        let hash = |text: &str| URL_SAFE_NO_PAD.encode(Sha256::digest(text));
        let line = |(path, text): &(String, String)| format!("{path},sha256={},{}\n", hash(text), text.len());
        let record: String = files.iter().map(line).collect();
        files.push((format!("{info}/RECORD"), format!("{record}{info}/RECORD,,\n")));
        let mut zip = zip::ZipWriter::new(Cursor::new(Vec::new()));
        for (path, text) in &files {
            zip.start_file(path, SimpleFileOptions::default()).unwrap();
            zip.write_all(text.as_bytes()).unwrap();
        }
        let bytes = zip.finish().unwrap().into_inner();
        self.files.lock().unwrap().insert(format!("{name}-{version}-{tag}.whl"), bytes);
    }

    /// Sets the upload time of a version, in RFC 3339.
    pub fn publish(&self, name: &str, version: &str, upload_time: &str) {
        self.published.lock().unwrap().insert(format!("{name}-{version}-py3-none-any.whl"), upload_time.to_owned());
    }

    /// Answers every request with 503 from now on.
    pub fn go_offline(&self) {
        self.is_offline.store(true, Ordering::SeqCst);
    }

    /// Returns the number of requests so far.
    pub fn request_count(&self) -> usize {
        self.request_count.load(Ordering::SeqCst)
    }

    fn respond(&self, mut stream: TcpStream) -> Option<()> {
        let first = first_line(&stream)?;
        self.request_count.fetch_add(1, Ordering::SeqCst);
        let path = first.split(' ').nth(1)?.trim_end_matches('/').to_owned();
        let (status, kind, body) = self.answer(&path);
        let head = format!("HTTP/1.1 {status} X\r\nContent-Type: {kind}\r\nContent-Length: {}\r\n", body.len());
        stream.write_all(head.as_bytes()).ok()?;
        stream.write_all(b"Connection: close\r\n\r\n").ok()?;
        stream.write_all(&body).ok()
    }

    fn answer(&self, path: &str) -> (u16, &'static str, Vec<u8>) {
        let name = path.rsplit('/').next().unwrap_or_default();
        let files = self.files.lock().unwrap();
        if self.is_offline.load(Ordering::SeqCst) {
            return (503, "text/plain", Vec::new());
        }
        if let Some(bytes) = files.get(name) {
            return (200, "application/octet-stream", bytes.clone());
        }
        let named_files = || files.keys().filter(|file| file.split('-').next() == Some(&name.replace('-', "_")));
        let published = self.published.lock().unwrap();
        if named_files().any(|file| published.contains_key(file)) {
            let listed: Vec<Value> = named_files()
                .map(|file| {
                    json!({"filename": file, "url": format!("/files/{file}"), "hashes": {},
                                   "upload-time": published.get(file)})
                })
                .collect();
            let all = json!({"meta": {"api-version": "1.1"}, "name": name, "files": listed});
            return (200, "application/vnd.pypi.simple.v1+json", all.to_string().into_bytes());
        }
        let links: String = named_files().map(|file| format!("<a href=\"/files/{file}\">{file}</a>\n")).collect();
        if links.is_empty() { (404, "text/html", Vec::new()) } else { (200, "text/html", links.into_bytes()) }
    }
}

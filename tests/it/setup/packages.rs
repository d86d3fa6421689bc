//! The packages of a release: a wheel, a .deb, a container image and Homebrew's formula.

use crate::support::archive::hash;
use crate::support::http::Session;
use crate::support::index::Index;
use crate::support::releases::{
    FIRST, Migration, Release, example_program, make_release, releases, write_contract, write_program,
};
use crate::support::{CommandOutput, TestHome};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A dist with packages, and its folder.
fn dist_with_packages(test: &TestHome, more: &[&str]) -> PathBuf {
    let dist = test.folder().join("dist");
    let arguments = [&["--packages"][..], more].concat();
    CommandOutput::from(make_release(&releases(&[FIRST]), FIRST.version, &dist, &arguments)).expect(0);
    dist
}

#[track_caller]
fn file_ending_in(folder: &Path, end: &str) -> PathBuf {
    let files = fs::read_dir(folder).unwrap().flatten().map(|entry| entry.path());
    files.into_iter().find(|path| path.to_str().unwrap().ends_with(end)).unwrap_or_else(|| panic!("no {end}"))
}

fn make_release_tool(arguments: &[&str]) -> CommandOutput {
    Command::new(example_program("make-release")).args(arguments).output().unwrap().into()
}

/// Runs pip for the virtual environment of the test.
fn pip(test: &TestHome, arguments: &[&str]) -> CommandOutput {
    let venv = test.folder().join("venv");
    if !venv.exists() {
        test.virtual_environment();
    }
    let mut pip = Command::new("python3");
    pip.args(["-m", "pip", "--disable-pip-version-check", "--no-cache-dir", "--python"]).arg(venv.join("bin/python"));
    pip.args(arguments).env("PIP_CONFIG_FILE", "/dev/null").output().unwrap().into()
}

#[test]
fn pip_installs_the_program_from_the_wheel() {
    let (mut test, index) = (TestHome::new(), Index::new());
    let dist = dist_with_packages(&test, &[]);
    let wheel = file_ending_in(&dist, ".whl");
    index.add_file(&wheel);
    pip(&test, &["install", "--index-url", &index.address, "leoflow"]).expect(0);
    test.program = test.folder().join("venv/bin/leoflow");
    test.first_start();
    let status = test.status();
    assert_eq!((&status["version"], &status["state"]), (&FIRST.version.into(), &"healthy".into()));
    let refused = test.run(&["upgrade", "--yes"]).expect(3);
    assert!(refused.stderr.contains("hint: pip install --upgrade leoflow"), "{}", refused.stderr);
    // pip verifies RECORD, finds the licences, and removes what it installed.
    let python = fs::read_dir(test.folder().join("venv/lib")).unwrap().flatten().next().unwrap().path();
    assert!(
        python.join("site-packages").join(format!("leoflow-{}.dist-info/licenses/LICENSE", FIRST.version)).exists()
    );
    pip(&test, &["uninstall", "--yes", "leoflow"]).expect(0);
    assert!(!test.program.exists());
    test.program = test.home.join("bin/leoflow");
    test.run(&["lite", "stop"]).expect(0);
}

#[test]
fn a_platform_without_a_wheel_is_refused_by_pip() {
    let (test, index) = (TestHome::new(), Index::new());
    index.add_for("py3-none-manylinux_2_28_riscv64", "leoflow", "0.1.0");
    index.add_for("py3-none-manylinux_9_99_x86_64", "leoflow", "0.1.0");
    index.add_for("py3-none-manylinux_9_99_aarch64", "leoflow", "0.1.0");
    let refused = pip(&test, &["install", "--index-url", &index.address, "leoflow"]).expect(1);
    assert!(refused.stderr.contains("No matching distribution found for leoflow"), "{}", refused.stderr);
    assert!(!test.folder().join("venv/bin/leoflow").exists());
}

#[test]
fn the_deb_has_the_files_and_fields_of_the_policy() {
    if Command::new("dpkg-deb").arg("--version").output().is_err() {
        println!("skipped: dpkg-deb is missing");
        return;
    }
    let test = TestHome::new();
    let deb = file_ending_in(&dist_with_packages(&test, &[]), ".deb");
    let deb = deb.to_str().unwrap();
    let output = |arguments: &[&str]| {
        CommandOutput::from(Command::new("dpkg-deb").args(arguments).output().unwrap()).expect(0).stdout
    };
    let field = |name: &str| output(&["--field", deb, name]).trim().to_owned();
    assert_eq!((field("Package"), field("Version")), ("leoflow".to_owned(), FIRST.version.to_owned()));
    assert!(field("Depends").starts_with("libc6 (>= 2."), "{}", field("Depends"));
    let listing = output(&["--contents", deb]);
    for (mode, path) in [
        ("-rwxr-xr-x root/root", "./usr/bin/leoflow"),
        ("-rw-r--r-- root/root", "./usr/share/doc/leoflow/copyright"),
        ("-rw-r--r-- root/root", "./usr/share/doc/leoflow/changelog.gz"),
        ("drwxr-xr-x root/root", "./usr/share/"),
    ] {
        assert!(listing.lines().any(|line| line.starts_with(mode) && line.ends_with(path)), "{path}: {listing}");
    }
    let tree = test.folder().join("tree");
    output(&["--raw-extract", deb, tree.to_str().unwrap()]);
    let sums =
        Command::new("md5sum").args(["--check", "--quiet", "DEBIAN/md5sums"]).current_dir(&tree).output().unwrap();
    assert!(sums.status.success(), "{sums:?}");
    let about = Command::new(tree.join("usr/bin/leoflow")).args(["version", "--json"]).output().unwrap();
    assert_eq!(CommandOutput::from(about).expect(0).json()["version"], FIRST.version);
}

#[test]
fn the_formula_has_the_addresses_and_hashes_of_the_manifest() {
    let test = TestHome::new();
    let dist = dist_with_packages(&test, &["--url", "http://127.0.0.1:9/releases"]);
    let formula = dist.join("leoflow.rb");
    let text = fs::read_to_string(&formula).unwrap();
    let manifest: Value = serde_json::from_slice(&fs::read(dist.join("manifest.json")).unwrap()).unwrap();
    let asset = &manifest["releases"][0]["assets"][0];
    let address = format!("url \"http://127.0.0.1:9/releases/{}\"", asset["url"].as_str().unwrap());
    let sha256 = asset["digest"].as_str().unwrap().strip_prefix("sha256:").unwrap();
    assert!(text.contains(&address) && text.contains(&format!("sha256 \"{sha256}\"")), "{text}");
    if let Ok(checked) = Command::new("ruby").arg("-c").arg(&formula).output() {
        assert!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stderr));
    }
    // The same text from the manifest alone; a platform that brew does not know is an error.
    let dist = dist.to_str().unwrap();
    let again = make_release_tool(&["formula", dist, "--url", "http://127.0.0.1:9/releases/"]).expect(0);
    assert_eq!(again.stdout, text);
    let other = fs::read_to_string(format!("{dist}/manifest.json")).unwrap();
    let target = asset["target"].as_str().unwrap();
    fs::write(format!("{dist}/manifest.json"), other.replace(target, "riscv64gc-unknown-linux-gnu")).unwrap();
    let refused = make_release_tool(&["formula", dist, "--url", "http://127.0.0.1:9"]).expect(1);
    assert!(refused.stderr.contains("no block for the platform riscv64gc-unknown-linux-gnu"), "{}", refused.stderr);
    assert_eq!(refused.stdout, "");
}

#[test]
fn the_formula_has_a_block_for_each_system() {
    let test = TestHome::new();
    let dist = dist_with_packages(&test, &["--url", "http://127.0.0.1:9/releases"]);
    let manifest = dist.join("manifest.json");
    let mut text: Value = serde_json::from_slice(&fs::read(&manifest).unwrap()).unwrap();
    let assets = text["releases"][0]["assets"].as_array_mut().unwrap();
    let mut of_mac = assets[0].clone();
    of_mac["target"] = "aarch64-apple-darwin".into();
    of_mac["url"] = "mac.tar.gz".into();
    assets.push(of_mac);
    fs::write(&manifest, text.to_string()).unwrap();
    let formula = make_release_tool(&["formula", dist.to_str().unwrap(), "--url", "http://127.0.0.1:9"]).expect(0);
    let of_macs = formula.stdout.split("  on_macos do\n").nth(1).expect("a block for macOS");
    let first = "    on_arm do\n      url \"http://127.0.0.1:9/mac.tar.gz\"\n";
    assert!(of_macs.starts_with(first) && of_macs.contains("depends_on arch: :arm64"), "{of_macs}");
    assert!(formula.stdout.contains("  on_linux do\n") && !formula.stdout.contains("depends_on :linux"));
}

#[test]
fn a_program_that_needs_a_newer_glibc_is_no_release() {
    let shell = fs::canonicalize("/bin/sh").unwrap();
    let shell = shell.to_str().unwrap();
    make_release_tool(&["check-glibc", "9.99", shell]).expect(0);
    let refused = make_release_tool(&["check-glibc", "2.1", shell]).expect(1);
    assert!(
        refused.stderr.contains("needs glibc 2.") && refused.stderr.contains("newer than 2.1"),
        "{}",
        refused.stderr
    );
    // A folder is searched: PostgreSQL's programs come with a release.
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join("bin")).unwrap();
    fs::write(folder.path().join("bin/script"), "#!/bin/sh\n").unwrap();
    fs::copy(shell, folder.path().join("bin/program")).unwrap();
    let refused = make_release_tool(&["check-glibc", "2.1", folder.path().to_str().unwrap()]).expect(1);
    assert!(refused.stderr.contains("bin/program needs glibc"), "{}", refused.stderr);
}

#[test]
fn release_notes_of_a_major_say_what_is_left_to_do() {
    let (test, all) = (TestHome::new(), releases(&[FIRST]));
    let contract = |name: &str, change: &dyn Fn(&mut Value)| {
        let path = test.folder().join(name);
        write_contract(&path, change);
        path.to_str().unwrap().to_owned()
    };
    let make = |version: &str, contract: &str, more: &[&str]| {
        let dist = test.folder().join(version);
        CommandOutput::from(make_release(&all, version, &dist, &[&["--contract", contract][..], more].concat()))
            .expect(0);
        (fs::read_to_string(dist.join(format!("release-notes-{version}.md"))).unwrap(), dist)
    };
    let announcing = contract("announcing", &|settings| {
        settings["port"]["deprecated"] = json!({"removed_in": "1.0.0", "replacement": "address"});
    });
    let (first, dist) = make(FIRST.version, &announcing, &[]);
    assert!(first.contains("Something new in 0.1.0") && !first.contains("## Upgrade"), "{first}");
    write_program(&all.program("1.0.0"), &Release { version: "1.0.0", migration: Migration::Phases, fault: None });
    let without = contract("without", &|settings| {
        settings.as_object_mut().unwrap().remove("port").unwrap();
        settings["host"]["deprecated"] = json!({"removed_in": "2.0.0"});
    });
    let (notes, _) = make("1.0.0", &without, &["--from", dist.to_str().unwrap()]);
    let after = |heading: &str| notes.split(heading).nth(1).unwrap_or_else(|| panic!("{heading}: {notes}"));
    let by_itself = after("## Migration guide: upgrade from 0.1.0").split("### What is left").next().unwrap();
    assert!(by_itself.contains("creates a backup") && by_itself.contains("(contract): NOT ADDITIVE"), "{notes}");
    let by_hand = after("### What is left to do by hand").split("### Deprecated").next().unwrap();
    assert!(by_hand.contains("- The setting port was removed in 1.0.0: use address."), "{notes}");
    assert!(!by_hand.contains("host") && after("### Deprecated").contains("setting host is deprecated"), "{notes}");
}

/// Reads an OCI archive as its specification says, and unpacks its layers into `tree`; returns the image's configuration.
fn read_image(archive: &Path, tree: &Path) -> Value {
    let mut files: BTreeMap<String, Vec<u8>> = BTreeMap::new();
    for entry in tar::Archive::new(fs::File::open(archive).unwrap()).entries().unwrap() {
        let mut entry = entry.unwrap();
        let path = entry.path().unwrap().to_str().unwrap().to_owned();
        let mut bytes = Vec::new();
        entry.read_to_end(&mut bytes).unwrap();
        assert!(files.insert(path, bytes).is_none());
    }
    let blob = |descriptor: &Value| {
        let digest = descriptor["digest"].as_str().unwrap().strip_prefix("sha256:").unwrap();
        let bytes = &files[&format!("blobs/sha256/{digest}")];
        assert_eq!((hash(bytes).as_str(), descriptor["size"].as_u64().unwrap()), (digest, bytes.len() as u64));
        bytes
    };
    assert_eq!(serde_json::from_slice::<Value>(&files["oci-layout"]).unwrap()["imageLayoutVersion"], "1.0.0");
    let index: Value = serde_json::from_slice(&files["index.json"]).unwrap();
    let manifest: Value = serde_json::from_slice(blob(&index["manifests"][0])).unwrap();
    let config: Value = serde_json::from_slice(blob(&manifest["config"])).unwrap();
    let layers = manifest["layers"].as_array().unwrap();
    let docker: Value = serde_json::from_slice(&files["manifest.json"]).unwrap();
    for (layer, (diff_id, old_path)) in layers
        .iter()
        .zip(config["rootfs"]["diff_ids"].as_array().unwrap().iter().zip(docker[0]["Layers"].as_array().unwrap()))
    {
        let mut layer_tar = Vec::new();
        flate2::read::GzDecoder::new(&blob(layer)[..]).read_to_end(&mut layer_tar).unwrap();
        assert_eq!(format!("sha256:{}", hash(&layer_tar)), *diff_id);
        assert!(files.contains_key(old_path.as_str().unwrap()), "for older versions of docker");
        let mut unpacked = tar::Archive::new(&layer_tar[..]);
        unpacked.set_preserve_permissions(true);
        unpacked.unpack(tree).unwrap();
    }
    config
}

#[test]
fn the_container_image_has_the_release_and_what_it_needs() {
    let test = TestHome::new();
    let base = test.folder().join("base.tar");
    let mut packages = tar::Builder::new(fs::File::create(&base).unwrap());
    for (path, text) in [
        ("./usr/share/ca-certificates/mozilla/One.crt", "first certificate"),
        ("./usr/share/ca-certificates/mozilla/Two.crt", "second certificate"),
        ("./usr/share/doc/bash/copyright", "its licence"),
        ("./usr/share/doc/bash/README", "a text"),
        ("./usr/share/man/man1/bash.1.gz", "a manual"),
        ("./usr/bin/bash", "a shell"),
    ] {
        let mut header = tar::Header::new_gnu();
        header.set_mode(0o755);
        header.set_uid(7);
        header.set_size(text.len() as u64);
        packages.append_data(&mut header, path, text.as_bytes()).unwrap();
    }
    packages.into_inner().unwrap();
    let uv = test.save("uv", "a program");
    let image_options = ["--image-base", base.to_str().unwrap(), "--image-uv", uv.to_str().unwrap()];
    let dist = dist_with_packages(&test, &image_options);
    let image = file_ending_in(&dist, ".oci.tar");
    let tree = test.folder().join("tree");
    let config = read_image(&image, &tree);
    let settings = &config["config"];
    assert_eq!((&settings["User"], &settings["StopSignal"]), (&json!("1000:1000"), &json!("SIGTERM")));
    assert_eq!(settings["Cmd"], json!(["lite", "--workspace", "/workspace"]));
    let text = |path: &str| fs::read_to_string(tree.join(path)).unwrap();
    assert_eq!(text("etc/ssl/certs/ca-certificates.crt"), "first certificate\nsecond certificate\n");
    assert!(text("etc/passwd").contains("leoflow:x:1000:1000::/home/leoflow:"));
    assert_eq!(text("usr/bin/uv"), "a program");
    assert_eq!((text("usr/bin/bash"), text("usr/share/doc/bash/copyright")), ("a shell".into(), "its licence".into()));
    assert!(!tree.join("usr/share/doc/bash/README").exists() && !tree.join("usr/share/man").exists());
    assert!(tree.join("home/leoflow").is_dir() && tree.join("workspace").is_dir());
    let about = Command::new(tree.join("usr/bin/leoflow")).args(["version", "--json"]).output().unwrap();
    assert_eq!(CommandOutput::from(about).expect(0).json()["version"], FIRST.version);
    // PostgreSQL is beside the program, where a first start finds it.
    let beside: Vec<String> = fs::read_dir(tree.join("usr/lib/leoflow"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    assert!(beside.iter().any(|name| name.starts_with("postgres-")), "{beside:?}");
    let sums = fs::read_to_string(dist.join("SHA256SUMS")).unwrap();
    assert!(sums.contains(&hash(&fs::read(&image).unwrap())));
    // The same files give the same image.
    let again = test.folder().join("again");
    let arguments = [&["--packages"][..], &image_options].concat();
    CommandOutput::from(make_release(&releases(&[FIRST]), FIRST.version, &again, &arguments)).expect(0);
    assert!(fs::read(file_ending_in(&again, ".oci.tar")).unwrap() == fs::read(&image).unwrap());
}

#[test]
fn a_first_password_may_come_from_a_file() {
    let test = TestHome::new();
    let file = test.folder().join("password");
    let set_up = || {
        let mut command = test.command(&["setup", "--json", "--port", &test.port.to_string()]);
        CommandOutput::from(command.env("LEOFLOW_ADMIN_PASSWORD_FILE", &file).output().unwrap())
    };
    assert!(set_up().expect(1).stderr.contains("cannot read the admin password"));
    fs::write(&file, "short\n").unwrap();
    assert!(set_up().expect(1).stderr.contains("at least 8 characters"));
    fs::write(&file, "correct horse\nignored\n").unwrap();
    assert_eq!(set_up().expect(0).json()["admin_password"], Value::Null);
    let started = test.first_start();
    assert_eq!(started["admin_password"], Value::Null, "it is known");
    // Fails with another status than 201.
    Session::login(test.port, "correct horse");
}

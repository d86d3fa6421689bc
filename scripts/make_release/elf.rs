//! What a program needs of the machine that it runs on, by its ELF headers: its processor, its glibc, its libraries.

use super::Outcome;
use leoflow::web_ui::files_below;
use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::process::Command;

#[derive(Debug, PartialEq, Eq)]
pub struct Needs {
    pub machine: Machine,
    /// The newest version of glibc that a symbol asks for.
    pub glibc: (u32, u32),
    pub libraries: Vec<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Machine {
    X86_64,
    Aarch64,
}

impl Machine {
    /// The name in wheels' tags and Rust's targets.
    pub fn name(self) -> &'static str {
        match self {
            Self::X86_64 => "x86_64",
            Self::Aarch64 => "aarch64",
        }
    }

    pub fn debian_name(self) -> &'static str {
        match self {
            Self::X86_64 => "amd64",
            Self::Aarch64 => "arm64",
        }
    }

    /// The machine of a target triple for which packages are made.
    pub fn of_target(target: &str) -> Option<Self> {
        [Self::X86_64, Self::Aarch64]
            .into_iter()
            .find(|machine| target == format!("{}-unknown-linux-gnu", machine.name()))
    }
}

/// Libraries of glibc itself and of GCC, which every Linux with glibc has: <https://peps.python.org/pep-0600/>.
const SYSTEM_LIBRARIES: [&str; 7] =
    ["libc.so.6", "libm.so.6", "libdl.so.2", "libpthread.so.0", "librt.so.1", "libutil.so.1", "libgcc_s.so.1"];

pub fn needs(program: &Path) -> Outcome<Needs> {
    parse(&readelf(program)?).map_err(|reason| format!("{}: {reason}", program.display()))
}

fn readelf(program: &Path) -> Outcome<String> {
    let arguments = ["--wide", "--file-header", "--dynamic", "--version-info"];
    let output = Command::new("readelf").args(arguments).arg(program).env("LC_ALL", "C").output();
    let output = output.map_err(|error| format!("cannot run readelf, of binutils: {error}"))?;
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Refuses a program that needs a newer glibc than `limit`, or a folder with one.
pub fn check_glibc(path: &Path, limit: &str) -> Outcome<()> {
    let limit = version(limit).ok_or_else(|| format!("{limit} is not a version of glibc, such as 2.28"))?;
    let files =
        if path.is_dir() { files_below(path).map_err(|error| error.to_string())? } else { vec![path.to_owned()] };
    for file in files.into_iter().filter(|file| is_elf(file)) {
        if let Some((major, minor)) = newest_glibc(&readelf(&file)?).filter(|glibc| *glibc > limit) {
            let limit = format!("{}.{}", limit.0, limit.1);
            return Err(format!("{} needs glibc {major}.{minor}, newer than {limit}", file.display()));
        }
    }
    Ok(())
}

fn is_elf(path: &Path) -> bool {
    let mut start = [0; 4];
    File::open(path).and_then(|mut file| file.read_exact(&mut start)).is_ok() && start == *b"\x7fELF"
}

/// The newest version that a symbol asks for. Symbols that a library of glibc's provides have the same form, and no package
/// contains one.
fn newest_glibc(text: &str) -> Option<(u32, u32)> {
    text.split("GLIBC_").skip(1).filter_map(version).max()
}

/// Reads the output of readelf.
fn parse(text: &str) -> Outcome<Needs> {
    let machine = text.lines().find_map(|line| line.trim().strip_prefix("Machine:")).unwrap_or_default().trim();
    let machine = match machine {
        "Advanced Micro Devices X86-64" => Machine::X86_64,
        "AArch64" => Machine::Aarch64,
        "" => return Err("it is not an ELF program".to_owned()),
        other => return Err(format!("there are no packages for its processor, {other}")),
    };
    let glibc = newest_glibc(text).ok_or("it does not use glibc")?;
    let library = |line: &str| Some(line.split_once("(NEEDED)")?.1.split_once('[')?.1.split_once(']')?.0.to_owned());
    let libraries: Vec<String> = text.lines().filter_map(library).collect();
    let is_loader = |name: &str| name.starts_with("ld-linux");
    if let Some(other) = libraries.iter().find(|name| !SYSTEM_LIBRARIES.contains(&name.as_str()) && !is_loader(name)) {
        return Err(format!("it needs {other}, which not every machine has"));
    }
    Ok(Needs { machine, glibc, libraries })
}

/// `2.28` at the start of a text.
fn version(text: &str) -> Option<(u32, u32)> {
    let end = text.find(|letter: char| !letter.is_ascii_digit() && letter != '.').unwrap_or(text.len());
    let mut numbers = text[..end].split('.').map(|number| number.parse().ok());
    Some((numbers.next()??, numbers.next()??))
}

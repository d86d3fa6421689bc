//! A wheel that installs the program, as those of uv and ruff do: <https://packaging.python.org/en/latest/specifications/binary-distribution-format/>.
//! It has no module, because `import leoflow` in a DAG file is the small package inside the program.

use super::Outcome;
use super::elf::Needs;
use super::packages::{self, Contents};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use semver::Version;
use sha2::{Digest, Sha256};
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;
use zip::CompressionMethod;
use zip::write::SimpleFileOptions;

/// Writes the wheel for a platform tag and an operating system, as a classifier names it.
pub fn write(contents: &Contents<'_>, platform: &str, system: &str, output: &Path) -> Outcome<()> {
    let version = python_version(contents.version);
    let tag = format!("py3-none-{platform}");
    let info = format!("leoflow-{version}.dist-info");
    let wheel = format!("Wheel-Version: 1.0\nGenerator: leoflow make-release\nRoot-Is-Purelib: false\nTag: {tag}\n");
    let mut files = vec![(format!("leoflow-{version}.data/scripts/leoflow"), contents.program()?, 0o755)];
    for (name, text) in contents.licenses()? {
        files.push((format!("{info}/licenses/{name}"), text, 0o644));
    }
    files.push((format!("{info}/METADATA"), metadata(contents, &version, system)?.into_bytes(), 0o644));
    files.push((format!("{info}/WHEEL"), wheel.into_bytes(), 0o644));
    let line = |(path, bytes, _): &(String, Vec<u8>, u32)| {
        format!("{path},sha256={},{}\n", URL_SAFE_NO_PAD.encode(Sha256::digest(bytes)), bytes.len())
    };
    let record: String = files.iter().map(line).collect();
    files.push((format!("{info}/RECORD"), format!("{record}{info}/RECORD,,\n").into_bytes(), 0o644));
    let path = output.join(format!("leoflow-{version}-{tag}.whl"));
    zip_files(&path, &files, contents.quick).map_err(|error| format!("{}: {error}", path.display()))
}

fn zip_files(path: &Path, files: &[(String, Vec<u8>, u32)], quick: bool) -> zip::result::ZipResult<()> {
    let mut zip = zip::ZipWriter::new(BufWriter::new(File::create(path)?));
    let method = if quick { CompressionMethod::Stored } else { CompressionMethod::Deflated };
    // Without a time: two builds have the same bytes.
    let options = SimpleFileOptions::default().compression_method(method).last_modified_time(zip::DateTime::default());
    let options = if quick { options } else { options.compression_level(Some(9)) };
    for (name, bytes, mode) in files {
        zip.start_file(name, options.unix_permissions(*mode))?;
        zip.write_all(bytes)?;
    }
    zip.finish()?.flush()?;
    Ok(())
}

/// `manylinux_2_28_x86_64`, by PEP 600: pip on any other platform finds no wheel.
pub fn manylinux(needs: &Needs) -> String {
    let (major, minor) = needs.glibc;
    format!("manylinux_{major}_{minor}_{}", needs.machine.name())
}

/// `0.2.0-rc.1` is `0.2.0rc1` by PEP 440.
fn python_version(version: &Version) -> String {
    let pre = version.pre.replace(['.', '-'], "");
    format!("{}.{}.{}{pre}", version.major, version.minor, version.patch)
}

fn metadata(contents: &Contents<'_>, version: &str, system: &str) -> Outcome<String> {
    let licenses: String = contents.licenses()?.iter().map(|(name, _)| format!("License-File: {name}\n")).collect();
    let summary = packages::SUMMARY;
    Ok(format!(
        "Metadata-Version: 2.4\nName: leoflow\nVersion: {version}\nSummary: {summary}\nLicense-Expression: Apache-2.0\n\
         {licenses}Keywords: airflow,dag,scheduler,workflow\nClassifier: Environment :: Console\n\
         Classifier: Operating System :: {system}\nRequires-Python: >=3.8\n\
         Description-Content-Type: text/markdown\n\n{}\n",
        packages::DESCRIPTION
    ))
}

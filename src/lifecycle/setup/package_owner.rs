//! Detects the package manager that installed the running program, and that therefore has to upgrade it. Each is detected
//! by its own record of the file, not by the place of the file alone.

use leoflow_base::sys::env_vars;
use leoflow_base::sys::fs::files;
use std::fs;
use std::path::{Component, Path, PathBuf};

/// A package manager with the record that it keeps of the program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PackageOwner {
    Pip,
    /// `uv pip install`, in an environment.
    UvPip,
    /// `uv tool install`.
    UvTool,
    /// `uvx`, in an environment of uv's cache.
    Uvx,
    Pipx,
    Homebrew,
    Dpkg,
}

/// Where dpkg lists the files of packages.
const DPKG_LISTS: &str = "/var/lib/dpkg/info";

/// The largest record that is read, in bytes: Leoflow's packages have a few files.
const RECORD_LIMIT: u64 = 256 * 1024;

impl PackageOwner {
    pub fn name(self) -> &'static str {
        match self {
            Self::Pip => "pip",
            Self::UvPip | Self::UvTool | Self::Uvx => "uv",
            Self::Pipx => "pipx",
            Self::Homebrew => "Homebrew",
            Self::Dpkg => "dpkg",
        }
    }

    /// The command that brings the newest program.
    pub fn upgrade_command(self) -> &'static str {
        match self {
            Self::Pip => "pip install --upgrade leoflow",
            Self::UvPip => "uv pip install --upgrade leoflow",
            Self::UvTool => "uv tool upgrade leoflow",
            Self::Uvx => "uvx leoflow@latest lite start",
            Self::Pipx => "pipx upgrade leoflow",
            Self::Homebrew => "brew upgrade leoflow",
            Self::Dpkg => "sudo apt install --only-upgrade leoflow, or sudo dpkg -i leoflow_VERSION_ARCHITECTURE.deb",
        }
    }
}

/// The owner of the running program; `None` for a program that install.sh, `leoflow setup` or cargo placed.
pub fn package_owner() -> Option<PackageOwner> {
    owner_of(&env_vars::started_from().ok()?, Path::new(DPKG_LISTS))
}

/// `program` is a path without links.
fn owner_of(program: &Path, dpkg_lists: &Path) -> Option<PackageOwner> {
    if is_in_list(&dpkg_lists.join("leoflow.list"), program) {
        return Some(PackageOwner::Dpkg);
    }
    if program.ancestors().any(|folder| is_keg(folder) && folder.join("INSTALL_RECEIPT.json").is_file()) {
        return Some(PackageOwner::Homebrew);
    }
    let prefix = program.parent().filter(|folder| folder.ends_with("bin"))?.parent()?;
    let info = site_packages(prefix).into_iter().find_map(|site| recording(&site, program))?;
    Some(python_installer(prefix, &info))
}

/// True for `…/Cellar/leoflow/VERSION`, where Homebrew installs.
fn is_keg(folder: &Path) -> bool {
    let names: Vec<&str> = folder.iter().rev().take(3).filter_map(|name| name.to_str()).collect();
    matches!(names.as_slice(), [_, "leoflow", "Cellar"])
}

/// Python's package folders of an environment, a system or a user's `~/.local`, and the target of `pip install --target`.
fn site_packages(prefix: &Path) -> Vec<PathBuf> {
    let mut folders = vec![prefix.to_owned()];
    for lib in ["lib", "lib64"] {
        let pythons = fs::read_dir(prefix.join(lib)).into_iter().flatten().flatten();
        let pythons = pythons.filter(|entry| entry.file_name().to_string_lossy().starts_with("python3"));
        folders
            .extend(pythons.flat_map(|entry| ["site-packages", "dist-packages"].map(|name| entry.path().join(name))));
    }
    folders
}

/// The `.dist-info` folder whose RECORD lists the program: <https://packaging.python.org/en/latest/specifications/recording-installed-packages/>.
fn recording(site: &Path, program: &Path) -> Option<PathBuf> {
    let entries = fs::read_dir(site).ok()?.flatten();
    let is_ours = |name: &str| name.starts_with("leoflow-") && name.ends_with(".dist-info");
    let infos = entries.filter(|entry| is_ours(&entry.file_name().to_string_lossy())).map(|entry| entry.path());
    let site = site.canonicalize().ok()?;
    let lists_it = |info: &PathBuf| {
        let record = files::read_text(&info.join("RECORD"), RECORD_LIMIT).ok().flatten().unwrap_or_default();
        // `path,hash,size`: pip quotes only a path with a comma or a quotation mark, and ours has none below the folder.
        record.lines().filter_map(|line| line.split(',').next()).any(|path| lexical(&site.join(path)) == program)
    };
    infos.into_iter().find(lists_it)
}

/// The path without `..`; `site` has no links, so nothing else can be meant.
fn lexical(path: &Path) -> PathBuf {
    let mut plain = PathBuf::new();
    for part in path.components() {
        match part {
            Component::ParentDir => drop(plain.pop()),
            other => plain.push(other),
        }
    }
    plain
}

fn python_installer(prefix: &Path, info: &Path) -> PackageOwner {
    if prefix.join("uv-receipt.toml").is_file() {
        return PackageOwner::UvTool;
    }
    if prefix.join("pipx_metadata.json").is_file() {
        return PackageOwner::Pipx;
    }
    let installer = files::read_text(&info.join("INSTALLER"), RECORD_LIMIT).ok().flatten().unwrap_or_default();
    match installer.trim() {
        // Environments of the cache are `archive-v0/ID`.
        "uv" if prefix.parent().is_some_and(|folder| folder.ends_with("archive-v0")) => PackageOwner::Uvx,
        "uv" => PackageOwner::UvPip,
        _ => PackageOwner::Pip,
    }
}

fn is_in_list(list: &Path, program: &Path) -> bool {
    let text = files::read_text(list, RECORD_LIMIT).ok().flatten().unwrap_or_default();
    text.lines().any(|line| Path::new(line) == program)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A prefix with `bin/leoflow`, and its path without links.
    fn prefix(name: &str) -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let prefix = folder.path().canonicalize().unwrap().join(name);
        fs::create_dir_all(prefix.join("bin")).unwrap();
        fs::write(prefix.join("bin/leoflow"), "").unwrap();
        (folder, prefix)
    }

    fn owner(prefix: &Path) -> Option<PackageOwner> {
        owner_of(&prefix.join("bin/leoflow"), &prefix.join("dpkg"))
    }

    fn install_wheel(prefix: &Path, site: &str, record: &str, installer: &str) {
        let info = prefix.join(site).join("leoflow-0.1.0.dist-info");
        fs::create_dir_all(&info).unwrap();
        fs::write(info.join("RECORD"), format!("{record},sha256=x,1\nleoflow-0.1.0.dist-info/RECORD,,\n")).unwrap();
        fs::write(info.join("INSTALLER"), installer).unwrap();
    }

    #[test]
    fn a_program_that_no_package_lists_has_no_owner() {
        let (_folder, prefix) = prefix("venv");
        assert_eq!(owner(&prefix), None);
        // A package of the same environment that has another program.
        install_wheel(&prefix, "lib/python3.12/site-packages", "../../../bin/other", "pip\n");
        assert_eq!(owner(&prefix), None);
        // A folder that is only named as Homebrew's.
        let (_folder, keg) = self::prefix("Cellar/leoflow/0.1.0");
        assert_eq!(owner(&keg), None);
    }

    #[test]
    fn pip_and_uv_are_told_by_the_record_and_the_installer() {
        let site = "lib/python3.12/site-packages";
        for (installer, expected) in [("pip\n", PackageOwner::Pip), ("uv", PackageOwner::UvPip)] {
            let (_folder, prefix) = prefix("venv");
            install_wheel(&prefix, site, "../../../bin/leoflow", installer);
            assert_eq!(owner(&prefix), Some(expected));
        }
        let (_folder, target) = prefix("target");
        install_wheel(&target, "", "bin/leoflow", "pip\n");
        assert_eq!(owner(&target), Some(PackageOwner::Pip), "pip install --target");
        let (_folder, debian) = prefix("usr/local");
        install_wheel(&debian, "lib/python3.11/dist-packages", "../../../bin/leoflow", "pip\n");
        assert_eq!(owner(&debian), Some(PackageOwner::Pip));
        let (_folder, cached) = prefix("archive-v0/abc");
        install_wheel(&cached, site, "../../../bin/leoflow", "uv");
        assert_eq!(owner(&cached), Some(PackageOwner::Uvx));
        for (mark, expected) in [("uv-receipt.toml", PackageOwner::UvTool), ("pipx_metadata.json", PackageOwner::Pipx)]
        {
            let (_folder, tool) = prefix("tools/leoflow");
            install_wheel(&tool, site, "../../../bin/leoflow", "uv");
            fs::write(tool.join(mark), "").unwrap();
            assert_eq!(owner(&tool), Some(expected));
        }
    }

    #[test]
    fn homebrew_and_dpkg_are_told_by_their_records() {
        let (_folder, keg) = prefix("Cellar/leoflow/0.1.0");
        fs::write(keg.join("INSTALL_RECEIPT.json"), "{}").unwrap();
        assert_eq!(owner(&keg), Some(PackageOwner::Homebrew));
        let (_folder, usr) = prefix("usr");
        fs::create_dir(usr.join("dpkg")).unwrap();
        let program = usr.join("bin/leoflow");
        fs::write(usr.join("dpkg/leoflow.list"), format!("/.\n{}\n", program.display())).unwrap();
        assert_eq!(owner(&usr), Some(PackageOwner::Dpkg));
        assert_eq!(owner_of(&usr.join("local/bin/leoflow"), &usr.join("dpkg")), None, "a copy elsewhere");
    }
}

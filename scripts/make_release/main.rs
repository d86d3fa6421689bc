//! Makes a release from a built program and a PostgreSQL. `scripts/release` builds the program and runs this tool.
//! Releases are reproducible: the same input gives the same bytes, except for signatures.

mod deb;
mod elf;
mod formula;
mod image;
mod licenses;
mod macho;
mod merge;
mod operator_contract;
mod pack;
mod packages;
mod release_notes;
mod sign;
mod version_rules;
mod wheel;

use clap::Parser;
use jiff::{SignedDuration, Timestamp};
use leoflow::airflow_minors::preferred_ui;
use leoflow::config::Channel;
use leoflow::contract::Contract;
use leoflow::python;
use leoflow::upgrade::plan::POSTGRES;
use leoflow::upgrade::release::manifest::{Asset, Component, MANIFEST, Manifest, Release, SIGNATURE_SUFFIX};
use leoflow::upgrade::release::program::{self, About};
use leoflow::upgrade::release::version_order;
use leoflow::web_ui;
use semver::Version;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

type Outcome<T> = Result<T, String>;

#[derive(Parser)]
#[command(about = "Make a release: dist/ with everything that a release host serves")]
enum Cli {
    /// Generate a signing key without a password: KEY and KEY.pub
    Keygen { key: PathBuf },
    /// Print the public key, in the form that a build needs
    PublicKey { key: PathBuf },
    /// Sign a file; write the signature beside it
    Sign { key: PathBuf, file: PathBuf },
    /// Download the wheels of jinja2 and pendulum, which DAG files expect, into a new folder
    PythonPackages { folder: PathBuf },
    /// Download the wheel with Airflow's web UI into a new folder, and print its path
    AirflowUi { folder: PathBuf },
    /// Write the licences of all crates that are linked into a program for TARGET
    Licenses { target: String, output: PathBuf },
    /// Fail if a program, or one in a folder, needs a newer glibc than LIMIT
    CheckGlibc { limit: String, path: PathBuf },
    /// Print Homebrew's formula of the newest stable release in a dist
    Formula {
        dist: PathBuf,
        /// URL of the release host
        #[arg(long)]
        url: String,
    },
    /// Make the release
    Make(Box<Make>),
    /// Join the dists of several platforms, or renew the signature of one before it expires
    Merge(merge::Merge),
}

/// Arguments shared by all commands that sign a manifest.
#[derive(clap::Args)]
struct Publishing {
    /// The secret key to sign with
    #[arg(long)]
    sign: PathBuf,
    /// The secret key of later releases: it signs too, so that installed programs start to trust it
    #[arg(long)]
    next_key: Option<PathBuf>,
    /// URL of the release host; without it install.sh looks in its own folder
    #[arg(long, default_value = "")]
    url: String,
    #[arg(long, default_value = "install/install.sh")]
    installer: PathBuf,
    /// Issue date in the manifest, RFC 3339
    #[arg(long)]
    date: Timestamp,
    /// Validity of the manifest in days; afterwards upgrades warn that it has expired
    #[arg(long, default_value_t = 400)]
    valid_days: u32,
    #[arg(long, default_value = "dist")]
    output: PathBuf,
}

#[derive(clap::Args)]
struct Make {
    version: Version,
    #[arg(long, default_value = "stable", value_parser = ["stable", "rc"])]
    channel: String,
    #[command(flatten)]
    publishing: Publishing,
    /// The dist/ of the previous release
    #[arg(long)]
    from: Option<PathBuf>,
    /// The program, built for this release
    #[arg(long)]
    program: PathBuf,
    /// The same program for this machine, which describes a program that this machine cannot run
    #[arg(long)]
    host_program: Option<PathBuf>,
    /// A folder or an archive with PostgreSQL
    #[arg(long)]
    postgres: PathBuf,
    /// The version of a PostgreSQL that this machine cannot run
    #[arg(long)]
    postgres_version: Option<String>,
    /// A folder with the wheels of jinja2 and pendulum; without it setup downloads them from the package index
    #[arg(long)]
    python_packages: Option<PathBuf>,
    /// The wheel with Airflow's web UI; without it setup downloads it from the package index
    #[arg(long)]
    airflow_ui: Option<PathBuf>,
    #[arg(long, default_value = "CHANGELOG.md")]
    changelog: PathBuf,
    /// The operator's contract of this release
    #[arg(long, default_value = "docs/reference/contract.json")]
    contract: PathBuf,
    #[arg(long, default_value = "LICENSE")]
    license: PathBuf,
    /// The third-party licences, as `licenses` writes them
    #[arg(long)]
    third_party: Option<PathBuf>,
    /// The oldest version that can be upgraded to this one [default: as in the previous release, or this one]
    #[arg(long)]
    upgrades_from: Option<Version>,
    /// A version that upgrades to this and later versions must pass through
    #[arg(long)]
    required_stop: Vec<Version>,
    /// Older releases cannot plan the upgrade to this and later releases; they download and start its own program
    #[arg(long)]
    hands_over: bool,
    /// Also make a wheel and a .deb
    #[arg(long)]
    packages: bool,
    /// Also make a container image, on this tar of Debian packages
    #[arg(long)]
    image_base: Option<PathBuf>,
    /// The program uv for the image; without it, the pinned one is downloaded
    #[arg(long)]
    image_uv: Option<PathBuf>,
    /// Compress little or not at all, for tests
    #[arg(long)]
    quick: bool,
}

fn main() -> ExitCode {
    let done = match Cli::parse() {
        Cli::Keygen { key } => leoflow_keygen::generate(&key),
        Cli::PublicKey { key } => sign::public_key(&key).map(|text| println!("{text}")),
        Cli::Sign { key, file } => sign::Key::load(&key).and_then(|key| key.sign(&file)),
        Cli::PythonPackages { folder } => python::download_packages(&folder).map_err(|error| error.to_string()),
        Cli::AirflowUi { folder } => web_ui::download(&folder, preferred_ui())
            .map(|wheel| println!("{}", wheel.display()))
            .map_err(|error| error.to_string()),
        Cli::Licenses { target, output } => licenses::write(&target, &output),
        Cli::CheckGlibc { limit, path } => elf::check_glibc(&path, &limit),
        Cli::Formula { dist, url } => print_formula(&dist, &url),
        Cli::Make(make) => make.run(),
        Cli::Merge(merge) => merge.run(),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(reason) => {
            eprintln!("error: {reason}");
            ExitCode::FAILURE
        }
    }
}

impl Make {
    fn run(&self) -> Outcome<()> {
        let key = self.publishing.key()?;
        let about = self.about()?;
        if about.version != self.version.to_string() {
            return Err(format!("{} is version {}, not {}", self.program.display(), about.version, self.version));
        }
        let last = self.from.as_ref().map(|folder| last_manifest(folder, &key)).transpose()?;
        let issued = last.as_ref().and_then(|manifest| manifest.issued_at);
        let releases = last.map(|manifest| manifest.releases).unwrap_or_default();
        version_rules::check(&self.version, self.channel == "rc", &about.migrations, &releases)?;
        let base = version_rules::base(&self.version, &releases);
        let contract = operator_contract::read(&self.contract, &self.version)?;
        let base_contract = operator_contract::of_base(base, self.from.as_deref())?;
        if let Some(old) = &base_contract {
            operator_contract::check(&contract, old)?;
        }
        fresh_folder(&self.publishing.output)?;
        let completions = self.completions()?;
        let asset = self.tarball(&contract, &about.target, &completions)?;
        if self.packages {
            self.packages(&completions)?;
        }
        let last_release = below(&self.version, &releases);
        let mut components = vec![self.postgres(&about.target, last_release)?];
        if let Some(wheel) = &self.airflow_ui {
            components.push(self.airflow_ui(wheel, &about.target, last_release)?);
        }
        let mut release = self.describe(&about, asset, components, &releases)?;
        release.contract = Some(operator_contract::write(&contract, &self.publishing.output)?);
        let base = base.map(|release| release_notes::Base { release, contract: base_contract });
        let notes = release_notes::text(&release, &contract, base.as_ref());
        write(&self.publishing.output.join(format!("release-notes-{}.md", self.version)), notes.as_bytes())?;
        if let Some(from) = &self.from {
            carry(from, &self.publishing.output, &releases)?;
        }
        if let Some(base) = &self.image_base {
            self.image(base, &release)?;
        }
        self.publishing.write_scripts(&release)?;
        self.publishing.write_formula(&release)?;
        self.publishing.publish(std::iter::once(release).chain(releases).collect(), issued, &key)
    }

    /// What the program says about itself. A program for another machine has the facts of the same build for this one.
    fn about(&self) -> Outcome<About> {
        let about = program::about(self.runnable()).map_err(|error| error.to_string())?;
        let Some(host_program) = &self.host_program else { return Ok(about) };
        if macho::is_for_macs(&self.program)? {
            return Ok(About { target: macho::TARGET.to_owned(), ..about });
        }
        let (own, described) = (elf::needs(host_program)?.machine, elf::needs(&self.program)?.machine);
        Ok(About { target: about.target.replacen(own.name(), described.name(), 1), ..about })
    }

    fn runnable(&self) -> &Path {
        self.host_program.as_deref().unwrap_or(&self.program)
    }

    /// The shells and their completion scripts.
    fn completions(&self) -> Outcome<Vec<(&'static str, Vec<u8>)>> {
        let text = |shell| Ok((shell, pack::output(self.runnable(), &["completions", shell])?));
        ["bash", "zsh", "fish"].into_iter().map(text).collect()
    }

    fn packages(&self, completions: &[(&'static str, Vec<u8>)]) -> Outcome<()> {
        let contents = packages::Contents {
            version: &self.version,
            date: self.publishing.date,
            program: &self.program,
            license: &self.license,
            third_party: self.third_party.as_deref(),
            completions,
            quick: self.quick,
        };
        packages::write(&contents, &self.publishing.output).map(drop)
    }

    /// Makes the container image from the files of the release, once all are in its folder.
    fn image(&self, base: &Path, release: &Release) -> Outcome<PathBuf> {
        let folder = &self.publishing.output;
        let beside: Vec<PathBuf> = release.components.iter().map(|component| folder.join(&component.url)).collect();
        let asset = release.assets.first().ok_or("the release has no program")?;
        let machine = elf::Machine::of_target(&asset.target).ok_or("there are no images for this platform")?;
        let staging = tempfile::tempdir().map_err(|error| error.to_string())?;
        let uv = match &self.image_uv {
            Some(uv) => uv.clone(),
            None => {
                let platform = format!("linux-{}", machine.name());
                python::environments::download_uv(&platform, staging.path()).map_err(|error| error.to_string())?
            }
        };
        let image = image::Image {
            version: &self.version,
            date: self.publishing.date,
            machine,
            base,
            tarball: &folder.join(&asset.name),
            beside: &beside,
            uv: &uv,
            quick: self.quick,
        };
        image::write(&image, folder)
    }

    /// Packs the program, licences, completions and packages for DAGs.
    fn tarball(&self, contract: &Contract, target: &str, completions: &[(&'static str, Vec<u8>)]) -> Outcome<Asset> {
        let name = format!("leoflow-{}-{target}.tar.gz", self.version);
        let folder = format!("leoflow-{}", self.version);
        let mut files = vec![
            pack::Entry::file(format!("{folder}/leoflow"), &self.program, true)?,
            pack::Entry::file(format!("{folder}/LICENSE"), &self.license, false)?,
        ];
        files.push(pack::Entry::bytes(format!("{folder}/contract.json"), operator_contract::text(contract)?));
        if let Some(path) = &self.third_party {
            files.push(pack::Entry::file(format!("{folder}/THIRD-PARTY-LICENSES.txt"), path, false)?);
        }
        for (shell, text) in completions {
            files.push(pack::Entry::bytes(format!("{folder}/completions/leoflow.{shell}"), text.clone()));
        }
        let wheels = self.python_packages.as_deref().map_or(Ok(Vec::new()), python::verified_wheels);
        let wheels = wheels.map_err(|error| error.to_string())?;
        for wheel in wheels {
            let name = wheel.file_name().unwrap_or_default().to_string_lossy();
            files.push(pack::Entry::file(format!("{folder}/python-packages/{name}"), &wheel, false)?);
        }
        let path = self.publishing.output.join(&name);
        pack::tar_gz(&path, files, self.quick)?;
        let (sha256, size) = pack::sha256(&path)?;
        Ok(Asset { url: name.clone(), name, digest: format!("sha256:{sha256}"), size, target: target.to_owned() })
    }

    fn postgres(&self, target: &str, last: Option<&Release>) -> Outcome<Component> {
        let unpacked = tempfile::tempdir().map_err(|error| error.to_string())?;
        let packed = pack::postgres(&self.postgres, unpacked.path(), target, self.postgres_version.as_deref())?;
        let url = format!("{POSTGRES}-{}-{target}-{}.tar.zst", packed.0, self.version);
        self.component((POSTGRES, target), url, packed, last)
    }

    /// Packs the web UI: one file, the same for all platforms.
    fn airflow_ui(&self, wheel: &Path, target: &str, last: Option<&Release>) -> Outcome<Component> {
        let unpacked = tempfile::tempdir().map_err(|error| error.to_string())?;
        let tree = web_ui::tree_of_wheel(wheel, unpacked.path(), preferred_ui()).map_err(|error| error.to_string())?;
        let (files, size) = pack::folder(&tree)?;
        let url = format!("{}-{}-{}.tar.zst", web_ui::COMPONENT, web_ui::version(), self.version);
        self.component((web_ui::COMPONENT, target), url, (web_ui::version().to_owned(), files, size), last)
    }

    /// Packs a component. If its bytes equal those of the last release, the last release's component is reused.
    fn component(
        &self,
        (name, target): (&str, &str),
        url: String,
        (version, files, unpacked_size): pack::Packed,
        last: Option<&Release>,
    ) -> Outcome<Component> {
        let path = self.publishing.output.join(&url);
        pack::tar_zst(&path, files, self.quick)?;
        let (sha256, size) = pack::sha256(&path)?;
        let carried = last.and_then(|last| last.components(target).find(|component| component.sha256 == sha256));
        if let Some(carried) = carried {
            fs::remove_file(&path).map_err(|error| error.to_string())?;
            return Ok(carried.clone());
        }
        let (name, target, produced_by) = (name.to_owned(), target.to_owned(), self.version.clone());
        Ok(Component { name, version, target, url, sha256, size, unpacked_size, produced_by, optional: false })
    }

    fn describe(
        &self,
        about: &About,
        asset: Asset,
        components: Vec<Component>,
        releases: &[Release],
    ) -> Outcome<Release> {
        let (last, base) = (below(&self.version, releases), version_rules::base(&self.version, releases));
        let channel = Channel::parse(&self.channel).ok_or("no such channel")?;
        let floor = last.map_or(&self.version, |last| &last.upgrades_from);
        let mut required_stops = last.map(|last| last.required_stops.clone()).unwrap_or_default();
        required_stops.extend(self.required_stop.iter().cloned());
        required_stops.sort();
        required_stops.dedup();
        if let Some(unknown_stop) =
            required_stops.iter().find(|stop| !releases.iter().any(|release| release.version == **stop))
        {
            return Err(format!("{unknown_stop} cannot be a required stop: there is no such release"));
        }
        Ok(Release {
            version: self.version.clone(),
            channel,
            date: self.publishing.date.to_string(),
            commit: about.commit.clone(),
            notes: version_rules::notes(&self.changelog, &self.version, &about.migrations, base)?,
            upgrades_from: self.upgrades_from.clone().unwrap_or_else(|| floor.clone()),
            required_stops,
            hands_over: self.hands_over || last.is_some_and(|last| last.hands_over),
            migrations: about.migrations.clone(),
            contract: None,
            assets: vec![asset],
            components,
        })
    }
}

impl Publishing {
    fn key(&self) -> Outcome<sign::Key> {
        sign::Key::load(&self.sign)
    }

    /// Writes the signed manifest and SHA256SUMS. The issue date is `--date`, or one second after `last`, the date of
    /// the last manifest, if that is later: upgrades report an older manifest as outdated.
    fn publish(&self, mut all: Vec<Release>, last: Option<Timestamp>, key: &sign::Key) -> Outcome<()> {
        all.sort_by(|one, other| version_order::compare(&other.version, &one.version));
        let newest =
            all.first().map(|release| release.version.clone()).ok_or("the manifest would contain no release")?;
        let mut manifest = Manifest::new(all);
        let valid = SignedDuration::from_hours(24 * i64::from(self.valid_days));
        let after_last = last.and_then(|last| last.checked_add(SignedDuration::from_secs(1)).ok());
        let issued = after_last.map_or(self.date, |last| last.max(self.date));
        manifest.issued_at = Some(issued);
        manifest.expires_at = Some(issued.checked_add(valid).map_err(|error| error.to_string())?);
        let next = self.next_key.as_deref().map(sign::Key::load).transpose()?;
        manifest.next_public_key = next.as_ref().map(|next| next.public.clone());
        let text = serde_json::to_vec_pretty(&manifest).map_err(|error| error.to_string())?;
        // Never publish a manifest that the program cannot read.
        let read = Manifest::parse(&text).map_err(|error| error.to_string())?;
        if read != manifest {
            return Err("the manifest changes when it is read back: this is a bug in make-release".to_owned());
        }
        write(&self.output.join(MANIFEST), &text)?;
        let keys: Vec<&sign::Key> = [key].into_iter().chain(&next).collect();
        sign::sign_by(&keys, &self.output.join(MANIFEST))?;
        write(&self.output.join("SHA256SUMS"), pack::sums(&self.output)?.as_bytes())?;
        sign::sign_by(&keys, &self.output.join("SHA256SUMS"))?;
        println!("{newest} is in {}", self.output.display());
        Ok(())
    }

    /// Writes Homebrew's formula, unless the release host has no address yet.
    fn write_formula(&self, release: &Release) -> Outcome<()> {
        if self.url.is_empty() {
            return Ok(());
        }
        write(&self.output.join("leoflow.rb"), formula::text(release, &self.url)?.as_bytes())
    }

    /// Writes install.sh with the release's files and their hashes, and uninstall.sh. Each is one file: the functions
    /// that both use are put into both. Also the dashboard for Grafana.
    fn write_scripts(&self, release: &Release) -> Outcome<()> {
        let read = |name: &str| {
            let path = self.installer.with_file_name(name);
            fs::read_to_string(&path).map_err(|error| format!("{}: {error}", path.display()))
        };
        let mut files = Vec::new();
        for asset in &release.assets {
            let sha256 = asset.sha256().map_err(|error| error.to_string())?;
            files.push(format!("program {} {} {sha256} {}", asset.target, asset.url, asset.size));
        }
        for component in &release.components {
            let Component { name, target, url, sha256, size, .. } = component;
            files.push(format!("{name} {target} {url} {sha256} {size}"));
        }
        let dashboard = "grafana-dashboard.json";
        write(&self.output.join(dashboard), read(dashboard)?.as_bytes())?;
        let common = read("common.sh")?;
        for name in ["install.sh", "uninstall.sh"] {
            let template = read(name)?;
            let (before, after) =
                template.split_once(INCLUDE).ok_or_else(|| format!("{name} does not use common.sh"))?;
            let text = format!("{before}{common}{after}")
                .replace("@VERSION@", &release.version.to_string())
                .replace("@BASE_URL@", self.url.trim_end_matches('/'))
                .replace("@FILES@", &files.join("\n"));
            let path = self.output.join(name);
            write(&path, text.as_bytes())?;
            pack::make_executable(&path)?;
        }
        Ok(())
    }
}

/// The lines of a script that use common.sh, of which a script of a release has the text.
const INCLUDE: &str = "# scripts/release puts the text of common.sh here: the script of a release is one file.\n\
                       # shellcheck source=install/common.sh\n\
                       . \"$(dirname -- \"$0\")/common.sh\"\n";

fn print_formula(dist: &Path, url: &str) -> Outcome<()> {
    let path = dist.join(MANIFEST);
    let text = fs::read(&path).map_err(|error| format!("{}: {error}", path.display()))?;
    let manifest = Manifest::parse(&text).map_err(|error| format!("{}: {error}", path.display()))?;
    let newest = manifest.releases.iter().find(|release| release.channel == Channel::Stable);
    print!("{}", formula::text(newest.ok_or("there is no stable release")?, url)?);
    Ok(())
}

/// The newest release below a version, including candidates.
fn below<'a>(version: &Version, releases: &'a [Release]) -> Option<&'a Release> {
    let is_below = |release: &&Release| version_order::compare(&release.version, version).is_lt();
    releases.iter().filter(is_below).max_by(|one, other| version_order::compare(&one.version, &other.version))
}

/// Reads the manifest of the last release and verifies that it is signed with our own key.
fn last_manifest(folder: &Path, key: &sign::Key) -> Outcome<Manifest> {
    let text = signed_text(folder, MANIFEST, key)?;
    Manifest::parse(text.as_bytes()).map_err(|error| format!("{}: {error}", folder.join(MANIFEST).display()))
}

/// Reads a file that is signed with our own key.
fn signed_text(folder: &Path, name: &str, key: &sign::Key) -> Outcome<String> {
    let path = folder.join(name);
    let failed = |error: &dyn std::fmt::Display| format!("{}: {error}", path.display());
    let text = fs::read_to_string(&path).map_err(|error| failed(&error))?;
    let signature = fs::read_to_string(folder.join(format!("{name}{SIGNATURE_SUFFIX}")));
    let signature = signature.map_err(|error| failed(&error))?;
    leoflow::upgrade::release::signature::verify(std::slice::from_ref(&key.public), text.as_bytes(), &signature)
        .map_err(|error| failed(&error))?;
    Ok(text)
}

/// Copies the files of earlier releases, because the output is a complete release host. Verifies them against the
/// signed manifest, because the output gets a new signature.
fn carry(from: &Path, to: &Path, releases: &[Release]) -> Outcome<()> {
    let mut files = Vec::new();
    for release in releases {
        for asset in &release.assets {
            files.push((asset.url.as_str(), asset.sha256().map_err(|error| error.to_string())?));
        }
        files.extend(release.components.iter().map(|component| (component.url.as_str(), component.sha256.as_str())));
        files.extend(release.contract.iter().map(|contract| (contract.url.as_str(), contract.sha256.as_str())));
    }
    for (url, sha256) in files.into_iter().filter(|(url, _)| !url.contains("://")) {
        let (old, new) = (from.join(url), to.join(url));
        if !new.exists() {
            fs::copy(&old, &new).map_err(|error| format!("{}: {error}", old.display()))?;
            if pack::sha256(&new)?.0 != sha256 {
                return Err(format!("{} does not match the hash in its manifest", old.display()));
            }
        }
    }
    Ok(())
}

/// Creates an output folder; fails if it already has content.
fn fresh_folder(path: &Path) -> Outcome<()> {
    if path.exists() && fs::read_dir(path).is_ok_and(|mut entries| entries.next().is_some()) {
        return Err(format!("{} already exists: remove it, or choose another --output", path.display()));
    }
    fs::create_dir_all(path).map_err(|error| format!("{}: {error}", path.display()))
}

fn write(path: &Path, bytes: &[u8]) -> Outcome<()> {
    fs::write(path, bytes).map_err(|error| format!("{}: {error}", path.display()))
}

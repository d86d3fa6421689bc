//! Homebrew's formula of a release, made from the manifest: <https://docs.brew.sh/Formula-Cookbook>.

use super::elf::Machine;
use super::macho;
use super::{Outcome, packages};
use leoflow::upgrade::release::manifest::Release;
use std::fmt::Write;

#[derive(Clone, Copy, PartialEq, Eq)]
enum System {
    Linux,
    MacOs,
}

impl System {
    fn block(self) -> &'static str {
        match self {
            Self::Linux => "on_linux",
            Self::MacOs => "on_macos",
        }
    }
}

struct Platform {
    system: System,
    machine: Machine,
}

impl Platform {
    fn of(target: &str) -> Option<Self> {
        if target == macho::TARGET {
            return Some(Self { system: System::MacOs, machine: Machine::Aarch64 });
        }
        Some(Self { system: System::Linux, machine: Machine::of_target(target)? })
    }
}

/// The formula; `url` is the address of the release host.
pub fn text(release: &Release, url: &str) -> Outcome<String> {
    let url = url.trim_end_matches('/');
    if !url.contains("://") {
        return Err("a formula needs the address of the release host: pass --url".to_owned());
    }
    let mut files = Vec::new();
    for asset in &release.assets {
        let platform = Platform::of(&asset.target)
            .ok_or_else(|| format!("a formula has no block for the platform {}", asset.target))?;
        let address = if asset.url.contains("://") { asset.url.clone() } else { format!("{url}/{}", asset.url) };
        files.push((platform, address, asset.sha256().map_err(|error| error.to_string())?));
    }
    let mut text = format!(
        "class Leoflow < Formula\n  desc \"{}\"\n  homepage \"{url}\"\n  version \"{}\"\n  license \"Apache-2.0\"\n\n",
        packages::SUMMARY,
        release.version
    );
    for system in [System::Linux, System::MacOs] {
        let of_system: Vec<_> = files.iter().filter(|(platform, ..)| platform.system == system).collect();
        if of_system.is_empty() {
            continue;
        }
        // Writing to a String cannot fail.
        let _ = writeln!(text, "  {} do", system.block());
        for (platform, address, sha256) in &of_system {
            let block = if platform.machine == Machine::X86_64 { "on_intel" } else { "on_arm" };
            let file = format!("      url \"{address}\"\n      sha256 \"{sha256}\"\n");
            let _ = write!(text, "    {block} do\n{file}    end\n");
        }
        if let [(platform, ..)] = of_system.as_slice() {
            // brew names the missing platform instead of a missing address.
            let arch = if platform.machine == Machine::X86_64 { "x86_64" } else { "arm64" };
            let _ = writeln!(text, "    depends_on arch: :{arch}");
        }
        text.push_str("  end\n\n");
    }
    // brew names the missing system instead of a missing address.
    let has = |system: System| files.iter().any(|(platform, ..)| platform.system == system);
    if !has(System::MacOs) {
        text.push_str("  depends_on :linux\n\n");
    } else if !has(System::Linux) {
        text.push_str("  depends_on :macos\n\n");
    }
    text.push_str(INSTALL);
    Ok(text)
}

/// The program is in `libexec`, beside the packages for DAG files that its setup looks for there.
const INSTALL: &str = r##"  def install
    libexec.install "leoflow", "python-packages"
    bin.install_symlink libexec/"leoflow"
    bash_completion.install "completions/leoflow.bash" => "leoflow"
    zsh_completion.install "completions/leoflow.zsh" => "_leoflow"
    fish_completion.install "completions/leoflow.fish"
  end

  def caveats
    <<~EOS
      After `brew upgrade leoflow`, bring your instance to the new release:
        leoflow upgrade
    EOS
  end

  test do
    assert_match version.to_s, shell_output("#{bin}/leoflow version")
  end
end
"##;

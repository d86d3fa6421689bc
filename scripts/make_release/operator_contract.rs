//! Checks the operator's contract of a release against an earlier release's contract, and publishes it.

use super::{Outcome, pack};
use leoflow::contract::Contract;
use leoflow::contract::rules::violations;
use leoflow::upgrade::release::manifest::{ContractFile, Release};
use semver::Version;
use std::fs;
use std::path::Path;

/// Reads the contract and sets its version.
pub fn read(path: &Path, version: &Version) -> Outcome<Contract> {
    let text = fs::read(path).map_err(|error| format!("{}: {error}", path.display()))?;
    let contract = Contract::parse(&text).map_err(|error| format!("{}: {error}", path.display()))?;
    Ok(Contract { version: version.clone(), ..contract })
}

/// The contract of the last stable release, from the folder of that release; a release without one promised nothing.
pub fn of_base(base: Option<&Release>, from: Option<&Path>) -> Outcome<Option<Contract>> {
    let Some((file, from)) = base.and_then(|base| base.contract.as_ref()).zip(from) else { return Ok(None) };
    let path = from.join(&file.url);
    let text = fs::read(&path).map_err(|error| format!("{}: {error}", path.display()))?;
    Contract::parse(&text).map(Some).map_err(|error| format!("{}: {error}", path.display()))
}

/// Refuses a release that breaks what the last stable release below it promised.
pub fn check(contract: &Contract, old: &Contract) -> Outcome<()> {
    let broken: Vec<String> = violations(old, contract).iter().map(ToString::to_string).collect();
    if broken.is_empty() {
        return Ok(());
    }
    Err(format!("{} breaks the contract of {}:\n  {}", contract.version, old.version, broken.join("\n  ")))
}

pub fn text(contract: &Contract) -> Outcome<Vec<u8>> {
    serde_json::to_vec_pretty(contract).map_err(|error| error.to_string())
}

/// Writes the contract next to the manifest.
pub fn write(contract: &Contract, output: &Path) -> Outcome<ContractFile> {
    let url = format!("contract-{}.json", contract.version);
    let path = output.join(&url);
    super::write(&path, &text(contract)?)?;
    let (sha256, size) = pack::sha256(&path)?;
    Ok(ContractFile { url, sha256, size })
}

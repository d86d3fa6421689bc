//! Tests every refusal by changing one fact at a time.

use super::*;

const TARGET: &str = "x86_64-unknown-linux-gnu";
const MIB: u64 = 1024 * 1024;

fn version(text: &str) -> Version {
    text.parse().unwrap()
}

fn hash(byte: u8) -> String {
    format!("{byte:02x}").repeat(32)
}

fn migration(version: i64, phase: &str) -> Migration {
    let byte = u8::try_from(version).unwrap();
    Migration { version, name: format!("m{version}"), phase: phase.to_owned(), sha256: hash(byte), reversible: true }
}

fn postgres(version: &str) -> Component {
    Component {
        name: POSTGRES.to_owned(),
        version: version.to_owned(),
        target: TARGET.to_owned(),
        url: "postgres.tar.zst".to_owned(),
        sha256: hash(0xaa),
        size: 10 * MIB,
        unpacked_size: 40 * MIB,
        produced_by: Version::new(0, 2, 0),
        optional: false,
    }
}

fn release(text: &str, channel: Channel) -> Release {
    Release {
        version: version(text),
        channel,
        date: "2026-01-01T00:00:00Z".to_owned(),
        commit: Some("0123abc".to_owned()),
        notes: format!("What is new in {text}"),
        contract: None,
        upgrades_from: version("0.1.0"),
        required_stops: Vec::new(),
        hands_over: false,
        migrations: vec![migration(1, "expand"), migration(2, "expand"), migration(3, "data")],
        assets: vec![Asset {
            name: "leoflow.tar.gz".to_owned(),
            url: "leoflow.tar.gz".to_owned(),
            digest: format!("sha256:{}", hash(0xbb)),
            size: 5 * MIB,
            target: TARGET.to_owned(),
        }],
        components: vec![postgres("18.4")],
    }
}

fn facts() -> UpgradeFacts {
    UpgradeFacts {
        installed: version("0.1.0"),
        own_version: version("0.1.0"),
        target: TARGET,
        database: Database::Applied(vec![(1, hash(1)), (2, hash(2))]),
        schema_changes: Vec::new(),
        own_schema: 2,
        components: vec![Installed { name: POSTGRES.to_owned(), version: "18.3".to_owned(), sha256: Some(hash(1)) }],
        backup_bytes: 100 * MIB,
        free_bytes: Some(10_000 * MIB),
        database_bytes: 100 * MIB,
        instance: Instance::Healthy,
        running_tasks: 3,
    }
}

const STABLE: Target = Target::Newest(Channel::Stable);

/// Plans an upgrade to `0.2.0` after applying `change` to the facts and the release. The manifest also has the
/// release's required stops.
fn planned(change: impl FnOnce(&mut UpgradeFacts, &mut Release)) -> Result<UpgradePlan, UpgradeRefusal> {
    let (mut facts, mut newest) = (facts(), release("0.2.0", Channel::Stable));
    change(&mut facts, &mut newest);
    let stops = newest.required_stops.iter().filter(|stop| **stop != newest.version);
    let stops: Vec<Release> = stops.map(|stop| release(&stop.to_string(), Channel::Rc)).collect();
    plan(&facts, &Manifest::new([vec![newest], stops].concat()), &STABLE)
}

/// Asserts that a plan was refused with a matching error.
macro_rules! refused {
    ($planned:expr, $pattern:pat $(if $guard:expr)?) => {
        match $planned {
            Err($pattern) $(if $guard)? => {}
            other => panic!("{other:?}"),
        }
    };
}

#[test]
fn the_plan_lists_all_changes() {
    let plan = planned(|_, _| {}).unwrap();
    assert_eq!((plan.from.clone(), plan.to.clone()), (version("0.1.0"), version("0.2.0")));
    assert_eq!((plan.schema_from, plan.schema_to, plan.live, plan.running_tasks), (2, 3, true, 3));
    assert_eq!(plan.migrations, [migration(3, "data")]);
    assert_eq!((plan.program.sha256.as_str(), plan.commit.as_deref()), (hash(0xbb).as_str(), Some("0123abc")));
    assert!(matches!(plan.components[0].action, Action::Fetch(_)));
    assert!(plan.is_reversible() && plan.warnings.is_empty());
    assert_eq!(plan.fetched().count(), 1);
    // Three copies of the database and the backup, the component packed and unpacked, the program, the reserve.
    assert_eq!(plan.needs_bytes, (4 * 100 + 50 + 4 * 5 + 256) * MIB);
}

#[test]
fn installed_components_are_not_fetched() {
    let plan = planned(|facts, _| facts.components[0].sha256 = Some(hash(0xaa))).unwrap();
    assert_eq!(plan.components[0].action, Action::Carried);
    let from_the_system = |facts: &mut UpgradeFacts, _: &mut Release| {
        facts.components[0] = Installed { name: POSTGRES.to_owned(), version: "18.4".to_owned(), sha256: None };
    };
    let plan = planned(from_the_system).unwrap();
    assert_eq!(plan.components[0].action, Action::Kept);
    assert_eq!(plan.needs_bytes, (4 * 100 + 4 * 5 + 256) * MIB);
    assert!(!planned(|facts, _| facts.instance = Instance::Stopped).unwrap().live);
}

#[test]
fn nothing_newer_is_no_upgrade() {
    refused!(planned(|facts, _| facts.installed = version("0.2.0")), UpgradeRefusal::UpToDate(_));
    refused!(planned(|facts, _| facts.installed = version("0.3.0")), UpgradeRefusal::Ahead { .. });
    // A development build of the same version is not the release.
    assert!(planned(|facts, _| facts.installed = version("0.2.0+12345678")).is_ok());
    let manifest = Manifest::new(vec![release("0.2.0", Channel::Stable)]);
    let plan_to = |installed: &str, target: &str| {
        plan(&UpgradeFacts { installed: version(installed), ..facts() }, &manifest, &Target::parse(target).unwrap())
    };
    refused!(plan_to("0.2.0", "0.2.0"), UpgradeRefusal::Installed(_));
    refused!(plan_to("0.3.0", "v0.2.0"), UpgradeRefusal::Older { .. });
    refused!(plan_to("0.1.0", "0.9.0"), UpgradeRefusal::Unknown(unknown) if unknown == version("0.9.0"));
    refused!(
        plan(&facts(), &Manifest::new(vec![release("0.2.0-rc1", Channel::Rc)]), &STABLE),
        UpgradeRefusal::EmptyChannel("stable")
    );
}

#[test]
fn release_candidates_need_the_rc_channel() {
    let manifest = Manifest::new(vec![release("0.3.0-rc1", Channel::Rc), release("0.2.0", Channel::Stable)]);
    let version_for = |target: &str| plan(&facts(), &manifest, &Target::parse(target).unwrap()).unwrap().to;
    assert_eq!(
        (version_for("stable"), version_for("rc"), version_for("0.3.0-rc1")),
        (version("0.2.0"), version("0.3.0-rc1"), version("0.3.0-rc1"))
    );
    assert_eq!(Target::parse("newest"), None);
}

#[test]
fn enforces_required_stops_and_the_oldest_version() {
    refused!(planned(|_, release| release.upgrades_from = version("0.1.5")), UpgradeRefusal::BelowFloor { floor, .. } if floor == version("0.1.5"));
    let stops = |_: &mut UpgradeFacts, release: &mut Release| {
        release.required_stops = vec![version("0.1.8"), version("0.1.4"), version("0.0.9"), version("0.2.0")];
    };
    refused!(planned(stops), UpgradeRefusal::Stop { stop, .. } if stop == version("0.1.4"));
    let stops_below_the_floor = |facts: &mut UpgradeFacts, release: &mut Release| {
        stops(facts, release);
        release.upgrades_from = version("0.1.5");
    };
    refused!(planned(stops_below_the_floor), UpgradeRefusal::Stop { stop, .. } if stop == version("0.1.4"));
    let passed = |facts: &mut UpgradeFacts, release: &mut Release| {
        stops(facts, release);
        facts.installed = version("0.1.8");
    };
    assert!(planned(passed).is_ok());
}

#[test]
fn refuses_a_datastore_that_the_release_does_not_know() {
    let applied = |applied: Vec<(i64, String)>| planned(|facts, _| facts.database = Database::Applied(applied));
    let newer = vec![(1, hash(1)), (2, hash(2)), (3, hash(3)), (4, hash(4))];
    refused!(applied(newer), UpgradeRefusal::NewerSchema { database: 4, known: 3, .. });
    refused!(applied(vec![(1, hash(1)), (2, hash(9))]), UpgradeRefusal::OtherHistory { version: 2, .. });
    refused!(planned(|facts, _| facts.database = Database::Damaged("a hole".to_owned())), UpgradeRefusal::Damaged(_));
    refused!(
        planned(|_, release| release.migrations[2].phase = "sideways".to_owned()),
        UpgradeRefusal::Phase { version: 3, .. }
    );
    let later = planned(|_, release| release.migrations[2].phase = "contract".to_owned()).unwrap();
    assert_eq!((later.migrations.len(), later.later.len(), later.schema_to), (0, 1, later.schema_from));
    // An applied migration may have any phase.
    assert!(planned(|_, release| release.migrations[1].phase = "contract".to_owned()).is_ok());
    assert_eq!(applied(vec![]).unwrap().migrations.len(), 3);
    let other = |facts: &mut UpgradeFacts, _: &mut Release| facts.components[0].version = "17.9".to_owned();
    refused!(planned(other), UpgradeRefusal::OtherMajor { new, old, .. } if (new.as_str(), old.as_str()) == ("18.4", "17.9"));
}

#[test]
fn an_unknown_optional_component_is_left_out() {
    let unknown = Component { name: "warp-drive".to_owned(), optional: true, ..postgres("1") };
    let plan = planned(|_, release| release.components.push(unknown)).unwrap();
    assert_eq!(plan.components.iter().map(|component| component.name.as_str()).collect::<Vec<_>>(), [POSTGRES]);
}

#[test]
fn only_a_releases_own_program_judges_a_hand_over() {
    let beyond_this_version = |facts: &mut UpgradeFacts, release: &mut Release| {
        facts.components[0].version = "17.9".to_owned();
        release.components.push(Component { name: "warp-drive".to_owned(), ..postgres("1") });
        release.migrations[2].phase = "sideways".to_owned();
        release.hands_over = true;
    };
    refused!(planned(beyond_this_version), UpgradeRefusal::HandOver(plan) if plan.to == version("0.2.0"));
    // Its own program knows all that, and plans as for any release.
    let own = |facts: &mut UpgradeFacts, release: &mut Release| {
        facts.own_version = version("0.2.0+1234");
        release.hands_over = true;
    };
    assert!(planned(own).is_ok());
}

#[test]
fn refuses_unusable_releases_before_fetching() {
    refused!(
        planned(|facts, _| facts.target = "riscv64gc-unknown-linux-gnu"),
        UpgradeRefusal::Platform(_, "riscv64gc-unknown-linux-gnu")
    );
    refused!(
        planned(|_, release| release.components[0].name = "warp-drive".to_owned()),
        UpgradeRefusal::UnknownComponent(_)
    );
    refused!(planned(|_, release| release.assets[0].digest = "md5:1".to_owned()), UpgradeRefusal::Manifest(_));
    refused!(planned(|facts, _| facts.free_bytes = None), UpgradeRefusal::UnknownSpace);
    let needed = (4 * 100 + 50 + 4 * 5 + 256) * MIB;
    refused!(planned(|facts, _| facts.free_bytes = Some(needed - 1)), UpgradeRefusal::Space { .. });
    assert!(planned(|facts, _| facts.free_bytes = Some(needed)).is_ok());
    let little = planned(|facts, _| facts.free_bytes = Some(999_999)).unwrap_err().to_string();
    assert_eq!(little, "the upgrade needs 762 MB of free disk, but only 0 MB are available");
    let column = || vec!["variable column summary text".to_owned()];
    refused!(planned(|facts, _| facts.schema_changes = column()), UpgradeRefusal::SchemaChanged(_));
    // Sizes come from the manifest: huge ones must not overflow.
    refused!(planned(|_, release| release.assets[0].size = u64::MAX), UpgradeRefusal::Space { .. });
}

#[test]
fn upgrades_an_unhealthy_instance_only_if_that_may_fix_it() {
    let unhealthy =
        |facts: &mut UpgradeFacts, _: &mut Release| facts.instance = Instance::Unhealthy("postgres failed".to_owned());
    refused!(planned(unhealthy), UpgradeRefusal::Unhealthy(reason) if reason == "postgres failed");
    let with_newer_schema = |facts: &mut UpgradeFacts, release: &mut Release| {
        unhealthy(facts, release);
        facts.own_schema = 1;
    };
    assert!(planned(with_newer_schema).is_ok());
}

#[test]
fn warns_about_skipped_releases_and_irreversible_migrations() {
    let mut newest = release("0.4.0", Channel::Stable);
    newest.migrations[2].reversible = false;
    let others = ["0.2.0", "0.2.1", "0.3.0"].map(|version| release(version, Channel::Stable));
    let manifest = Manifest::new([vec![newest], others.to_vec()].concat());
    let plan = plan(&facts(), &manifest, &STABLE).unwrap();
    assert!(!plan.is_reversible());
    assert!(plan.warnings[0].starts_with("this skips 0.2, 0.3:"), "{:?}", plan.warnings);
    assert!(plan.warnings[1].starts_with("V0003__m3 cannot be undone"), "{:?}", plan.warnings);
}

#[test]
fn picks_the_newest_release_that_this_machine_can_run() {
    let mut foreign = release("0.4.0", Channel::Stable);
    foreign.assets[0].target = "riscv64gc-unknown-linux-gnu".to_owned();
    let mut other_major = release("0.3.0", Channel::Stable);
    other_major.components = vec![postgres("19.0")];
    let manifest = Manifest::new(vec![foreign.clone(), other_major, release("0.2.0", Channel::Stable)]);
    let chosen = plan(&facts(), &manifest, &Target::Newest(Channel::Stable)).unwrap();
    assert_eq!(chosen.to, version("0.2.0"));
    assert!(chosen.warnings.iter().any(|text| text.contains("0.4.0 is newer, but does not support this machine")));
    // Requested by version, or as the only release, it is refused with the reason.
    let named = Target::Version(version("0.4.0"));
    assert!(matches!(plan(&facts(), &manifest, &named), Err(UpgradeRefusal::Platform(..))));
    let only_foreign = Manifest::new(vec![foreign]);
    assert!(matches!(
        plan(&facts(), &only_foreign, &Target::Newest(Channel::Stable)),
        Err(UpgradeRefusal::Platform(..))
    ));
}

#[test]
fn a_required_stop_missing_on_the_host_is_not_suggested() {
    let mut newest = release("0.4.0", Channel::Stable);
    newest.required_stops = vec![version("0.3.0")];
    let to = Target::Version(version("0.4.0"));
    let plan_with = |others: Vec<Release>| plan(&facts(), &Manifest::new([vec![newest.clone()], others].concat()), &to);
    assert!(matches!(plan_with(vec![release("0.3.0", Channel::Stable)]), Err(UpgradeRefusal::Stop { .. })));
    assert!(matches!(plan_with(Vec::new()), Err(UpgradeRefusal::StopGone { .. })));
}

#[test]
fn a_newer_postgresql_is_not_replaced_by_an_older_one() {
    let manifest = Manifest::new(vec![release("0.2.0", Channel::Stable)]);
    let mut facts = facts();
    facts.components[0].version = "18.10".to_owned();
    let chosen = plan(&facts, &manifest, &Target::Newest(Channel::Stable)).unwrap();
    assert_eq!(chosen.components[0].action, Action::Kept);
}

#[test]
fn the_backup_counts_as_needed_space() {
    let manifest = Manifest::new(vec![release("0.2.0", Channel::Stable)]);
    let needed = |backup_bytes| {
        plan(&UpgradeFacts { backup_bytes, ..facts() }, &manifest, &Target::Newest(Channel::Stable))
            .unwrap()
            .needs_bytes
    };
    assert_eq!(needed(900 * MIB), needed(0) + 900 * MIB);
}

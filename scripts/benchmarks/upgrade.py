"""Measures upgrades with scripts/try-upgrade: of a new instance, of one with 450 MB, and to a release whose server
exits after the switch. The releases are made from the release build. Part of scripts/bench; also
`cd scripts && python3 -m benchmarks.upgrade`.

The load is 200 requests per second, each on a connection of its own. The ratio is the time of a whole upgrade without
load, divided by the time of a backup and a restore of the same database. Installed: from the start of install.sh, with
a local folder, to healthy.
"""

import json
import os
import statistics
import struct
import subprocess
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
EXAMPLES = ROOT / "target/dist/examples"
RATE, MEGABYTES = 200, 450
MIGRATION = {
    "file": "V9000__more.sql",
    "sql": "-- phase: expand\nCREATE TABLE more (id bigint PRIMARY KEY, note text);\nALTER TABLE dag_run ADD COLUMN more text;\n",
    "rollback": "-- loses: column more of dag_run, table more\nALTER TABLE dag_run DROP COLUMN more;\nDROP TABLE more;\n",
}


def available():
    subprocess.run(["cargo", "build", "--profile", "dist", "--locked", "--quiet", "--examples"], cwd=ROOT, check=True)
    return all((EXAMPLES / name).exists() for name in ("make-release", "release-under-test"))


def make_release(*arguments):
    return subprocess.run([EXAMPLES / "make-release", *map(str, arguments)], check=True, capture_output=True, text=True).stdout.strip()


def program(folder, version, public, **more):
    """Writes the test program with a trailer, from which it reads its version, public key, migrations and faults."""
    trailer = json.dumps({"version": version, "public_key": public, **more}).encode()
    path = folder / f"leoflow-{version}"
    path.write_bytes((EXAMPLES / "release-under-test").read_bytes() + trailer + struct.pack("<I", len(trailer)) + b"LEOTRAIL")
    path.chmod(0o755)
    return path


def release(folder, name, version, key, path, postgres, last=None):
    changelog = folder / f"{name}.md"
    changelog.write_text(f"## {version}\n\nNew.\n")
    output = folder / name
    make_release("make", version, "--sign", key, "--program", path, "--postgres", postgres, "--changelog", changelog,
                 "--quick", "--installer", ROOT / "install/install.sh", "--license", ROOT / "LICENSE",
                 "--date", "2026-01-01T00:00:00Z", "--output", output, *(["--from", last] if last else []))
    return output


def try_upgrade(old, new, *more):
    done = subprocess.run([ROOT / "scripts/try-upgrade", old, new, "--json", *map(str, more)], capture_output=True, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def old_and_new(folder, postgres):
    """Makes two consecutive releases, the second with a migration. Returns the signing key, the public key and both
    release folders."""
    key = folder / "key"
    make_release("keygen", key)
    public = make_release("public-key", key)
    # The migration gets the next free number.
    known = json.loads(subprocess.run([program(folder, "0.0.1", public), "version", "--json"], check=True, capture_output=True).stdout)
    MIGRATION["file"] = f"V{known['schema_version'] + 1:04}__more.sql"
    old = release(folder, "old", "0.1.0", key, program(folder, "0.1.0", public), postgres)
    new = release(folder, "new", "0.2.0", key, program(folder, "0.2.0", public, migrations=[MIGRATION]), postgres, old)
    return key, public, old, new


def measure(postgres, runs):
    samples = {}
    with tempfile.TemporaryDirectory(prefix="leoflow-bench-") as folder:
        folder = Path(folder)
        key, public, old, new = old_and_new(folder, postgres)
        bad_program = program(folder, "0.3.0", public, migrations=[MIGRATION], faults={"live-server": "exits"})
        bad = release(folder, "bad", "0.3.0", key, bad_program, postgres, old)

        def add_sample(figure, value):
            samples.setdefault(figure, []).append(value)

        for _ in range(runs):
            fresh = try_upgrade(old, new, "--rate", RATE)
            large = try_upgrade(old, new, "--rate", RATE, "--rows", MEGABYTES)
            calm = try_upgrade(old, new, "--rate", 0, "--rows", MEGABYTES, "--compare")
            failed = try_upgrade(old, bad, "--rate", RATE, "--expect-failure")
            busy = try_upgrade(old, new, "--rate", RATE, "--busy", os.cpu_count())
            for result in (fresh, large, calm, failed, busy):
                if result["problems"]:
                    raise SystemExit(f"{result}")
            add_sample("installed", fresh["installed_seconds"])
            add_sample("fresh", fresh["upgrade_seconds"])
            add_sample("fresh slowest", fresh["slowest_seconds"])
            for name, result in (("fresh", fresh), ("large", large), ("busy", busy)):
                add_sample(f"{name} pause", result["pause_seconds"])
                add_sample(f"{name} expected", result["expected_pause_seconds"])
            add_sample("busy slowest", busy["slowest_seconds"])
            add_sample("large slowest", large["slowest_seconds"])
            add_sample("failed requests", fresh["failed"] + large["failed"] + failed["failed"])
            add_sample("requests", fresh["requests"] + large["requests"] + failed["requests"])
            add_sample("large", calm["upgrade_seconds"])
            add_sample("backup and restore", calm["backup_seconds"] + calm["restore_seconds"])
            add_sample("going back", failed["going_back_seconds"])
    return {figure: (max if figure == "failed requests" else statistics.median)(values) for figure, values in samples.items()}


def show(values):
    print(f"install.sh to healthy        {values['installed']:8.2f} s")
    print(f"upgrade, fresh instance      {values['fresh']:8.2f} s   slowest request {values['fresh slowest']:.2f} s")
    ratio = values["large"] / values["backup and restore"]
    print(f"upgrade, {MEGABYTES} MB             {values['large']:8.2f} s   {ratio:.2f} x of backup + restore, {values['backup and restore']:.2f} s")
    print(f"   under {RATE} requests/s                  slowest request {values['large slowest']:.2f} s")
    print(f"   with busy cores, fresh                slowest request {values['busy slowest']:.2f} s")
    for name in ("fresh", "large", "busy"):
        print(f"pause, {name:<8}              {values[f'{name} pause']:8.2f} s   {values[f'{name} expected']:.2f} s predicted")
    print(f"failed switch -> old serves  {values['going back']:8.2f} s")
    print(f"failed requests              {values['failed requests']:8.0f} of {values['requests']:.0f}")


if __name__ == "__main__":
    import argparse

    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--runs", type=int, default=3)
    arguments.add_argument("--postgres", required=True, help="folder or archive with PostgreSQL")
    options = arguments.parse_args()
    show(measure(options.postgres, options.runs))

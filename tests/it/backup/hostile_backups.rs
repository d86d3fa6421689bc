//! Hostile and damaged backups: each is refused, and the instance stays unchanged.

use crate::support::archive::{Part, Unpacked, hash, replace_in_dump, save};
use crate::support::rounds::sample_rounds;
use crate::support::{TestHome, wait_until};
use serde_json::json;
use std::fs;
use std::path::Path;
use std::time::Duration;
use tar::EntryType;

/// Starts an instance and makes an unmodified backup of it.
fn instance_and_backup() -> (TestHome, Unpacked) {
    let test = TestHome::started();
    test.run(&["variables", "set", "mark", "untouched"]).expect(0);
    let backup = Unpacked::open(&test.backup("honest.tar.zst"));
    (test, backup)
}

/// Asserts that the live instance is healthy and unchanged, and that no restore left anything behind.
#[track_caller]
fn assert_untouched(test: &TestHome, case: &str) {
    assert_eq!(test.run(&["variables", "get", "mark"]).expect(0).stdout.trim(), "untouched", "{case}");
    assert_eq!(test.state(), "healthy", "{case}");
    assert!(test.restore_leftovers().is_empty(), "{case}: {:?}", test.restore_leftovers());
    let names: Vec<_> = fs::read_dir(test.workspace()).unwrap().flatten().map(|entry| entry.file_name()).collect();
    assert_eq!(names, ["hello"], "{case}");
}

#[track_caller]
fn assert_refused(test: &TestHome, file: &Path, case: &str) -> String {
    let refused = test.restore(file, &["--force", "--yes"]);
    assert_eq!(refused.code, Some(3), "{case}: {}{}", refused.stdout, refused.stderr);
    assert_untouched(test, case);
    refused.stderr
}

#[test]
fn forbidden_or_mismatched_archives_are_refused() {
    let (test, honest) = instance_and_backup();
    let file = test.folder().join("hostile.tar.zst");
    let before = fs::read_dir(test.folder()).unwrap().count();
    let outside = test.folder().join("escaped");
    let absolute = outside.to_str().unwrap().to_owned();
    // Forbidden entries that the manifest lists correctly.
    let declared: Vec<(&str, Vec<Part>)> = vec![
        ("a path with ..", vec![Part::file("workspace/../../escaped", b"x")]),
        ("a path that begins with ..", vec![Part::file("../escaped", b"x")]),
        ("an absolute path", vec![Part::file(&absolute, b"x")]),
        ("a path of the home that no backup contains", vec![Part::file("run/journal.json", b"x")]),
        ("a folder of a restore", vec![Part::with_kind("workspace/.leoflow-restore-x", EntryType::Directory, "")]),
        ("a link to an absolute path", vec![Part::with_kind("workspace/l", EntryType::Symlink, "/etc")]),
        ("a link that escapes with ..", vec![Part::with_kind("workspace/l", EntryType::Symlink, "../../escaped")]),
        (
            "a link and a write through it",
            vec![Part::with_kind("workspace/l", EntryType::Symlink, "hello"), Part::file("workspace/l/x", b"x")],
        ),
        ("a name with a newline", vec![Part::file("workspace/a\nb", b"x")]),
        ("the same name twice", vec![Part::file("workspace/a", b"x"), Part::file("workspace/a", b"y")]),
        ("a child without its parent", vec![Part::file("workspace/none/a", b"x")]),
    ];
    for (case, parts) in declared {
        let mut backup = honest.clone();
        backup.parts.extend(parts);
        backup.update_manifest();
        backup.save(&file);
        assert_refused(&test, &file, case);
    }
    // Entries that the manifest omits, and entries of another type than the manifest lists.
    let undeclared: Vec<(&str, Part)> = vec![
        ("an extra file", Part::file("workspace/extra", b"x")),
        ("a hard link", Part::with_kind("workspace/h", EntryType::Link, "config.yaml")),
        ("a device", Part::with_kind("workspace/d", EntryType::Block, "")),
        ("a FIFO", Part::with_kind("workspace/f", EntryType::Fifo, "")),
        ("a sparse file", Part::with_kind("workspace/s", EntryType::GNUSparse, "")),
        ("a global header", Part::with_kind("x", EntryType::XGlobalHeader, "")),
    ];
    for (case, part) in undeclared {
        let mut extra = honest.clone();
        extra.parts.push(part.clone());
        extra.save(&file);
        assert_refused(&test, &file, case);
        let mut lying = honest.clone();
        lying.manifest["entries"]
            .as_array_mut()
            .unwrap()
            .push(json!({"path": "workspace/f", "type": "file", "size": 0, "sha256": hash(b"")}));
        lying.parts.push(Part { path: "workspace/f".into(), ..part });
        if lying.parts.last().unwrap().kind != EntryType::Regular {
            lying.save(&file);
            assert_refused(&test, &file, case);
        }
    }
    type Change = fn(&mut Unpacked);
    let changes: Vec<(&str, Change)> = vec![
        ("a missing entry", |b| drop(b.parts.pop())),
        ("two entries in the other order", |b| b.parts.swap(0, 1)),
        ("a renamed entry", |b| b.part("workspace/hello/dag.py").path = "workspace/hello/dog.py".into()),
        ("other content", |b| b.part("workspace/hello/dag.py").bytes[0] ^= 1),
        ("more content", |b| b.part("config.yaml").bytes.push(b' ')),
        ("less content", |b| b.part("config.yaml").bytes.truncate(20)),
        ("a wrong size", |b| b.manifest["entries"][0]["size"] = 1.into()),
        ("the largest size", |b| b.manifest["entries"][0]["size"] = u64::MAX.into()),
        ("a negative count", |b| b.manifest["tables"]["dag"] = (-1).into()),
        ("a wrong row count", |b| b.manifest["tables"]["variable"] = 7.into()),
        ("a table that does not exist", |b| b.manifest["tables"]["treasure"] = 1.into()),
        ("a dump larger than declared", |b| b.manifest["database"]["dump_bytes"] = 100.into()),
        ("a dump smaller than declared", |b| b.manifest["database"]["dump_bytes"] = 1_000_000.into()),
        ("no dump", |b| {
            b.parts.retain(|part| part.path != "datastore.dump.zst");
            b.update_manifest();
        }),
        ("no config", |b| {
            b.parts.retain(|part| part.path != "config.yaml");
            b.update_manifest();
        }),
        ("a config that is not YAML", |b| {
            b.part("config.yaml").bytes = b"port: [".to_vec();
            b.update_manifest();
        }),
        ("a config without the encryption key", |b| {
            b.part("config.yaml").bytes = b"port: 1\n".to_vec();
            b.update_manifest();
        }),
        ("a config with another encryption key", |b| {
            let text = String::from_utf8(b.part("config.yaml").bytes.clone()).unwrap();
            let other = format!("encryption_key: \"{}\"", "ab".repeat(32));
            let old = text.lines().find(|line| line.starts_with("encryption_key")).unwrap().to_owned();
            b.part("config.yaml").bytes = text.replace(&old, &other).into_bytes();
            b.update_manifest();
        }),
        ("a dump that is garbage", |b| b.set_dump(b"PGDMP\x01\x10\x00 and then garbage")),
        ("a name with terminal escapes", |b| b.manifest["instance"] = "\u{1b}]0;owned\u{7}".into()),
        ("a manifest that is not an object", |b| b.manifest = json!("no")),
    ];
    for (case, change) in changes {
        let mut backup = honest.clone();
        change(&mut backup);
        backup.save(&file);
        assert_refused(&test, &file, case);
    }
    // Files that are not tar archives.
    for (case, bytes) in [
        ("nothing", &b""[..]),
        ("text", b"hello"),
        ("only a zstd magic number", b"\x28\xb5\x2f\xfd"),
        ("only a gzip magic number", b"\x1f\x8b\x08"),
    ] {
        fs::write(&file, bytes).unwrap();
        assert_refused(&test, &file, case);
    }
    let mut tail = honest.tar();
    tail.extend(b"after the end");
    save(&file, &tail);
    assert_refused(&test, &file, "bytes after the end of the tar");
    fs::remove_file(&file).unwrap();
    assert!(!outside.exists());
    assert_eq!(fs::read_dir(test.folder()).unwrap().count(), before, "something was left outside");
}

#[test]
fn archive_bombs_are_stopped_at_their_declared_size() {
    let (test, honest) = instance_and_backup();
    let file = test.folder().join("bomb.tar.zst");
    // A long-name entry of 512 MiB of zeros, a few KiB when compressed.
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(EntryType::GNULongName);
    header.set_path("././@LongLink").unwrap();
    header.set_size(512 << 20);
    header.set_cksum();
    let mut encoder = zstd::Encoder::new(fs::File::create(&file).unwrap(), 3).unwrap();
    std::io::Write::write_all(&mut encoder, header.as_bytes()).unwrap();
    std::io::copy(&mut std::io::Read::take(std::io::repeat(0), 512 << 20), &mut encoder).unwrap();
    encoder.finish().unwrap();
    assert_refused(&test, &file, "a name of 512 MiB");
    // Zeros after the end of an unmodified archive.
    let mut encoder = zstd::Encoder::new(fs::File::create(&file).unwrap(), 3).unwrap();
    std::io::Write::write_all(&mut encoder, &honest.tar()).unwrap();
    std::io::copy(&mut std::io::Read::take(std::io::repeat(0), 256 << 20), &mut encoder).unwrap();
    encoder.finish().unwrap();
    assert_refused(&test, &file, "zeros after the end");
    // A frame that needs a window of 1 GiB.
    let mut encoder = zstd::Encoder::new(fs::File::create(&file).unwrap(), 1).unwrap();
    encoder.window_log(30).unwrap();
    std::io::Write::write_all(&mut encoder, &honest.tar()).unwrap();
    encoder.finish().unwrap();
    assert_refused(&test, &file, "a window of 1 GiB");
    // More entries than the limit.
    let mut many_entries = honest.clone();
    let entry = json!({"path": "workspace/a", "type": "directory"});
    many_entries.manifest["entries"] = vec![entry; 400_000].into();
    many_entries.save(&file);
    assert_refused(&test, &file, "too many entries");
    // A list of 1.5 million excluded paths.
    let mut many_paths = honest.clone();
    many_paths.manifest["left_out"] = vec![json!(""); 1_500_000].into();
    many_paths.save(&file);
    assert_refused(&test, &file, "a list that is too long");
    // A dump that unpacks to more than its declared size, with a correct hash.
    let mut bomb = honest.clone();
    let declared = bomb.manifest["database"]["dump_bytes"].clone();
    let mut dump = bomb.dump();
    dump.extend(vec![0; 64 << 20]);
    bomb.set_dump(&dump);
    bomb.manifest["database"]["dump_bytes"] = declared;
    bomb.save(&file);
    assert_refused(&test, &file, "a dump larger than declared");
}

#[test]
fn dumps_with_foreign_statements_are_refused() {
    let (test, honest) = instance_and_backup();
    let file = test.folder().join("hostile.tar.zst");
    let trace = test.folder().join("executed");
    let trace_path = trace.to_str().unwrap();
    test.sql("SELECT 1");
    let program = format!("COPY public.import_error FROM PROGRAM 'touch {trace_path}'; ");
    let statements: Vec<(&str, &str)> = vec![
        ("drop the live database", "DROP DATABASE leoflow WITH (FORCE); "),
        ("drop the live database after a commit", "COMMIT; DROP DATABASE leoflow WITH (FORCE); "),
        ("rename the live database", "ALTER DATABASE leoflow RENAME TO stolen; "),
        ("become a superuser", "ALTER ROLE CURRENT_USER SUPERUSER; "),
        ("make the application a superuser", "ALTER ROLE leoflow SUPERUSER PASSWORD 'x'; "),
        ("a new password for the superuser", "ALTER ROLE postgres PASSWORD 'x'; "),
        ("a role", "CREATE ROLE evil SUPERUSER LOGIN; "),
        ("another role", "SET ROLE leoflow; "),
        ("another session user", "SET SESSION AUTHORIZATION postgres; "),
        ("COPY from a program", &program),
        ("COPY from a file", "COPY public.import_error FROM '/etc/passwd'; "),
        ("COPY to a file", "COPY (SELECT 1) TO '/tmp/leoflow-must-not-be-there'; "),
        ("a server setting", "ALTER SYSTEM SET fsync = off; "),
        ("read a server file", "SELECT pg_read_file('/etc/passwd'); "),
        ("export a large object", "SELECT lo_export(lo_from_bytea(0, 'x'), '/tmp/leoflow-must-not-be-there'); "),
        ("end all sessions", "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename <> current_user; "),
        (
            "an event trigger",
            "CREATE FUNCTION public.f() RETURNS event_trigger LANGUAGE plpgsql AS 'BEGIN END'; CREATE EVENT TRIGGER e ON ddl_command_end EXECUTE FUNCTION public.f(); ",
        ),
        (
            "a trigger",
            "CREATE FUNCTION public.f() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END'; CREATE TRIGGER e BEFORE INSERT ON public.variable FOR EACH ROW EXECUTE FUNCTION public.f(); ",
        ),
        ("a function", "CREATE FUNCTION public.f() RETURNS int LANGUAGE sql SECURITY DEFINER AS 'SELECT 1'; "),
        ("a view", "CREATE VIEW public.v AS SELECT 1; "),
        ("a schema", "CREATE SCHEMA evil; "),
        ("a large object", "SELECT lo_from_bytea(0, 'x'); "),
        ("a function default", "ALTER TABLE public.variable ALTER COLUMN description SET DEFAULT pg_sleep(1)::text; "),
        ("a rule", "CREATE RULE r AS ON INSERT TO public.variable DO INSTEAD NOTHING; "),
        ("a column", "ALTER TABLE public.variable ADD COLUMN more text; "),
        ("a privilege for PUBLIC", "GRANT ALL ON public.variable TO PUBLIC; "),
        ("default privileges", "ALTER DEFAULT PRIVILEGES GRANT ALL ON TABLES TO PUBLIC; "),
        ("an operator", "CREATE OPERATOR public.=== (FUNCTION = int4eq, LEFTARG = int4, RIGHTARG = int4); "),
        ("a type", "CREATE TYPE public.t AS (a int); "),
        ("an enum", "CREATE TYPE public.t AS ENUM ('a'); "),
        ("a collation", "CREATE COLLATION public.c FROM \"C\"; "),
        ("statistics", "CREATE STATISTICS public.s ON dag_id, run_id FROM public.dag_run; "),
        (
            "a template that cannot be dropped",
            "DO $$ BEGIN EXECUTE format('ALTER DATABASE %I IS_TEMPLATE true', current_database()); END $$; SELECT 1/0; ",
        ),
        (
            "a committed template that cannot be dropped",
            "DO $$ BEGIN EXECUTE format('ALTER DATABASE %I IS_TEMPLATE true', current_database()); END $$; COMMIT; SELECT 1/0; ",
        ),
        (
            "a connection limit of 0",
            "DO $$ BEGIN EXECUTE format('ALTER DATABASE %I CONNECTION LIMIT 0', current_database()); END $$; COMMIT; SELECT 1/0; ",
        ),
        (
            "an endless operator on names",
            "CREATE FUNCTION public.f(name, name) RETURNS boolean LANGUAGE plpgsql AS 'BEGIN LOOP END LOOP; END'; CREATE OPERATOR public.<> (FUNCTION = public.f, LEFTARG = name, RIGHTARG = name); ",
        ),
    ];
    // The server or the comparison of the restored schema refuses each statement.
    for (case, statement) in sample_rounds(statements, 6) {
        let mut hostile = honest.clone();
        let mut dump = hostile.dump();
        // Runs before the last statement of the dump, when everything else exists.
        replace_in_dump(&mut dump, "ALTER TABLE ONLY public.xcom\n", |sql| format!("{statement}{sql}"));
        hostile.set_dump(&dump);
        hostile.save(&file);
        assert_refused(&test, &file, case);
        if ["a template that cannot be dropped", "a committed template that cannot be dropped"].contains(&case) {
            test.run(&["lite", "backups", "verify", file.to_str().unwrap()]).expect(1);
            assert_untouched(&test, case);
        }
        assert!(!trace.exists(), "{case}: a program was run");
        let roles = test.sql("SELECT count(*) FROM pg_roles WHERE rolsuper");
        assert_eq!(roles, "1", "{case}");
    }
    assert!(!Path::new("/tmp/leoflow-must-not-be-there").exists());
    assert_eq!(test.sql("SHOW fsync"), "on");
    // A database with an interrupted DROP DATABASE does not block a restore.
    test.sql_as_superuser("CREATE DATABASE leoflow_side_01234567; UPDATE pg_database SET datconnlimit = -2 WHERE datname = 'leoflow_side_01234567'");
    // These statements are accepted, but the restore resets the settings of the database and the stored rollback SQL.
    let mut odd = honest.clone();
    let mut dump = odd.dump();
    let settings = "DO $$ BEGIN UPDATE public.leoflow_ledger SET rollback_sql = 'DROP TABLE variable'; EXECUTE format('ALTER DATABASE %I CONNECTION LIMIT 20', current_database()); EXECUTE format('ALTER DATABASE %I IS_TEMPLATE true', current_database()); EXECUTE format('GRANT ALL ON DATABASE %I TO PUBLIC', current_database()); EXECUTE format('ALTER DATABASE %I SET search_path = evil', current_database()); EXECUTE format('ALTER ROLE %I SET work_mem = 64', current_user); END $$; ";
    replace_in_dump(&mut dump, "ALTER TABLE ONLY public.xcom\n", |sql| format!("{settings}{sql}"));
    odd.set_dump(&dump);
    odd.save(&file);
    test.restore(&file, &["--force", "--yes"]).expect(0);
    assert_eq!(test.sql("SELECT count(*) FROM leoflow_ledger WHERE rollback_sql = 'DROP TABLE variable'"), "0");
    assert!(!test.restore_leftovers().contains(&"leoflow_side_01234567".to_owned()));
    assert_eq!(test.sql("SELECT count(*) FROM pg_db_role_setting"), "0");
    let properties = "SELECT datconnlimit, datistemplate, has_database_privilege('pg_monitor', 'leoflow', 'CREATE') FROM pg_database WHERE datname = 'leoflow'";
    assert_eq!(test.sql(properties), "-1|f|f");
    assert_eq!(test.sql("SELECT pg_get_userbyid(datdba) FROM pg_database WHERE datname = 'leoflow'"), "leoflow");
    assert_eq!(test.sql("SELECT count(*) FROM pg_class WHERE relnamespace = 'public'::regnamespace AND pg_get_userbyid(relowner) <> 'leoflow'"), "0");
    assert_eq!(test.state(), "healthy");
}

#[test]
fn a_dump_that_fills_the_disk_is_stopped() {
    let (test, honest) = instance_and_backup();
    let file = test.folder().join("hostile.tar.zst");
    let mut hostile = honest.clone();
    let mut dump = hostile.dump();
    // A series in the list of columns is produced row by row; after FROM, it would be written to the disk first.
    let fill = "CREATE TABLE public.filler AS SELECT repeat('x', 1000) AS t, generate_series(1, 100000000) AS n; ";
    replace_in_dump(&mut dump, "ALTER TABLE ONLY public.xcom\n", |sql| format!("{fill}{sql}"));
    hostile.set_dump(&dump);
    hostile.save(&file);
    let error = assert_refused(&test, &file, "a filler");
    assert!(error.contains("grows beyond"), "{error}");
    wait_until("the restore's backends have ended", Duration::from_secs(10), || {
        test.sql("SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%filler%' AND pid <> pg_backend_pid()") == "0"
    });
    // Verification stops the test restore of the same backup too, and removes its database.
    test.run(&["lite", "backups", "verify", file.to_str().unwrap()]).expect(1);
    assert_untouched(&test, "the verification of a filler");
    // A statement that never ends is stopped after LEOFLOW_LOAD_LIMIT seconds.
    let mut dump = hostile.dump();
    replace_in_dump(&mut dump, fill, |sql| sql.replacen(fill, "SELECT pg_sleep(86400); ", 1));
    hostile.set_dump(&dump);
    hostile.save(&file);
    let mut restore = test.command(&["lite", "restore", "--force", "--yes", "--input", file.to_str().unwrap()]);
    let output = restore.env("LEOFLOW_LOAD_LIMIT", "1").output().unwrap();
    let error = String::from_utf8(output.stderr).unwrap();
    assert!(!output.status.success() && error.contains("did not end within"), "{error}");
    assert_untouched(&test, "an endless statement");
}

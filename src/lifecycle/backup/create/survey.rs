//! Inventory of a database: our tables, plain tables of the user, and other objects. Backups include the first two;
//! restores accept nothing else.

use leoflow_postgres::identifier::quoted;
use leoflow_postgres::schema::tables;
use leoflow_postgres::{Access, PgError};
use std::collections::{BTreeMap, BTreeSet};
use tokio_postgres::{GenericClient, Row};

/// The inventory of a database.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Survey {
    pub ours: Vec<String>,
    /// The user's tables and sequences that depend on no other user objects.
    pub user_relations: Vec<Relation>,
    /// Other objects, with the reason why they cannot be backed up.
    pub others: Vec<(String, String)>,
    /// The user's changes to our tables, such as triggers and rules.
    pub changes: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Relation {
    pub name: String,
    pub is_table: bool,
}

impl Survey {
    /// Tables that a backup contains, ours first.
    pub fn tables(&self) -> impl Iterator<Item = &str> {
        let user_relations =
            self.user_relations.iter().filter(|relation| relation.is_table).map(|relation| relation.name.as_str());
        self.ours.iter().map(String::as_str).chain(user_relations)
    }

    /// Patterns for `pg_dump --table` that match exactly these relations.
    pub fn patterns(&self) -> Vec<String> {
        let user_relations = self.user_relations.iter().map(|relation| relation.name.as_str());
        self.ours.iter().map(String::as_str).chain(user_relations).map(pattern).collect()
    }
}

/// Pattern for `pg_dump` that matches one table only.
pub fn pattern(name: &str) -> String {
    format!("public.{}", quoted(name))
}

/// Relations outside the system schemas and extensions. `refers_to` lists the tables that foreign keys reference, and
/// for a sequence the table that owns it. `uses_user_objects` is true if the relation needs a function, type or similar
/// object that a user created; PostgreSQL's own objects have ids below 16384.
const RELATIONS: &str = "
    SELECT n.nspname::text, c.relname::text, c.relkind::text,
           c.relpersistence = 'p' AND NOT c.relrowsecurity AND NOT c.relhasrules AND NOT c.relispartition
             AND c.reloftype = 0
             AND NOT EXISTS (SELECT FROM pg_catalog.pg_inherits i WHERE c.oid IN (i.inhrelid, i.inhparent))
             AND NOT EXISTS (SELECT FROM pg_catalog.pg_policy p WHERE p.polrelid = c.oid) AS plain,
           ARRAY(SELECT t.tgname::text FROM pg_catalog.pg_trigger t
                 WHERE t.tgrelid = c.oid AND NOT t.tgisinternal) AS triggers,
           ARRAY(SELECT CASE WHEN m.nspname = 'public' THEN o.relname::text ELSE m.nspname || '.' || o.relname END
                 FROM pg_catalog.pg_class o JOIN pg_catalog.pg_namespace m ON m.oid = o.relnamespace
                 WHERE o.oid IN (SELECT k.confrelid FROM pg_catalog.pg_constraint k
                                 WHERE k.conrelid = c.oid AND k.contype = 'f')
                    OR (c.relkind = 'S' AND o.oid IN (
                          SELECT d.refobjid FROM pg_catalog.pg_depend d
                          WHERE d.objid = c.oid AND d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass
                            AND d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass
                            AND d.deptype IN ('a', 'i')))) AS refers_to,
           EXISTS (SELECT FROM pg_catalog.pg_depend d
                   WHERE d.refobjid >= 16384
                     AND d.refclassid IN ('pg_catalog.pg_proc'::pg_catalog.regclass, 'pg_catalog.pg_type'::pg_catalog.regclass,
                                          'pg_catalog.pg_operator'::pg_catalog.regclass, 'pg_catalog.pg_opclass'::pg_catalog.regclass,
                                          'pg_catalog.pg_opfamily'::pg_catalog.regclass, 'pg_catalog.pg_collation'::pg_catalog.regclass,
                                          'pg_catalog.pg_ts_config'::pg_catalog.regclass, 'pg_catalog.pg_extension'::pg_catalog.regclass)
                     AND ((d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass
                           AND (d.objid = c.oid OR d.objid IN (SELECT i.indexrelid FROM pg_catalog.pg_index i WHERE i.indrelid = c.oid)))
                       OR (d.classid = 'pg_catalog.pg_attrdef'::pg_catalog.regclass
                           AND d.objid IN (SELECT a.oid FROM pg_catalog.pg_attrdef a WHERE a.adrelid = c.oid))
                       OR (d.classid = 'pg_catalog.pg_constraint'::pg_catalog.regclass
                           AND d.objid IN (SELECT k.oid FROM pg_catalog.pg_constraint k WHERE k.conrelid = c.oid)))) AS uses_user_objects
    FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
    WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f', 'S')
      AND n.nspname NOT IN ('pg_catalog', 'information_schema') AND n.nspname NOT LIKE 'pg\\_%'
      AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend d WHERE d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass
                      AND d.objid = c.oid AND d.deptype = 'e')
    ORDER BY c.relkind = 'S', c.relname";

/// All other objects that a user can create in a database. PostgreSQL's own objects have ids below 16384. Parts of a
/// table, such as its row type, are not listed.
const OTHER_OBJECTS: &str = "
    SELECT 'function ' || oid::pg_catalog.regprocedure::text FROM pg_catalog.pg_proc WHERE oid >= 16384
    UNION ALL SELECT 'large object ' || oid::text FROM pg_catalog.pg_largeobject_metadata
    UNION ALL SELECT 'extension ' || extname::text FROM pg_catalog.pg_extension WHERE oid >= 16384
    UNION ALL SELECT 'schema ' || nspname::text FROM pg_catalog.pg_namespace
      WHERE oid >= 16384 AND nspname NOT LIKE 'pg\\_temp\\_%' AND nspname NOT LIKE 'pg\\_toast\\_temp\\_%'
    UNION ALL SELECT 'type ' || oid::pg_catalog.regtype::text FROM pg_catalog.pg_type t
      WHERE oid >= 16384 AND typelem = 0
        AND (typrelid = 0 OR (SELECT relkind FROM pg_catalog.pg_class c WHERE c.oid = t.typrelid) = 'c')
    UNION ALL SELECT 'operator ' || oid::pg_catalog.regoperator::text FROM pg_catalog.pg_operator WHERE oid >= 16384
    UNION ALL SELECT 'operator class ' || opcname::text FROM pg_catalog.pg_opclass WHERE oid >= 16384
    UNION ALL SELECT 'operator family ' || opfname::text FROM pg_catalog.pg_opfamily WHERE oid >= 16384
    UNION ALL SELECT 'cast ' || oid::text FROM pg_catalog.pg_cast WHERE oid >= 16384
    UNION ALL SELECT 'collation ' || collname::text FROM pg_catalog.pg_collation WHERE oid >= 16384
    UNION ALL SELECT 'conversion ' || conname::text FROM pg_catalog.pg_conversion WHERE oid >= 16384
    UNION ALL SELECT 'text search configuration ' || cfgname::text FROM pg_catalog.pg_ts_config WHERE oid >= 16384
    UNION ALL SELECT 'text search dictionary ' || dictname::text FROM pg_catalog.pg_ts_dict WHERE oid >= 16384
    UNION ALL SELECT 'text search parser ' || prsname::text FROM pg_catalog.pg_ts_parser WHERE oid >= 16384
    UNION ALL SELECT 'text search template ' || tmplname::text FROM pg_catalog.pg_ts_template WHERE oid >= 16384
    UNION ALL SELECT 'statistics ' || stxname::text FROM pg_catalog.pg_statistic_ext WHERE oid >= 16384
    UNION ALL SELECT 'event trigger ' || evtname::text FROM pg_catalog.pg_event_trigger
    UNION ALL SELECT 'publication ' || pubname::text FROM pg_catalog.pg_publication
    UNION ALL SELECT 'foreign data wrapper ' || fdwname::text FROM pg_catalog.pg_foreign_data_wrapper
    UNION ALL SELECT 'language ' || lanname::text FROM pg_catalog.pg_language WHERE oid >= 16384
    UNION ALL SELECT 'access method ' || amname::text FROM pg_catalog.pg_am WHERE oid >= 16384
    LIMIT 1000";

/// Which tables in `public` belong to Leoflow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tables {
    /// Tables of the known migrations are ours, the others the user's.
    Known,
    /// All tables are ours: a newer release may have created unknown ones.
    All,
}

/// Takes the inventory. Changes nothing.
pub(crate) async fn survey(client: &impl GenericClient, scope: Tables) -> Result<Survey, PgError> {
    let mut ours = tables::tables();
    if scope == Tables::All {
        let query = "SELECT tablename::text FROM pg_catalog.pg_tables WHERE schemaname = 'public'";
        ours.extend(client.query(query, &[]).await?.iter().map(|row| row.get::<_, String>(0)));
    }
    let mut survey = Survey::default();
    let mut candidates: BTreeMap<String, Candidate> = BTreeMap::new();
    for row in client.query(RELATIONS, &[]).await? {
        let candidate = Candidate::from(&row);
        if candidate.schema == "public" && ours.contains(&candidate.name) && candidate.kind == "r" {
            survey.changes.extend(candidate.changes());
            survey.ours.push(candidate.name);
        } else if candidate.kind == "S" && candidate.refers_to.iter().any(|table| ours.contains(table)) {
            // pg_dump dumps the sequence with the table that owns it.
        } else if let Some(reason) = candidate.obstacle(&ours) {
            survey.others.push((candidate.full_name(), reason));
        } else {
            candidates.insert(candidate.name.clone(), candidate);
        }
    }
    // A table that refers to an omitted table must be omitted too.
    while let Some(name) =
        candidates.values().find(|candidate| !candidate.targets_are_in(&candidates)).map(|c| c.name.clone())
    {
        candidates.remove(&name);
        survey.others.push((name, "it refers to a table that cannot be backed up".to_owned()));
    }
    survey.user_relations = candidates
        .into_values()
        .map(|candidate| Relation { is_table: candidate.kind == "r", name: candidate.name })
        .collect();
    for row in client.query(OTHER_OBJECTS, &[]).await? {
        survey.others.push((row.get(0), "it is not part of Leoflow".to_owned()));
    }
    Ok(survey)
}

/// Describes the present objects and privileges that a restore would lose, for its plan. A restore on an external
/// server keeps the user's objects.
pub(crate) async fn not_restored(client: &impl GenericClient, access: &Access) -> Result<Vec<String>, PgError> {
    let survey = survey(client, Tables::Known).await?;
    let others = survey.others.into_iter().filter(|_| access.owns_server());
    let mut names: Vec<String> = others.map(|(name, reason)| format!("{name} ({reason})")).collect();
    names.extend(survey.changes);
    for row in client.query(GRANTS, &[]).await? {
        names.push(row.get(0));
    }
    Ok(names)
}

/// Privileges of roles other than the owner on relations in `public`.
const GRANTS: &str = "
    SELECT 'rights of ' || CASE g.grantee WHEN 0 THEN 'everybody' ELSE g.grantee::pg_catalog.regrole::text END
           || ' on ' || pg_catalog.string_agg(DISTINCT c.relname::text, ', ')
    FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace,
         LATERAL pg_catalog.aclexplode(c.relacl) g
    WHERE n.nspname = 'public' AND c.relkind IN ('r', 'v', 'm', 'S') AND g.grantee <> c.relowner
    GROUP BY g.grantee ORDER BY 1";

/// A row of `RELATIONS`.
struct Candidate {
    schema: String,
    name: String,
    /// `pg_class.relkind`.
    kind: String,
    /// True for a permanent relation without row security, rules, policies, partitions or inheritance.
    plain: bool,
    triggers: Vec<String>,
    refers_to: Vec<String>,
    uses_user_objects: bool,
}

impl From<&Row> for Candidate {
    fn from(row: &Row) -> Self {
        Self {
            schema: row.get(0),
            name: row.get(1),
            kind: row.get(2),
            plain: row.get(3),
            triggers: row.get(4),
            refers_to: row.get(5),
            uses_user_objects: row.get(6),
        }
    }
}

impl Candidate {
    fn full_name(&self) -> String {
        if self.schema == "public" { self.name.clone() } else { format!("{}.{}", self.schema, self.name) }
    }

    /// Describes changes to one of our tables.
    fn changes(&self) -> Vec<String> {
        let mut changes: Vec<String> =
            self.triggers.iter().map(|name| format!("trigger {name} on {}", self.name)).collect();
        if !self.plain {
            changes.push(format!("rules, policies or inheritance on {}", self.name));
        }
        changes
    }

    /// Reason why the relation cannot be backed up; `None` if it can.
    fn obstacle(&self, ours: &BTreeSet<String>) -> Option<String> {
        let reason = match self.kind.as_str() {
            _ if self.schema != "public" => "it is in another schema",
            "v" | "m" => "it is a view",
            "p" => "it is partitioned",
            "f" => "it is a foreign table",
            "r" if !self.plain || !self.triggers.is_empty() => "it has triggers, rules, policies or inheritance",
            _ if self.uses_user_objects => "it needs a function or a type of your own",
            _ if self.refers_to.iter().any(|table| ours.contains(table)) => "it refers to one of Leoflow's tables",
            _ => return None,
        };
        Some(reason.to_owned())
    }

    fn targets_are_in(&self, candidates: &BTreeMap<String, Self>) -> bool {
        self.refers_to.iter().all(|table| candidates.contains_key(table))
    }
}

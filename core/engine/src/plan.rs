//! What a migration would do, and which locks its statements take: read from their text, since taking the locks to find out would be what
//! the reader wants to know beforehand.

use std::collections::BTreeSet;

use sqlx::Row as _;
use tasker_model::Result;

use crate::{Engine, to_error};

/// One statement that [`Engine::migrate`] would run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Planned {
    /// What it belongs to, such as `migration 0002 add limits`.
    pub part: String,
    /// Its text; a description where the text is long and changes no table.
    pub sql: String,
    /// The locks it takes on tables that are there already, such as `ACCESS EXCLUSIVE on tasker.task`, until its part commits.
    pub locks: Vec<String>,
}

impl Planned {
    /// Reads the statements of a text. `own` holds the tables that the plan makes, whose locks nobody waits for; those of the text join it.
    pub fn read(part: &str, sql: &str, own: &mut BTreeSet<String>) -> Vec<Self> {
        statements(sql).into_iter().map(|sql| Self { part: part.to_owned(), locks: locks(&sql, own), sql }).collect()
    }
}

impl Engine {
    /// Says what [`Engine::migrate`] would run now. Changes nothing and takes no lock.
    pub async fn migration_plan(&self) -> Result<Vec<Planned>> {
        let installation = self.installation().await?;
        if installation.is_current() {
            return Ok(Vec::new());
        }
        let has_pgmq: bool = sqlx::query("select to_regclass('pgmq.meta') is not null as found")
            .fetch_one(self.single())
            .await
            .and_then(|row| row.try_get("found"))
            .map_err(|error| to_error("planning the migration", error))?;
        let described = |part: &str, sql: String, locks: Vec<String>| Planned { part: part.to_owned(), sql, locks };
        let mut plan = Vec::new();
        if !has_pgmq {
            plan.push(described(
                "PGMQ",
                "-- PGMQ: its extension where the server has it, else its SQL".to_owned(),
                vec![],
            ));
        }
        let schema = self.schema();
        if installation.applied.is_empty() {
            plan.push(described("schema", schema.fill("create schema if not exists {schema}"), vec![]));
        }
        let mut own = BTreeSet::new();
        for (version, name, sql) in Self::migrations(schema) {
            if !installation.pending.iter().any(|(pending, _)| *pending == version) {
                continue;
            }
            plan.extend(Planned::read(&format!("migration {version:04} {name}"), &sql, &mut own));
        }
        if !installation.functions_current {
            let sql = "-- the functions, as `tasker db sql` writes them, and those of each queue".to_owned();
            plan.push(described("functions", sql, vec![]));
        }
        let sql = schema.fill("select {schema}.make_partitions(8)");
        let event = format!("SHARE UPDATE EXCLUSIVE on {schema}.event, for each partition that is missing");
        let is_new = own.contains(&format!("{schema}.event"));
        plan.push(described("partitions", sql, if is_new { vec![] } else { vec![event] }));
        Ok(plan)
    }
}

/// Splits a text at the semicolons that end statements; comments are left out.
fn statements(sql: &str) -> Vec<String> {
    let mut all = Vec::new();
    let mut one = String::new();
    let mut rest = sql;
    while let Some(next) = rest.chars().next() {
        let taken = if rest.starts_with("--") {
            rest = rest.split_once('\n').map_or("", |(_, after)| after);
            continue;
        } else if next == '$' {
            quoted_by_dollars(rest)
        } else if next == '\'' || next == '"' {
            rest[1..].find(next).map_or(rest.len(), |end| end + 2)
        } else {
            next.len_utf8()
        };
        if next == ';' {
            all.push(std::mem::take(&mut one));
        } else {
            one.push_str(&rest[..taken]);
        }
        rest = &rest[taken..];
    }
    all.push(one);
    all.into_iter().map(|one| one.trim().to_owned()).filter(|one| !one.is_empty()).collect()
}

/// Answers the length of a text between dollar quotes with them; 1 where there are none.
fn quoted_by_dollars(text: &str) -> usize {
    let Some(tag_end) = text[1..].find('$').map(|at| at + 2) else { return 1 };
    let tag = &text[..tag_end];
    if tag[1..tag_end - 1].chars().any(|c| !c.is_ascii_alphanumeric() && c != '_') {
        return 1;
    }
    text[tag_end..].find(tag).map_or(text.len(), |at| tag_end + at + tag.len())
}

/// The locks of one statement on tables that `own` does not hold; tables that it makes are put there.
fn locks(statement: &str, own: &mut BTreeSet<String>) -> Vec<String> {
    let text = statement.to_lowercase();
    if text.starts_with("do ") {
        let body = text.split("$$").nth(1).unwrap_or_default();
        let inner = statements(body);
        let mut found: Vec<String> = inner
            .iter()
            .filter_map(|one| one.find("alter table").map(|at| &one[at..]))
            .flat_map(|one| locks(one, own))
            .collect();
        found.dedup();
        return found;
    }
    let words: Vec<&str> =
        text.split(|c: char| c.is_whitespace() || c == '(' || c == ',').filter(|w| !w.is_empty()).collect();
    let after = |word: &str| {
        let at = words.iter().position(|w| *w == word)?;
        words[at + 1..]
            .iter()
            .find(|w| !["if", "not", "exists", "only", "concurrently"].contains(w))
            .map(|name| plain(name))
    };
    let mut found = Vec::new();
    let mut lock = |mode: &str, table: Option<String>| {
        if let Some(table) = table.filter(|table| !own.contains(table)) {
            found.push(format!("{mode} on {table}"));
        }
    };
    let first = |n: usize| words.get(n).copied().unwrap_or_default();
    match (first(0), first(1)) {
        ("create", "table" | "unlogged") => {
            lock("ACCESS EXCLUSIVE", text.contains("partition of").then(|| after("of")).flatten());
            lock("SHARE ROW EXCLUSIVE", after("references"));
            own.extend(after("table"));
        }
        ("create", "index" | "unique") if text.contains("concurrently") => lock("SHARE UPDATE EXCLUSIVE", after("on")),
        ("create", "index" | "unique") => lock("SHARE", after("on")),
        ("create", "trigger") => lock("SHARE ROW EXCLUSIVE", after("on")),
        ("alter", "table") => {
            let is_light = ["validate constraint", "attach partition", "set statistics", " set ("]
                .iter()
                .any(|m| text.contains(m));
            let strength = if text.contains("foreign key") {
                lock("SHARE ROW EXCLUSIVE", after("references"));
                "SHARE ROW EXCLUSIVE"
            } else if is_light {
                "SHARE UPDATE EXCLUSIVE"
            } else {
                "ACCESS EXCLUSIVE"
            };
            lock(strength, after("table"));
        }
        ("drop", "table") => lock("ACCESS EXCLUSIVE", after("table")),
        ("drop", "index") => found.push("ACCESS EXCLUSIVE on the table of that index".to_owned()),
        ("insert", _) => lock("ROW EXCLUSIVE", after("into")),
        ("delete", _) => lock("ROW EXCLUSIVE", after("from")),
        ("update", _) => lock("ROW EXCLUSIVE", after("update")),
        ("truncate", _) => lock("ACCESS EXCLUSIVE", after("truncate")),
        _ => {}
    }
    found
}

fn plain(name: &str) -> String {
    name.trim_matches([';', ')']).replace('"', "")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statements_end_at_semicolons_outside_of_quotes() {
        let sql = "-- a; b\nselect ';' as \"x;y\";\ndo $$ begin; end $$;\nselect $1 where a = $2; create function f() as $f$ a; $$ b; $$ $f$";
        assert_eq!(
            statements(sql),
            [
                "select ';' as \"x;y\"",
                "do $$ begin; end $$",
                "select $1 where a = $2",
                "create function f() as $f$ a; $$ b; $$ $f$"
            ]
        );
    }
}

//! The name of the database schema, and the filling of SQL texts with it.

use std::fmt::{self, Write as _};

use sha2::{Digest, Sha256};
use tasker_model::state::{StepState, TaskState};
use tasker_model::{Error, ErrorKind, Result};

/// The database schema that holds one Tasker; `tasker` unless configured.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Schema {
    name: String,
    has_wait_points: bool,
}

/// The settings under which the hot functions run: their plans are generic and by index, whatever the statistics say.
const HOT: &str = "set plan_cache_mode = force_generic_plan set enable_seqscan = off set enable_hashjoin = off \
                   set enable_mergejoin = off set jit = off set search_path = pg_catalog, pg_temp";

impl Schema {
    /// Checks a schema's name: an ordinary lower-case identifier of at most 48 characters that PostgreSQL does not reserve.
    pub fn new(name: &str) -> Result<Self> {
        let fits = (1..=48).contains(&name.len())
            && name.starts_with(|c: char| c.is_ascii_lowercase())
            && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_');
        if fits && !name.starts_with("pg_") && name != "pgmq" {
            Ok(Self { name: name.to_owned(), has_wait_points: false })
        } else {
            Err(Error::new(
                ErrorKind::Invalid,
                format!(
                    "`{name}` cannot be the schema's name; use lower-case letters, digits and _, not pg_... or pgmq"
                ),
            ))
        }
    }

    /// Makes the functions wait at named points while a session holds the point's advisory lock, so that a test can end a backend
    /// exactly there. For the fault tests; the functions differ from the ordinary ones, so every process on the database must say it.
    pub fn with_wait_points(mut self) -> Self {
        self.has_wait_points = true;
        self
    }

    /// Returns the name.
    pub fn as_str(&self) -> &str {
        &self.name
    }

    /// Returns the start of the names of this schema's PGMQ queues: PGMQ has one schema for all of them, so that two Taskers in one
    /// database must not share names.
    pub fn queue_prefix(&self) -> String {
        if self.name == "tasker" {
            return "tq".to_owned();
        }
        let digest = Sha256::digest(self.name.as_bytes());
        format!("tq{:02x}{:02x}{:02x}_", digest[0], digest[1], digest[2])
    }

    /// Returns the channel on which workers of a queue are woken.
    pub fn queue_channel(&self, queue_id: i32) -> String {
        format!("{}_q{queue_id}", self.name)
    }

    /// Returns the channel of cancellations and of news about queues.
    pub fn control_channel(&self) -> String {
        format!("{}_control", self.name)
    }

    /// Fills the placeholders of a SQL text: `{schema}`, `{schema_text}` (inside a literal), `{queue_prefix}`, `{hot}`, the guards
    /// `{step_before:STATE}` and `{task_before:STATE}`: the states that the engine itself may leave for STATE, from the one table in
    /// `tasker_model::state`, and `{wait:POINT}`, a statement of its own that is nothing unless there are wait points.
    pub fn fill(&self, sql: &str) -> String {
        let mut text = fill_wait_points(sql, self.has_wait_points)
            .replace("{schema}", &format!("\"{}\"", self.name))
            .replace("{schema_text}", &self.name)
            .replace("{queue_prefix}", &self.queue_prefix())
            .replace("{hot}", HOT);
        for state in StepState::ALL {
            text = text.replace(&format!("{{step_before:{state}}}"), &literals(&StepState::sources_of(*state)));
        }
        for state in TaskState::ALL {
            text = text.replace(&format!("{{task_before:{state}}}"), &literals(&TaskState::sources_of(*state)));
        }
        text
    }
}

impl Default for Schema {
    fn default() -> Self {
        Self { name: "tasker".to_owned(), has_wait_points: false }
    }
}

impl fmt::Display for Schema {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

fn literals<S: fmt::Display>(states: &[S]) -> String {
    states.iter().map(|state| format!("'{state}'")).collect::<Vec<_>>().join(", ")
}

/// A backend waits at a point while another session holds its lock; without that it passes, at the price of a lock.
fn fill_wait_points(sql: &str, is_on: bool) -> String {
    let mut text = String::with_capacity(sql.len());
    let mut rest = sql;
    while let Some((before, marker)) = rest.split_once("{wait:") {
        let (point, after) = marker.split_once('}').unwrap_or((marker, ""));
        text.push_str(before);
        if is_on {
            let key = format!("hashtextextended('{{schema_text}}.wait.{point}', 0)");
            let _ = write!(text, "perform pg_advisory_xact_lock_shared({key});");
        }
        rest = after;
    }
    text.push_str(rest);
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_schema_is_an_ordinary_identifier() {
        for good in ["tasker", "t", "tasker_2"] {
            assert!(Schema::new(good).is_ok(), "{good}");
        }
        for bad in ["", "Tasker", "2tasker", "pg_tasker", "pgmq", "ta\"sker", "ta sker", &"t".repeat(49)] {
            assert!(Schema::new(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn guards_come_from_the_table_of_transitions() {
        let filled =
            Schema::default().fill("{step_before:done} | {task_before:complete} | {schema}.x | {schema_text}_q");
        assert_eq!(filled, "'ready' | 'running' | \"tasker\".x | tasker_q");
    }

    #[test]
    fn wait_points_are_nothing_unless_asked_for() {
        let sql = "begin\n  {wait:middle}\nend";
        assert_eq!(Schema::default().fill(sql), "begin\n  \nend");
        assert_eq!(
            Schema::default().with_wait_points().fill(sql),
            "begin\n  perform pg_advisory_xact_lock_shared(hashtextextended('tasker.wait.middle', 0));\nend"
        );
    }

    #[test]
    fn two_schemas_have_different_queues() {
        let other = Schema::new("other").expect("a good name");
        assert_ne!(other.queue_prefix(), Schema::default().queue_prefix());
        assert!(format!("{}2147483647_3", other.queue_prefix()).len() <= 47);
    }
}

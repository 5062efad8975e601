//! Which release installed the schema, and which older programs it still serves.
//!
//! While a new release rolls out, old workers and the new schema meet. The functions keep what the release before them called, and tables
//! only grow, so an old program goes on; it never puts its own functions over newer ones. A program that is newer than the schema says
//! that it must be migrated.

use sqlx::{AssertSqlSafe, PgConnection};
use tasker_model::{Error, ErrorKind, Result};

use crate::{Engine, Schema, to_error};

/// The oldest release whose programs work with the tables and functions of this one.
const SERVES: &str = "0.1.0";

/// What the schema says of the program that installed it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Installed {
    release: String,
    serves: String,
}

/// How a schema's release stands to this program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Standing {
    /// Of this release, an older one, or none that is known: this program may bring it up to date.
    Ours,
    /// Of a newer release that still serves this program: leave it as it is.
    Serves,
    /// Of a newer release that does not.
    TooNew,
}

impl Installed {
    /// Reads it; none where the schema was installed before releases were recorded, or not at all.
    pub(crate) async fn read(engine: &Engine, conn: &mut PgConnection) -> Result<Option<Self>> {
        let doing = "reading the schema's release";
        let exists: bool = sqlx::query_scalar("select to_regclass($1) is not null")
            .bind(format!("\"{}\".setting", engine.schema()))
            .fetch_one(engine.on(conn))
            .await
            .map_err(|e| to_error(doing, e))?;
        if !exists {
            return Ok(None);
        }
        let found: Option<(String, String)> = sqlx::query_as(engine.statement(
            "select r.value, s.value from {schema}.setting r join {schema}.setting s on s.key = 'serves' where r.key = 'release'",
        ))
        .fetch_optional(engine.on(conn))
        .await
        .map_err(|e| to_error(doing, e))?;
        Ok(found.map(|(release, serves)| Self { release, serves }))
    }

    /// Records this program's release.
    pub(crate) async fn write(schema: &Schema, conn: &mut PgConnection) -> Result<()> {
        sqlx::query(AssertSqlSafe(schema.fill(
            "insert into {schema}.setting (key, value) values ('release', $1), ('serves', $2) \
             on conflict (key) do update set value = excluded.value where setting.value <> excluded.value",
        )))
        .bind(env!("CARGO_PKG_VERSION"))
        .bind(SERVES)
        .execute(conn)
        .await
        .map_err(|e| to_error("recording the schema's release", e))
        .map(drop)
    }

    pub(crate) fn standing(&self) -> Standing {
        self.standing_to(env!("CARGO_PKG_VERSION"))
    }

    fn standing_to(&self, program: &str) -> Standing {
        let program = number(program);
        if number(&self.release) <= program {
            Standing::Ours
        } else if number(&self.serves) <= program {
            Standing::Serves
        } else {
            Standing::TooNew
        }
    }

    /// Says that the program must be upgraded.
    pub(crate) fn too_new(&self, schema: &Schema) -> Error {
        Error::new(
            ErrorKind::Conflict,
            format!(
                "schema {schema} is of release {} and serves programs from {} on; this one is {}: upgrade the program",
                self.release,
                self.serves,
                env!("CARGO_PKG_VERSION")
            ),
        )
    }
}

/// A release as numbers; what is no number counts as 0.
fn number(release: &str) -> [u64; 3] {
    let mut parts = release.split(['.', '-', '+']).map(|part| part.parse().unwrap_or(0));
    [(); 3].map(|()| parts.next().unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_newer_schema_serves_the_programs_it_says() {
        let schema = Installed { release: "0.10.0".to_owned(), serves: "0.9.0".to_owned() };
        for (program, standing) in [
            ("0.8.9", Standing::TooNew),
            ("0.9.0", Standing::Serves),
            ("0.9.12", Standing::Serves),
            ("0.10.0", Standing::Ours),
            ("1.0.0-alpha.1", Standing::Ours),
        ] {
            assert_eq!(schema.standing_to(program), standing, "{program}");
        }
    }
}

//! The optional roles: an owner that migrates, workers that call functions and write no table, submitters, readers.

use sqlx::{AssertSqlSafe, PgConnection};
use tasker_model::{Error, ErrorKind, Result};

use crate::{Engine, Schema, to_error};

const GRANTS: &str = include_str!("roles.sql");

impl Engine {
    /// Makes the roles `tasker_owner`, `tasker_worker`, `tasker_submit` and `tasker_read` (for another schema with its name) where they are
    /// missing, and grants each what it needs; answers their names. None of them may log in: grant them to roles that do.
    ///
    /// Idempotent. Fails with `forbidden` where a role is missing and this one may not make roles, or does not own the schema. New queues
    /// are readable to `tasker_worker` and `tasker_read` after a further call.
    pub async fn make_roles(&self) -> Result<Vec<String>> {
        self.check_installed().await?;
        let mut conn = self.open_direct().await?;
        apply(self.schema(), &mut conn).await?;
        Ok(["owner", "worker", "submit", "read"].iter().map(|role| format!("{}_{role}", self.schema())).collect())
    }
}

/// Grants again, if it was ever asked for: functions that were applied anew have lost it.
pub(crate) async fn renew(schema: &Schema, conn: &mut PgConnection) -> Result<()> {
    let sql = AssertSqlSafe(schema.fill("select 1 from {schema}.setting where key = 'roles' and value = 'on'"));
    let has_roles: Option<i32> = sqlx::query_scalar(sql)
        .fetch_optional(&mut *conn)
        .await
        .map_err(|error| to_error("looking for roles", error))?;
    if has_roles.is_some() { apply(schema, conn).await } else { Ok(()) }
}

/// Acts as the schema's owner if that is another role that this one belongs to, and answers it: all objects of a schema have one owner.
pub(crate) async fn become_owner(schema: &Schema, conn: &mut PgConnection) -> Result<Option<String>> {
    let doing = "acting as the schema's owner";
    let owner: Option<String> = sqlx::query_scalar(
        "select pg_get_userbyid(n.nspowner)::text from pg_namespace n
         where n.nspname = $1 and pg_get_userbyid(n.nspowner) <> current_user and pg_has_role(n.nspowner, 'member')
           and not (select r.rolsuper from pg_roles r where r.rolname = current_user)",
    )
    .bind(schema.as_str())
    .fetch_optional(&mut *conn)
    .await
    .map_err(|error| to_error(doing, error))?;
    if let Some(owner) = &owner {
        sqlx::query("select set_config('role', $1, false)")
            .bind(owner)
            .execute(conn)
            .await
            .map_err(|error| to_error(doing, error))?;
    }
    Ok(owner)
}

async fn apply(schema: &Schema, conn: &mut PgConnection) -> Result<()> {
    let made = sqlx::raw_sql(AssertSqlSafe(schema.fill(GRANTS))).execute(conn).await;
    made.map(drop).map_err(|error| {
        let error = to_error("making the roles", error);
        if error.kind != ErrorKind::Forbidden {
            return error;
        }
        let names = ["owner", "worker", "submit", "read"].map(|role| format!("create role {schema}_{role};"));
        Error::new(
            ErrorKind::Forbidden,
            format!("{error}; let a role that may, run: {} Then try again as the schema's owner", names.join(" ")),
        )
    })
}

//! Finding one task by what a person types.

use sqlx::PgConnection;
use tasker_model::{Error, ErrorKind, Result, TaskId};
use uuid::Uuid;

use super::tasks::no_task;
use crate::{Engine, to_error};

/// How many candidates an ambiguous name is answered with.
const SHOWN: usize = 5;
/// Ids begin with their time: a shorter start names everything of an hour or more.
const SHORTEST_START: usize = 4;

impl Engine {
    /// Finds a task by its id, a unique start of its id, its key, or `@last`, the newest one.
    ///
    /// Fails with `not_found`, or with `invalid` and the candidates where several tasks are meant.
    pub async fn find_task(&self, text: &str) -> Result<TaskId> {
        let mut conn = self.acquire().await?;
        if text == "@last" {
            return self.newest(&mut conn).await;
        }
        if let Ok(id) = text.parse::<TaskId>() {
            return self.existing(&mut conn, id).await;
        }
        let by_key = self.by_key(&mut conn, text).await?;
        let found = if by_key.is_empty() { self.by_start(&mut conn, text).await? } else { by_key };
        match found[..] {
            [one] => self.existing(&mut conn, one).await,
            [] => Err(Error::new(
                ErrorKind::NotFound,
                format!("no task has the id, start of an id or key `{text}`; see the tasks with: tasker task list"),
            )),
            _ => {
                let mut shown: Vec<String> = found.iter().take(SHOWN).map(TaskId::to_string).collect();
                if found.len() > SHOWN {
                    shown.push("and others".to_owned());
                }
                Err(Error::new(
                    ErrorKind::Invalid,
                    format!("`{text}` means several tasks: {}; give more of the id", shown.join(", ")),
                ))
            }
        }
    }

    async fn newest(&self, conn: &mut PgConnection) -> Result<TaskId> {
        let sql = self.statement("select task_id from {schema}.task order by task_id desc limit 1");
        let found: Option<Uuid> = sqlx::query_scalar(sql)
            .fetch_optional(self.on(conn))
            .await
            .map_err(|error| to_error("finding the newest task", error))?;
        found.map(TaskId).ok_or_else(|| {
            Error::new(ErrorKind::NotFound, "there is no task yet; make one with: tasker run WORKFLOW --input FILE")
        })
    }

    async fn existing(&self, conn: &mut PgConnection, id: TaskId) -> Result<TaskId> {
        let sql = self.statement("select exists (select from {schema}.task where task_id = $1)");
        let exists: bool = sqlx::query_scalar(sql)
            .bind(id.0)
            .fetch_one(self.on(conn))
            .await
            .map_err(|error| to_error("finding a task", error))?;
        if exists { Ok(id) } else { Err(no_task(id)) }
    }

    async fn by_key(&self, conn: &mut PgConnection, key: &str) -> Result<Vec<TaskId>> {
        if key.contains('\0') {
            return Ok(Vec::new());
        }
        let sql = self.statement("select task_id from {schema}.task_key where key = $1 order by task_id desc limit 6");
        let found: Vec<Uuid> = sqlx::query_scalar(sql)
            .bind(key)
            .fetch_all(self.on(conn))
            .await
            .map_err(|error| to_error("finding a task by its key", error))?;
        Ok(found.into_iter().map(TaskId).collect())
    }

    async fn by_start(&self, conn: &mut PgConnection, start: &str) -> Result<Vec<TaskId>> {
        let Some((from, to)) = id_range(start) else {
            return Ok(Vec::new());
        };
        let sql = self.statement(
            "select task_id from {schema}.task where task_id between $1 and $2 order by task_id desc limit 6",
        );
        let found: Vec<Uuid> = sqlx::query_scalar(sql)
            .bind(from)
            .bind(to)
            .fetch_all(self.on(conn))
            .await
            .map_err(|error| to_error("finding a task by the start of its id", error))?;
        Ok(found.into_iter().map(TaskId).collect())
    }
}

/// The first and last id that start with this text; none if no id does.
pub(super) fn id_range(start: &str) -> Option<(Uuid, Uuid)> {
    const HYPHENS: [usize; 4] = [8, 13, 18, 23];
    let mut digits = String::with_capacity(32);
    for (at, c) in start.chars().enumerate() {
        if HYPHENS.contains(&at) && c == '-' {
            continue;
        }
        if !c.is_ascii_hexdigit() {
            return None;
        }
        digits.push(c);
    }
    if !(SHORTEST_START..=32).contains(&digits.len()) {
        return None;
    }
    let from = Uuid::try_parse(&format!("{digits:0<32}")).ok()?;
    let to = Uuid::try_parse(&format!("{digits:f<32}")).ok()?;
    Some((from, to))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_start_of_an_id_is_a_range() {
        let (from, to) = id_range("0199a3c2-7d").expect("hexadecimal");
        assert_eq!(from.to_string(), "0199a3c2-7d00-0000-0000-000000000000");
        assert_eq!(to.to_string(), "0199a3c2-7dff-ffff-ffff-ffffffffffff");
        assert_eq!(id_range("0199a3c27d"), Some((from, to)));
        for none in ["019", "order-4711", "0199-a3c2", "0199a3c2-7d1e-7c44-9f5b-2f8d4be1a0c30", "", "é199"] {
            assert_eq!(id_range(none), None, "{none}");
        }
    }
}

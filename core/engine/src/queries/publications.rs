//! What was published for the application, to whom it was delivered, and the subscriptions.

use chrono::{DateTime, Utc};
use serde::Serialize;
use sqlx::Row;
use sqlx::postgres::PgRow;
use tasker_model::{Error, ErrorKind, Payload, Result, TaskId};
use uuid::Uuid;

use super::find::id_range;
use crate::hot::payload;
use crate::subscriptions::{SubscriptionKind, event_pattern};
use crate::{Engine, to_error};

/// Which publications to list. Everything given must hold.
#[derive(Debug, Clone, Default)]
pub struct PublicationFilter {
    /// Of this event: `namespace.name`, or a name in the namespace `default`.
    pub event: Option<String>,
    /// Of this task.
    pub task: Option<TaskId>,
    /// With a delivery that was given up.
    pub dead: bool,
    /// How many at most: 1 to 1,000; 50 where it is 0.
    pub limit: u32,
}

/// One publication in a list.
#[derive(Debug, Clone, Serialize)]
pub struct PublicationRow {
    /// Its id.
    pub publication_id: Uuid,
    /// When.
    pub at: DateTime<Utc>,
    /// The event, `namespace.name`.
    pub event: String,
    /// The workflow, `namespace.name`.
    pub workflow: String,
    /// The task.
    pub task_id: TaskId,
    /// The step; none for an event of the task itself.
    pub step: Option<String>,
    /// How many subscriptions got it.
    pub delivered: i64,
    /// How many are still to get it.
    pub pending: i64,
    /// How many were given up.
    pub dead: i64,
}

/// One publication with its payload and its deliveries.
#[derive(Debug, Clone, Serialize)]
pub struct PublicationDetail {
    /// What the list shows.
    #[serde(flatten)]
    pub row: PublicationRow,
    /// What is delivered.
    pub payload: Payload,
    /// To whom.
    pub deliveries: Vec<DeliveryRow>,
}

/// One delivery.
#[derive(Debug, Clone, Serialize)]
pub struct DeliveryRow {
    /// Its id.
    pub delivery_id: Uuid,
    /// The subscription.
    pub subscription: String,
    /// `pending`, `done` or `dead`.
    pub state: String,
    /// How often it was tried.
    pub attempts: i32,
    /// When the next attempt may begin; none where there will be none.
    pub due_at: Option<DateTime<Utc>>,
    /// When it was done or given up.
    pub ended_at: Option<DateTime<Utc>>,
    /// What was wrong in the last attempt.
    pub last_error: Option<String>,
}

/// One subscription.
#[derive(Debug, Clone, Serialize)]
pub struct SubscriptionRow {
    /// Its name.
    pub name: String,
    /// The event, `namespace.name` or `*`.
    pub event: String,
    /// How it gets its events.
    pub kind: SubscriptionKind,
    /// The URL or the queue.
    pub target: Option<String>,
    /// Whether its events wait.
    pub paused: bool,
    /// When it was made.
    pub created_at: DateTime<Utc>,
    /// How many deliveries are still to be made.
    pub pending: i64,
    /// How many were given up.
    pub dead: i64,
}

const COLUMNS: &str = "p.publication_id, p.at, p.event, p.workflow, p.task_id, p.step, p.payload::text as payload, \
    d.delivered, d.pending, d.dead";
const COUNTS: &str = "cross join lateral (select count(*) filter (where x.state = 'done') as delivered, \
    count(*) filter (where x.state = 'pending') as pending, count(*) filter (where x.state = 'dead') as dead \
    from {schema}.delivery x join {schema}.subscription b on b.subscription_id = x.subscription_id \
    where x.publication_id = p.publication_id) d";

impl Engine {
    /// Lists publications, newest first.
    pub async fn publications(&self, filter: &PublicationFilter) -> Result<Vec<PublicationRow>> {
        let doing = "listing events";
        let limit = match filter.limit {
            0 => 50,
            limit => limit.min(1_000),
        };
        let event = filter.event.as_deref().map(event_pattern).transpose()?;
        let sql = format!(
            "select {COLUMNS} from {{schema}}.publication p {COUNTS} \
             where ($1::text is null or p.event = $1) and ($2::uuid is null or p.task_id = $2) \
             and (not $3 or p.publication_id in (select y.publication_id from {{schema}}.delivery y where y.state = 'dead')) \
             order by p.seq desc limit $4"
        );
        let rows = sqlx::query(self.statement(&sql))
            .bind(event.filter(|event| event != "*"))
            .bind(filter.task.map(|task| task.0))
            .bind(filter.dead)
            .bind(i64::from(limit))
            .fetch_all(self.single())
            .await
            .map_err(|error| to_error(doing, error))?;
        rows.iter().map(|row| publication(row).map_err(|error| to_error(doing, error))).collect()
    }

    /// Finds a publication by its id, a unique start of it, or `@last`, the newest one. Fails with `not_found`, or with `invalid` where
    /// several are meant.
    pub async fn find_publication(&self, text: &str) -> Result<Uuid> {
        let doing = "finding an event";
        let found: Vec<Uuid> = if text == "@last" {
            let sql = "select publication_id from {schema}.publication order by seq desc limit 1";
            sqlx::query_scalar(self.statement(sql)).fetch_all(self.single()).await
        } else if let Some((from, to)) = id_range(text) {
            let sql = "select publication_id from {schema}.publication where publication_id between $1 and $2 limit 2";
            sqlx::query_scalar(self.statement(sql)).bind(from).bind(to).fetch_all(self.single()).await
        } else {
            Ok(Vec::new())
        }
        .map_err(|error| to_error(doing, error))?;
        match found[..] {
            [one] => Ok(one),
            [] => {
                let message =
                    format!("no published event has the id or start of an id `{text}`; see: tasker event list");
                Err(Error::new(ErrorKind::NotFound, message))
            }
            _ => Err(Error::new(ErrorKind::Invalid, format!("`{text}` means several events; give more of the id"))),
        }
    }

    /// Reads one publication. Fails with `not_found`.
    pub async fn publication(&self, id: Uuid) -> Result<PublicationDetail> {
        let doing = "reading an event";
        let sql = format!("select {COLUMNS} from {{schema}}.publication p {COUNTS} where p.publication_id = $1");
        let mut conn = self.acquire().await?;
        let row = sqlx::query(self.statement(&sql))
            .bind(id)
            .fetch_optional(self.on(&mut conn))
            .await
            .map_err(|error| to_error(doing, error))?;
        let Some(row) = row else {
            let message = format!("there is no event {id}; see: tasker event list");
            return Err(Error::new(ErrorKind::NotFound, message));
        };
        let deliveries = sqlx::query(self.statement(
            "select d.delivery_id, b.name as subscription, d.state, d.attempts, case d.state when 'pending' then d.due_at end as due_at, \
             d.ended_at, d.last_error from {schema}.delivery d join {schema}.subscription b on b.subscription_id = d.subscription_id \
             where d.publication_id = $1 order by b.name",
        ))
        .bind(id)
        .fetch_all(self.on(&mut conn))
        .await
        .map_err(|error| to_error(doing, error))?;
        let read = || {
            Ok(PublicationDetail {
                row: publication(&row)?,
                payload: payload(&row, "payload")?.unwrap_or_default(),
                deliveries: deliveries.iter().map(delivery).collect::<sqlx::Result<_>>()?,
            })
        };
        read().map_err(|error| to_error(doing, error))
    }

    /// Lists the subscriptions by name.
    pub async fn subscriptions(&self) -> Result<Vec<SubscriptionRow>> {
        let doing = "listing the subscriptions";
        let rows = sqlx::query(self.statement(
            "select b.name, b.event, b.kind, b.target, b.paused, b.created_at, \
             (select count(*) from {schema}.delivery d where d.subscription_id = b.subscription_id and d.state = 'pending') as pending, \
             (select count(*) from {schema}.delivery d where d.subscription_id = b.subscription_id and d.state = 'dead') as dead \
             from {schema}.subscription b order by b.name",
        ))
        .fetch_all(self.single())
        .await
        .map_err(|error| to_error(doing, error))?;
        rows.iter().map(|row| subscription(row).map_err(|error| to_error(doing, error))?).collect()
    }
}

fn publication(row: &PgRow) -> sqlx::Result<PublicationRow> {
    Ok(PublicationRow {
        publication_id: row.try_get("publication_id")?,
        at: row.try_get("at")?,
        event: row.try_get("event")?,
        workflow: row.try_get("workflow")?,
        task_id: TaskId(row.try_get("task_id")?),
        step: row.try_get("step")?,
        delivered: row.try_get("delivered")?,
        pending: row.try_get("pending")?,
        dead: row.try_get("dead")?,
    })
}

fn delivery(row: &PgRow) -> sqlx::Result<DeliveryRow> {
    Ok(DeliveryRow {
        delivery_id: row.try_get("delivery_id")?,
        subscription: row.try_get("subscription")?,
        state: row.try_get("state")?,
        attempts: row.try_get("attempts")?,
        due_at: row.try_get("due_at")?,
        ended_at: row.try_get("ended_at")?,
        last_error: row.try_get("last_error")?,
    })
}

fn subscription(row: &PgRow) -> sqlx::Result<Result<SubscriptionRow>> {
    let kind = match row.try_get::<&str, _>("kind")?.parse() {
        Ok(kind) => kind,
        Err(error) => return Ok(Err(error)),
    };
    Ok(Ok(SubscriptionRow {
        name: row.try_get("name")?,
        event: row.try_get("event")?,
        kind,
        target: row.try_get("target")?,
        paused: row.try_get("paused")?,
        created_at: row.try_get("created_at")?,
        pending: row.try_get("pending")?,
        dead: row.try_get("dead")?,
    }))
}

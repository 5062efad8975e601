//! What a relay asks of the database: which deliveries are due, and what became of them.

use std::time::Duration;

use sqlx::postgres::PgRow;
use sqlx::{PgConnection, Row};
use tasker_model::{Payload, Result};
use uuid::Uuid;

use crate::hot::payload;
use crate::subscriptions::SubscriptionKind;
use crate::{Engine, to_error};

/// The queue number that stands for deliveries where queues with news are listed: they have no queue.
pub const DELIVERIES: i32 = -1;

/// One event on its way to one subscription, leased to the caller.
#[derive(Debug, Clone)]
pub struct Delivery {
    /// Its id, the same in every attempt.
    pub delivery_id: Uuid,
    /// This attempt, from 1.
    pub attempt: i32,
    /// The subscription.
    pub subscription_id: i32,
    /// Its name.
    pub subscription: String,
    /// How it is delivered.
    pub kind: SubscriptionKind,
    /// The URL of a webhook.
    pub target: Option<String>,
    /// What a webhook is signed with.
    pub secret: Option<String>,
    /// The event, `namespace.name`.
    pub event: String,
    /// What is delivered.
    pub payload: Payload,
    /// When it was leased, by the database's clock, in seconds since 1970.
    pub taken_at: i64,
}

/// What a relay was given.
#[derive(Debug, Clone, Default)]
pub struct Taken {
    /// In the order in which they were published.
    pub deliveries: Vec<Delivery>,
    /// When the next one may be due.
    pub next: Option<Duration>,
    /// Whether there are subscribers that only other processes have.
    pub has_foreign: bool,
}

/// How many deliveries may be under way, and for how long each is the caller's.
#[derive(Debug, Clone, Copy)]
pub struct Room {
    /// To one subscription at a time.
    pub each: i32,
    /// That this call may take.
    pub limit: i32,
    /// How long the caller has them.
    pub lease: Duration,
}

impl Engine {
    /// Leases due deliveries: those of webhooks, and of the subscribers with these names. `busy` says how many are under way, by
    /// subscription.
    pub async fn take_deliveries(
        &self,
        conn: &mut PgConnection,
        names: &[String],
        busy: &[(i32, i32)],
        room: Room,
    ) -> Result<Taken> {
        let doing = "reading the deliveries that are due";
        let (ids, counts): (Vec<i32>, Vec<i32>) = busy.iter().copied().unzip();
        let rows = sqlx::query(self.statement("select * from {schema}.take_deliveries_v1($1, $2, $3, $4, $5, $6)"))
            .bind(names)
            .bind(ids)
            .bind(counts)
            .bind(room.each)
            .bind(room.limit)
            .bind(room.lease)
            .fetch_all(self.on(conn))
            .await
            .map_err(|error| to_error(doing, error))?;
        let mut taken = Taken::default();
        for row in &rows {
            read(row, &mut taken).map_err(|error| to_error(doing, error))??;
        }
        Ok(taken)
    }

    /// Keeps the leases of deliveries that take long: each named by its id and its attempt.
    pub async fn keep_deliveries(
        &self,
        conn: &mut PgConnection,
        deliveries: &[(Uuid, i32)],
        lease: Duration,
    ) -> Result<()> {
        let (ids, attempts): (Vec<Uuid>, Vec<i32>) = deliveries.iter().copied().unzip();
        sqlx::query(self.statement("select {schema}.keep_deliveries_v1($1, $2, $3)"))
            .bind(ids)
            .bind(attempts)
            .bind(lease)
            .execute(self.on(conn))
            .await
            .map_err(|error| to_error("keeping deliveries", error))
            .map(drop)
    }

    /// Says what became of an attempt: nothing wrong, or an error after which another attempt follows in so long, or none.
    pub async fn end_delivery(
        &self,
        conn: &mut PgConnection,
        delivery: &Delivery,
        error: Option<&str>,
        again_in: Option<Duration>,
    ) -> Result<()> {
        let delay = again_in.map(|delay| i64::try_from(delay.as_millis()).unwrap_or(i64::MAX));
        sqlx::query(self.statement("select {schema}.end_delivery_v1($1, $2, $3, $4)"))
            .bind(delivery.delivery_id)
            .bind(delivery.attempt)
            .bind(error)
            .bind(delay)
            .execute(self.on(conn))
            .await
            .map_err(|error| to_error("saying what became of a delivery", error))
            .map(drop)
    }
}

fn read(row: &PgRow, taken: &mut Taken) -> sqlx::Result<Result<()>> {
    let Some(delivery_id) = row.try_get("delivery_id")? else {
        let next: Option<i64> = row.try_get("next_ms")?;
        taken.next = next.map(|ms| Duration::from_millis(u64::try_from(ms).unwrap_or_default()));
        taken.has_foreign = row.try_get("is_foreign")?;
        return Ok(Ok(()));
    };
    let kind = match row.try_get::<&str, _>("kind")?.parse() {
        Ok(kind) => kind,
        Err(error) => return Ok(Err(error)),
    };
    taken.deliveries.push(Delivery {
        delivery_id,
        attempt: row.try_get("attempt")?,
        subscription_id: row.try_get("subscription_id")?,
        subscription: row.try_get("subscription")?,
        kind,
        target: row.try_get("target")?,
        secret: row.try_get("secret")?,
        event: row.try_get("event")?,
        payload: payload(row, "payload")?.unwrap_or_default(),
        taken_at: row.try_get("taken_at")?,
    });
    Ok(Ok(()))
}

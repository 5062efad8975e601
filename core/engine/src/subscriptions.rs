//! Subscriptions: who wants which events, and what is done to them.

use std::fmt::{self, Write as _};
use std::str::FromStr;

use rand::Rng as _;
use serde::Serialize;
use tasker_model::id::{DEFAULT_NAMESPACE, check_name};
use tasker_model::{Error, ErrorKind, Result, nearest};
use uuid::Uuid;

use crate::{Engine, to_error};

/// The longest name of a PGMQ queue.
const QUEUE_NAME_CHARS: usize = 47;
/// Shorter secrets could be guessed.
const SECRET_CHARS: usize = 16;

/// How a subscription gets its events.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum SubscriptionKind {
    /// A handler in a worker process of the application.
    Process,
    /// A PGMQ queue.
    Queue,
    /// An HTTP request.
    Webhook,
}

impl SubscriptionKind {
    /// Returns the word that is stored.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Process => "process",
            Self::Queue => "queue",
            Self::Webhook => "webhook",
        }
    }
}

impl FromStr for SubscriptionKind {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        [Self::Process, Self::Queue, Self::Webhook].into_iter().find(|kind| kind.as_str() == text).ok_or_else(|| {
            Error::new(ErrorKind::Internal, format!("`{text}` is no kind of subscription; is this program older?"))
        })
    }
}

impl fmt::Display for SubscriptionKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Where the events of a new subscription go.
#[derive(Clone, Copy)]
pub enum Target<'a> {
    /// To a handler of this name in the application's processes; one that is there with the same event is kept.
    Process,
    /// To a PGMQ queue, which is made if it is not there.
    Queue(&'a str),
    /// To a URL, signed with a secret.
    Webhook {
        /// The URL.
        url: &'a str,
        /// The secret.
        secret: &'a str,
    },
}

impl fmt::Debug for Target<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Process => f.write_str("Process"),
            Self::Queue(queue) => f.debug_tuple("Queue").field(queue).finish(),
            Self::Webhook { url, .. } => f.debug_struct("Webhook").field("url", url).finish_non_exhaustive(),
        }
    }
}

/// Makes a secret that nobody can guess.
pub fn new_secret() -> String {
    let bytes: [u8; 32] = rand::rng().random();
    bytes.iter().fold(String::from("whsec_"), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// Reads which events are wanted: `namespace.name`, a name in the namespace `default`, or `*` for all. Answers the full name.
pub fn event_pattern(text: &str) -> Result<String> {
    if text == "*" {
        return Ok(text.to_owned());
    }
    let (namespace, name) = text.split_once('.').unwrap_or((DEFAULT_NAMESPACE, text));
    check_name("namespace", namespace)?;
    check_name("event", name)?;
    Ok(format!("{namespace}.{name}"))
}

impl Engine {
    /// Adds a subscription to the events that `event` names: see [`event_pattern`]. Answers whether it was made now.
    ///
    /// Fails with `invalid` for what is no name, URL or queue, `conflict` where there is another of this name.
    pub async fn subscribe(&self, name: &str, event: &str, target: Target<'_>) -> Result<bool> {
        check_name("subscription", name)?;
        let event = event_pattern(event)?;
        let (kind, target, secret) = match target {
            Target::Process => (SubscriptionKind::Process, None, None),
            Target::Queue(queue) => (SubscriptionKind::Queue, Some(check_queue(queue)?), None),
            Target::Webhook { url, secret } => {
                (SubscriptionKind::Webhook, Some(check_url(url)?), Some(check_secret(secret)?))
            }
        };
        sqlx::query_scalar(self.statement("select {schema}.subscribe_v1($1, $2, $3, $4, $5, $6)"))
            .bind(name)
            .bind(event)
            .bind(kind.as_str())
            .bind(target)
            .bind(secret)
            .bind(kind == SubscriptionKind::Process)
            .fetch_one(self.single())
            .await
            .map_err(|error| to_error("adding a subscription", error))
    }

    /// Refuses with `not_found` an event that no registered workflow publishes; the message names the nearest.
    pub async fn check_event(&self, event: &str) -> Result<()> {
        let event = event_pattern(event)?;
        let known: Vec<String> = sqlx::query_scalar(self.statement(
            "select distinct w.namespace || '.' || e.name from {schema}.workflow_event e \
             join {schema}.revision r on r.revision_id = e.revision_id \
             join {schema}.workflow w on w.workflow_id = r.workflow_id order by 1",
        ))
        .fetch_all(self.single())
        .await
        .map_err(|error| to_error("reading the events of the workflows", error))?;
        if event == "*" || known.contains(&event) {
            return Ok(());
        }
        let hint = match nearest(&event, known.iter().map(String::as_str)) {
            Some(near) => format!("did you mean {near}?"),
            None if known.is_empty() => "no registered workflow has `events`".to_owned(),
            None => format!("there are: {}", known.join(", ")),
        };
        Err(Error::new(ErrorKind::NotFound, format!("no registered workflow publishes event {event}; {hint}")))
    }

    /// Removes a subscription with all that is still to be delivered to it. Fails with `not_found` where there is none of this name.
    pub async fn unsubscribe(&self, name: &str) -> Result<()> {
        let is_gone: bool = sqlx::query_scalar(self.statement("select {schema}.unsubscribe_v1($1)"))
            .bind(name)
            .fetch_one(self.single())
            .await
            .map_err(|error| to_error("removing a subscription", error))?;
        if is_gone { Ok(()) } else { Err(self.no_subscription(name).await) }
    }

    /// Stops the deliveries to a subscription, or goes on with them; its events wait meanwhile. Idempotent: answers whether anything
    /// changed. Fails with `not_found` where there is none of this name.
    pub async fn pause_subscription(&self, name: &str, paused: bool) -> Result<bool> {
        let was: Option<bool> = sqlx::query_scalar(self.statement("select {schema}.pause_subscription_v1($1, $2)"))
            .bind(name)
            .bind(paused)
            .fetch_one(self.single())
            .await
            .map_err(|error| to_error("pausing a subscription", error))?;
        match was {
            Some(was) => Ok(was != paused),
            None => Err(self.no_subscription(name).await),
        }
    }

    /// Delivers again, with all attempts anew: one publication to all who got it, or every dead delivery; only to the named
    /// subscription, if one is named. Answers how many deliveries that makes.
    pub async fn redeliver(&self, publication: Option<Uuid>, subscription: Option<&str>) -> Result<u64> {
        if let Some(name) = subscription
            && !self.subscriptions().await?.iter().any(|row| row.name == name)
        {
            return Err(self.no_subscription(name).await);
        }
        let count: i64 = sqlx::query_scalar(self.statement("select {schema}.redeliver_v1($1, $2)"))
            .bind(publication)
            .bind(subscription)
            .fetch_one(self.single())
            .await
            .map_err(|error| to_error("delivering again", error))?;
        // A hint that is lost costs some seconds.
        if let Ok(mut conn) = self.acquire().await
            && count > 0
        {
            let _ = crate::pgmq::wake(self, &mut conn, &[crate::deliveries::DELIVERIES]).await;
        }
        Ok(u64::try_from(count).unwrap_or_default())
    }

    async fn no_subscription(&self, name: &str) -> Error {
        let rows = self.subscriptions().await.unwrap_or_default();
        let hint = match nearest(name, rows.iter().map(|row| row.name.as_str())) {
            Some(near) => format!("did you mean `{near}`?"),
            None => "see: tasker subscription list".to_owned(),
        };
        Error::new(ErrorKind::NotFound, format!("there is no subscription `{name}`; {hint}"))
    }
}

/// A URL is read in full by the client that sends to it; here the plain mistakes are told to who makes them.
fn check_url(url: &str) -> Result<&str> {
    let rest = url.strip_prefix("https://").or_else(|| url.strip_prefix("http://"));
    let host = rest.map(|rest| rest.split(['/', '?', '#']).next().unwrap_or_default());
    let is_url = host.is_some_and(|host| !host.is_empty() && !host.starts_with(':'));
    if is_url && !url.contains(|c: char| c.is_whitespace() || c.is_control()) {
        return Ok(url);
    }
    let message = format!("`{url}` is no URL of a webhook; one looks like https://example.com/hooks/tasker");
    Err(Error::new(ErrorKind::Invalid, message))
}

fn check_queue(queue: &str) -> Result<&str> {
    let is_name = queue.starts_with(|c: char| c.is_ascii_lowercase())
        && queue.len() <= QUEUE_NAME_CHARS
        && queue.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_');
    if is_name {
        return Ok(queue);
    }
    let message = format!(
        "`{queue}` is no name of a queue; use 1 to {QUEUE_NAME_CHARS} lower-case letters, digits and underscores, the first a letter"
    );
    Err(Error::new(ErrorKind::Invalid, message))
}

fn check_secret(secret: &str) -> Result<&str> {
    if secret.len() >= SECRET_CHARS && !secret.contains('\0') {
        return Ok(secret);
    }
    Err(Error::new(ErrorKind::Invalid, format!("a secret has at least {SECRET_CHARS} characters")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_are_checked() {
        for good in ["http://localhost:8080", "https://example.com/hooks?a=b", "http://[::1]:80/x"] {
            assert!(check_url(good).is_ok(), "{good}");
        }
        for bad in ["", "example.com", "ftp://example.com", "https://", "http://:80", "http:///x", "http://a b"] {
            assert_eq!(check_url(bad).unwrap_err().kind, ErrorKind::Invalid, "{bad}");
        }
        assert!(check_queue("order_events").is_ok());
        for bad in ["", "Orders", "1a", "a-b", &"a".repeat(48)] {
            assert!(check_queue(bad).is_err(), "{bad}");
        }
        assert!(check_secret("too short").is_err());
    }

    #[test]
    fn events_are_named_in_full() {
        assert_eq!(event_pattern("order_done").unwrap(), "default.order_done");
        assert_eq!(event_pattern("shop.order_done").unwrap(), "shop.order_done");
        assert_eq!(event_pattern("*").unwrap(), "*");
        for bad in ["", "shop.", ".x", "a.b.c", "shop.*", "Order"] {
            assert!(event_pattern(bad).is_err(), "{bad}");
        }
    }
}

//! Sends events to webhooks, signed.

use std::fmt::Write as _;
use std::sync::OnceLock;
use std::time::Duration;

use hmac::{Hmac, KeyInit, Mac};
use reqwest::{Response, redirect};
use sha2::Sha256;
use tasker_engine::deliveries::Delivery;
use tokio::time::Instant;

use crate::http::make_client;

/// How long a webhook may take to answer.
const TIMEOUT: Duration = Duration::from_secs(10);
/// How much of an answer that refuses is kept.
const KEPT_BYTES: usize = 500;

static CLIENT: OnceLock<Result<reqwest::Client, String>> = OnceLock::new();

/// Sends a delivery; anything but a status of 2xx is an error. `since` is when it was leased.
pub(crate) async fn send(delivery: &Delivery, since: Instant) -> Result<(), String> {
    let body = delivery.payload.get().to_owned();
    let seconds = i64::try_from(since.elapsed().as_secs()).unwrap_or_default();
    let signature =
        signature(delivery.secret.as_deref().unwrap_or_default(), delivery.taken_at.saturating_add(seconds), &body);
    let request = client()?
        .post(delivery.target.as_deref().unwrap_or_default())
        .header("content-type", "application/json")
        .header("tasker-event", &delivery.event)
        .header("tasker-delivery", delivery.delivery_id.to_string())
        .header("tasker-attempt", delivery.attempt.to_string())
        .header("tasker-signature", signature)
        .body(body);
    let response = request.send().await.map_err(|error| broken(&error))?;
    let status = response.status();
    if status.is_success() {
        return Ok(());
    }
    let said = start_of(response).await;
    Err(if said.is_empty() { format!("it answered {status}") } else { format!("it answered {status}: {said}") })
}

/// Signs a body: `t=<seconds>,v1=<HMAC-SHA256 of "<seconds>.<body>" in hexadecimal>`.
fn signature(secret: &str, seconds: i64, body: &str) -> String {
    let mut text = format!("t={seconds},v1=");
    // A key of any length will do.
    if let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(secret.as_bytes()) {
        mac.update(format!("{seconds}.{body}").as_bytes());
        for byte in mac.finalize().into_bytes() {
            let _ = write!(text, "{byte:02x}");
        }
    }
    text
}

fn client() -> Result<&'static reqwest::Client, String> {
    let made = CLIENT.get_or_init(|| {
        let builder = reqwest::Client::builder().timeout(TIMEOUT).redirect(redirect::Policy::none());
        make_client(builder.user_agent(concat!("tasker/", env!("CARGO_PKG_VERSION"))))
    });
    made.as_ref().map_err(Clone::clone)
}

/// The causes say what happened; the URL, which may hold a token, is left out.
fn broken(error: &reqwest::Error) -> String {
    if error.is_timeout() {
        return format!("it did not answer within {} s", TIMEOUT.as_secs());
    }
    let mut text = String::from(if error.is_connect() { "it cannot be reached" } else { "the request failed" });
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        let _ = write!(text, ": {error}");
        cause = error.source();
    }
    text
}

async fn start_of(mut response: Response) -> String {
    let mut bytes = Vec::new();
    while bytes.len() < KEPT_BYTES
        && let Ok(Some(chunk)) = response.chunk().await
    {
        bytes.extend_from_slice(&chunk);
    }
    bytes.truncate(KEPT_BYTES);
    // The database stores no NUL.
    String::from_utf8_lossy(&bytes).replace('\0', "").trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_signature_is_what_others_compute() {
        // printf '1700000000.{"a":1}' | openssl dgst -sha256 -hmac 'a secret of the test'
        let expected = "t=1700000000,v1=79d6f5024f3b9867ff18db9db735bfc20196f097771dc4045949f3f74b622a4d";
        assert_eq!(signature("a secret of the test", 1_700_000_000, r#"{"a":1}"#), expected);
    }
}

//! An HTTP client for handlers: what goes wrong comes back as the failure of a step, retryable where another attempt may help.

use std::fmt;
use std::sync::OnceLock;
use std::time::Duration;

use reqwest::{ClientBuilder, Method, RequestBuilder, Response, StatusCode, header};
use serde::Serialize;
use tasker_model::{ErrorKind, Payload, StepFailure};

/// How much of a refusal's body is kept with the failure.
const BODY_BYTES: usize = 4 * 1024;

static CLIENT: OnceLock<Result<reqwest::Client, String>> = OnceLock::new();

/// Sends requests that carry the step's idempotency key.
#[derive(Debug, Clone)]
pub struct Http {
    idempotency_key: String,
}

impl Http {
    pub(crate) fn new(idempotency_key: &str) -> Self {
        Self { idempotency_key: idempotency_key.to_owned() }
    }

    /// Begins a GET request.
    pub fn get(&self, url: impl AsRef<str>) -> Request {
        self.request(Method::GET, url)
    }

    /// Begins a POST request.
    pub fn post(&self, url: impl AsRef<str>) -> Request {
        self.request(Method::POST, url)
    }

    /// Begins a PUT request.
    pub fn put(&self, url: impl AsRef<str>) -> Request {
        self.request(Method::PUT, url)
    }

    /// Begins a PATCH request.
    pub fn patch(&self, url: impl AsRef<str>) -> Request {
        self.request(Method::PATCH, url)
    }

    /// Begins a DELETE request.
    pub fn delete(&self, url: impl AsRef<str>) -> Request {
        self.request(Method::DELETE, url)
    }

    /// Begins any request.
    pub fn request(&self, method: Method, url: impl AsRef<str>) -> Request {
        Request(
            client()
                .map(|c| c.request(method, url.as_ref()).header("Idempotency-Key", &self.idempotency_key))
                .map_err(|message| StepFailure::unexpected(message.clone())),
        )
    }
}

fn client() -> Result<&'static reqwest::Client, &'static String> {
    CLIENT.get_or_init(|| make_client(reqwest::Client::builder())).as_ref()
}

/// Makes a client, with the cryptography of its TLS.
pub(crate) fn make_client(builder: ClientBuilder) -> Result<reqwest::Client, String> {
    // Fails where the application has chosen a provider already, which is as good.
    let _ = rustls::crypto::ring::default_provider().install_default();
    builder.build().map_err(|error| format!("the HTTP client cannot be made: {error}"))
}

/// A request that is being put together.
pub struct Request(Result<RequestBuilder, StepFailure>);

impl fmt::Debug for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Request").field(&self.0).finish()
    }
}

impl Request {
    fn map(self, change: impl FnOnce(RequestBuilder) -> RequestBuilder) -> Self {
        Self(self.0.map(change))
    }

    /// Sends this value as JSON.
    pub fn json(self, body: &(impl Serialize + ?Sized)) -> Self {
        self.map(|r| r.json(body))
    }

    /// Adds a header.
    pub fn header(self, name: &str, value: &str) -> Self {
        self.map(|r| r.header(name, value))
    }

    /// Adds `Authorization: Bearer`.
    pub fn bearer(self, token: &str) -> Self {
        self.map(|r| r.bearer_auth(token))
    }

    /// Gives up after this long; the failure is retryable.
    pub fn timeout(self, timeout: Duration) -> Self {
        self.map(|r| r.timeout(timeout))
    }

    /// Changes the request by reqwest's own builder.
    pub fn with(self, change: impl FnOnce(RequestBuilder) -> RequestBuilder) -> Self {
        self.map(change)
    }

    /// Sends it. Every status outside 2xx and 3xx is a failure.
    pub async fn send(self) -> Result<Response, StepFailure> {
        let response = self.0?.send().await.map_err(|error| broken(&error))?;
        let status = response.status();
        if !status.is_client_error() && !status.is_server_error() {
            return Ok(response);
        }
        let text = |name| response.headers().get(name)?.to_str().ok();
        let retry_after = text(header::RETRY_AFTER).and_then(|after| retry_after(after, text(header::DATE)));
        let host = response.url().host_str().unwrap_or_default().to_owned();
        let body = response.text().await.unwrap_or_default();
        Err(refusal(status, retry_after, &host, &body))
    }

    /// Sends it and reads the answer as JSON.
    pub async fn send_json<T: serde::de::DeserializeOwned>(self) -> Result<T, StepFailure> {
        self.send().await?.json().await.map_err(|error| broken(&error))
    }
}

/// Nothing came back, or not what was promised: another attempt may help, unless the request itself is wrong.
fn broken(error: &reqwest::Error) -> StepFailure {
    let kind = if error.is_timeout() { ErrorKind::Timeout } else { ErrorKind::Unavailable };
    let code = if error.is_timeout() {
        "HTTP_TIMEOUT"
    } else if error.is_connect() {
        "HTTP_CONNECTION"
    } else {
        "HTTP_ERROR"
    };
    if error.is_builder() {
        return StepFailure::permanent(format!("the request cannot be sent: {error}")).code("HTTP_REQUEST");
    }
    let mut message = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        message = format!("{message}: {cause}");
        source = cause.source();
    }
    StepFailure::new(kind, message).code(code)
}

/// The failure that a status stands for.
fn refusal(status: StatusCode, retry_after: Option<Duration>, host: &str, body: &str) -> StepFailure {
    let is_retryable = status.is_server_error() || matches!(status.as_u16(), 408) || status.as_u16() == 429;
    let kind = if is_retryable { ErrorKind::Unavailable } else { ErrorKind::Permanent };
    let mut failure = StepFailure::new(kind, format!("{host} answered {status}"))
        .code(format!("HTTP_{}", status.as_u16()))
        .retryable(is_retryable);
    if let (429 | 503, Some(after)) = (status.as_u16(), retry_after) {
        failure = failure.retry_after(after);
    }
    let mut end = body.len().min(BODY_BYTES);
    while !body.is_char_boundary(end) {
        end -= 1;
    }
    let shown = body[..end].replace('\0', "\u{fffd}");
    if !shown.is_empty()
        && let Ok(details) = Payload::from_value(&serde_json::json!({ "status": status.as_u16(), "body": shown }))
    {
        failure = failure.details(details);
    }
    failure
}

/// Reads `Retry-After`: seconds, or a date, which is held against the answer's own `Date`: no two machines need the same clock.
fn retry_after(after: &str, date: Option<&str>) -> Option<Duration> {
    if let Ok(seconds) = after.trim().parse::<u64>() {
        return Some(Duration::from_secs(seconds));
    }
    let read = |text: &str| chrono::DateTime::parse_from_rfc2822(text.trim()).ok();
    let pause = read(after)? - read(date?)?;
    Some(pause.to_std().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statuses_become_failures_as_the_contract_says() {
        let after = Some(Duration::from_secs(7));
        for (status, retry_after, retryable, after_ms) in [
            (429, after, true, Some(7000)),
            (503, after, true, Some(7000)),
            (429, None, true, None),
            (408, after, true, None),
            (500, None, true, None),
            (502, after, true, None),
            (400, None, false, None),
            (404, after, false, None),
            (422, None, false, None),
        ] {
            let code = StatusCode::from_u16(status).unwrap_or_default();
            let failure = refusal(code, retry_after, "shop", "no");
            assert_eq!(failure.retryable, retryable, "{status}");
            assert_eq!(failure.retry_after_ms, after_ms, "{status}");
            assert_eq!(failure.code, Some(format!("HTTP_{status}")));
        }
    }

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        let date = "Wed, 21 Oct 2015 07:28:00 GMT";
        assert_eq!(retry_after("90", None), Some(Duration::from_secs(90)));
        assert_eq!(retry_after("Wed, 21 Oct 2015 07:28:07 GMT", Some(date)), Some(Duration::from_secs(7)));
        let past = "Wed, 21 Oct 2015 07:27:00 GMT";
        assert_eq!(retry_after(past, Some(date)), Some(Duration::ZERO));
        assert_eq!(retry_after(past, None), None);
        assert_eq!(retry_after("soon", Some(date)), None);
    }

    /// Answers one request with the given text; hands over what it was asked.
    async fn serve(answer: &'static str) -> (String, tokio::task::JoinHandle<String>) {
        use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/charge", listener.local_addr().unwrap());
        let asked = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut buffer = vec![0; 4096];
            let mut size = 0;
            while !buffer[..size].windows(4).any(|end| end == b"\r\n\r\n") {
                size += stream.read(&mut buffer[size..]).await.unwrap();
            }
            stream.write_all(answer.as_bytes()).await.unwrap();
            String::from_utf8_lossy(&buffer[..size]).to_lowercase()
        });
        (url, asked)
    }

    #[tokio::test]
    async fn requests_carry_the_key_and_refusals_come_back_as_failures() {
        let http = Http::new("task/charge");
        let (url, asked) = serve("HTTP/1.1 200 OK\r\ncontent-length: 7\r\nconnection: close\r\n\r\n{\"a\":1}").await;
        let body: serde_json::Value = http.get(&url).send_json().await.unwrap();
        assert_eq!(body["a"], 1);
        assert!(asked.await.unwrap().contains("idempotency-key: task/charge"));

        let (url, _asked) =
            serve("HTTP/1.1 503 Busy\r\nretry-after: 3\r\ncontent-length: 4\r\nconnection: close\r\n\r\nbusy").await;
        let failure = http.post(&url).send().await.unwrap_err();
        assert_eq!(failure.retry_after_ms, Some(3000));
        assert!(failure.details.unwrap().get().contains("busy"));
    }

    #[tokio::test]
    async fn nobody_there_is_worth_another_attempt_and_a_bad_address_is_not() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/", listener.local_addr().unwrap());
        drop(listener);
        let failure = Http::new("k").get(&url).send().await.unwrap_err();
        assert!(failure.retryable);
        assert_eq!(failure.code.as_deref(), Some("HTTP_CONNECTION"));
        let failure = Http::new("k").get("no address").send().await.unwrap_err();
        assert!(!failure.retryable);
    }
}

//! What a client is told when something fails.

use axum::Json;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use example_orders::PlaceError;
use serde_json::json;
use tasker::ErrorKind;

/// Why a request was not answered as it wished.
#[derive(Debug)]
pub(crate) enum HttpError {
    NoSuchOrder(String),
    Place(PlaceError),
}

impl From<PlaceError> for HttpError {
    fn from(error: PlaceError) -> Self {
        Self::Place(error)
    }
}

impl From<tasker::Error> for HttpError {
    fn from(error: tasker::Error) -> Self {
        Self::Place(error.into())
    }
}

impl IntoResponse for HttpError {
    fn into_response(self) -> Response {
        let (status, message) = match self {
            Self::NoSuchOrder(id) => (StatusCode::NOT_FOUND, format!("there is no order {id}")),
            // What the client did wrong is told; what is wrong here is for the log.
            Self::Place(PlaceError::Tasker(error))
                if matches!(error.kind, ErrorKind::InputInvalid | ErrorKind::Conflict) =>
            {
                let status = StatusCode::from_u16(error.kind.http_status());
                (status.unwrap_or(StatusCode::BAD_REQUEST), error.message)
            }
            Self::Place(error) => {
                tracing::error!(error = &error as &dyn std::error::Error, "a request failed");
                (StatusCode::SERVICE_UNAVAILABLE, "the shop is closed for a moment".to_owned())
            }
        };
        (status, Json(json!({ "error": message }))).into_response()
    }
}

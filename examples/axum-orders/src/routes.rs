//! The routes.

use axum::extract::{FromRef, Path, State};
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::{get, post};
use axum::{Json, Router};
use example_orders::services::{Order, Shop, orders};
use example_orders::{PlaceError, place};
use serde_json::{Map, Value, json};
use tasker::{TaskId, Tasker, Workflow};

use crate::error::HttpError;

/// What the routes share.
#[derive(Debug, Clone, FromRef)]
struct App {
    tasker: Tasker,
    workflow: Workflow,
    shop: Shop,
}

/// Makes the application.
pub fn app(tasker: Tasker, workflow: Workflow, shop: Shop) -> Router {
    Router::new().route("/orders", post(create)).route("/orders/{id}", get(show)).with_state(App {
        tasker,
        workflow,
        shop,
    })
}

/// Takes an order: 202, with the task that handles it.
async fn create(
    State(workflow): State<Workflow>,
    State(shop): State<Shop>,
    Json(order): Json<Order>,
) -> Result<impl IntoResponse, HttpError> {
    let task = place(&shop.pool, &workflow, &order).await?;
    let location = [(header::LOCATION, format!("/orders/{}", order.order_id))];
    let body = json!({ "order_id": order.order_id, "task_id": task.id(), "new": task.is_new() });
    Ok((StatusCode::ACCEPTED, location, Json(body)))
}

/// Tells how far an order is, and each of its steps.
async fn show(
    State(tasker): State<Tasker>,
    State(shop): State<Shop>,
    Path(id): Path<String>,
) -> Result<Json<Value>, HttpError> {
    let find = async || orders::find(&shop.pool, &id).await.map_err(PlaceError::from);
    let mut order = find().await?.ok_or_else(|| HttpError::NoSuchOrder(id.clone()))?;
    let mut task = None;
    if let Some(task_id) = order.task_id {
        task = Some(tasker.task(TaskId(task_id)).detail().await?);
        // Read again, so that the order is not older than what is said of its task.
        order = find().await?.unwrap_or(order);
    }
    let mut body = json!({ "order_id": order.order_id, "state": order.state, "total": order.total });
    if let Some(detail) = task {
        let steps = detail.steps.iter().map(|step| (step.name.clone(), json!(step.display)));
        let reason = detail.task.error.as_ref().and_then(|error| error.at(&["message"]));
        body["task"] = json!({
            "task_id": detail.task.task_id,
            "state": detail.task.state,
            "reason": reason,
            "steps": steps.collect::<Map<_, _>>(),
        });
    }
    Ok(Json(body))
}

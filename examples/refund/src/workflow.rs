//! The refund as a workflow: all that orchestration adds to the services.

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tasker::Wait;
use tasker::prelude::*;

use crate::services::{self, Assessment, Entry, Gateway, RETURN_DAYS, Receipt, Request};

/// What a person says of a refund.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Approval {
    /// Whether it may be paid.
    pub approved: bool,
    /// Who says so.
    pub by: String,
}

/// How a refund ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// It is paid and booked.
    Refunded(Entry),
    /// It is not paid, for this reason.
    Refused(String),
}

#[tasker::step]
async fn eligibility(Input(request): Input<Request>) -> Decision<Assessment> {
    let assessment = services::assess(&request);
    let route = match assessment {
        Assessment::Automatic => Decision::route(AutoApproved),
        Assessment::NeedsApproval => Decision::route("approval"),
        Assessment::TooOld => Decision::route(Reject),
    };
    route.value(assessment)
}

#[tasker::step]
async fn auto_approved() -> Approval {
    Approval { approved: true, by: "the policy".to_owned() }
}

#[tasker::step]
async fn reject() -> String {
    format!("the order is older than {RETURN_DAYS} days")
}

/// Of the two approvals one was skipped.
#[tasker::step]
async fn verdict(approval: Option<Approval>, auto: OptionalDep<AutoApproved>) -> Result<Decision<Approval>, StepError> {
    let approval = approval.or(auto.0).ok_or_else(|| StepError::permanent("nobody approved or refused it"))?;
    let route = if approval.approved { Decision::route(GatewayRefund) } else { Decision::route(Decline) };
    Ok(route.value(approval))
}

#[tasker::step]
async fn decline(verdict: Dep<Verdict>) -> String {
    format!("it was refused by {}", verdict.by)
}

/// The gateway is no part of any transaction: the key makes a second call the same refund.
#[tasker::step(retry = 5)]
async fn gateway_refund(
    Input(request): Input<Request>,
    gateway: State<Gateway>,
    ctx: Ctx,
) -> Result<Receipt, StepError> {
    Ok(gateway.refund(ctx.idempotency_key(), &request.order_id, request.amount_cents).await?)
}

/// Runs where the refund was paid and the task fails or is cancelled afterwards.
#[tasker::step]
async fn reverse_refund(receipt: Dep<GatewayRefund>, gateway: State<Gateway>) -> Result<(), StepError> {
    Ok(gateway.reverse(receipt.0).await?)
}

#[tasker::step]
async fn book(Input(request): Input<Request>, ctx: Ctx) -> Result<Settled<Entry>, StepError> {
    ctx.transaction(async |tx| services::book(tx, &request).await?.permanent("MONTH_CLOSED")).await
}

/// Joins whichever branch lives.
#[tasker::step]
async fn notify(
    Input(request): Input<Request>,
    entry: OptionalDep<Book>,
    declined: OptionalDep<Decline>,
    rejected: OptionalDep<Reject>,
    ctx: Ctx,
) -> Result<Settled<Outcome>, StepError> {
    let (outcome, body) = match (*entry, declined.0.or(rejected.0)) {
        (Some(entry), _) => (Outcome::Refunded(entry), "your refund is on its way".to_owned()),
        (None, Some(reason)) => (Outcome::Refused(reason.clone()), format!("there is no refund: {reason}")),
        (None, None) => return Err(StepError::permanent("it was neither paid nor refused")),
    };
    ctx.transaction(async |tx| {
        services::send(tx, &request, &body).await?;
        Ok::<_, StepError>(outcome)
    })
    .await
}

/// Refunds an order. Whom a large one waits for has this long to approve it; then it is refused.
pub fn refund(approval_time: Duration) -> Workflow {
    let refused = Approval { approved: false, by: "the deadline".to_owned() };
    let approval = Wait::signal("approval").payload::<Approval>().timeout(approval_time).or(refused);
    Workflow::new("refund")
        .namespace("refunds")
        .input::<Request>()
        .step(eligibility.routes(("approval", AutoApproved, Reject)))
        .wait("approval", approval.after(Eligibility))
        .step(auto_approved.after(Eligibility))
        .step(reject.after(Eligibility))
        .step(verdict.routes((GatewayRefund, Decline)))
        .step(decline)
        .step(gateway_refund.after(Verdict).undo(reverse_refund))
        .step(book.after(GatewayRefund))
        .step(notify)
}

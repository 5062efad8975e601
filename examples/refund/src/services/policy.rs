//! Who may have a refund.

use chrono::NaiveDate;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Up to here nobody needs to approve it.
pub const APPROVAL_LIMIT_CENTS: i64 = 10_000;
/// So many days after the order goods may be sent back.
pub const RETURN_DAYS: i64 = 30;

/// A customer wants their money back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Request {
    /// For which order.
    pub order_id: String,
    /// Where the answer goes.
    pub customer: String,
    /// How much.
    #[schemars(range(min = 1))]
    pub amount_cents: i64,
    /// When it was ordered.
    pub ordered_on: NaiveDate,
    /// When the refund was asked for.
    pub requested_on: NaiveDate,
}

/// What the policy says of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Assessment {
    /// It is small enough.
    Automatic,
    /// A person decides.
    NeedsApproval,
    /// The order is too old.
    TooOld,
}

/// Says what the policy says of a request.
pub fn assess(request: &Request) -> Assessment {
    if (request.requested_on - request.ordered_on).num_days() > RETURN_DAYS {
        Assessment::TooOld
    } else if request.amount_cents > APPROVAL_LIMIT_CENTS {
        Assessment::NeedsApproval
    } else {
        Assessment::Automatic
    }
}

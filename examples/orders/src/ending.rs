//! How an order's task ended.

use std::fmt;

use rust_decimal::Decimal;
use serde::{Deserialize, Serialize};
use tasker::{Payload, Task};

use crate::services::Confirmation;

/// The ways in which an order ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// Paid, set aside and confirmed.
    Complete,
    /// The bank refused the card.
    Declined,
    /// There is not enough of something.
    OutOfStock,
    /// The order itself is wrong.
    Invalid,
    /// Anything else: somebody must look.
    Failed,
}

impl Outcome {
    fn of(code: Option<&str>) -> Self {
        match code {
            Some("CARD_DECLINED") => Self::Declined,
            Some("OUT_OF_STOCK") => Self::OutOfStock,
            Some("INVALID_CART") => Self::Invalid,
            _ => Self::Failed,
        }
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Complete => "complete",
            Self::Declined => "declined",
            Self::OutOfStock => "out of stock",
            Self::Invalid => "invalid",
            Self::Failed => "failed",
        })
    }
}

/// How one order ended.
#[derive(Debug, Clone, PartialEq)]
pub struct Ending {
    /// In which way.
    pub outcome: Outcome,
    /// What was paid, where it completed.
    pub total: Option<Decimal>,
    /// How often the card was tried.
    pub charge_attempts: i32,
    /// Why it did not complete.
    pub reason: Option<String>,
}

impl Ending {
    /// Waits for the end of an order's task and reads how it ended.
    pub async fn of(task: &Task) -> tasker::Result<Self> {
        let ended = task.wait().await?;
        let steps = task.steps().await?;
        let charge_attempts = steps.iter().find(|step| step.name == "charge_payment").map_or(0, |step| step.attempt);
        if ended.is_complete() {
            let confirmation: Confirmation = ended.result()?;
            let total = Some(confirmation.total);
            return Ok(Self { outcome: Outcome::Complete, total, charge_attempts, reason: None });
        }
        let text = |field: &str| ended.error().and_then(|error: &Payload| error.at(&[field])?.to::<String>().ok());
        let outcome = Outcome::of(text("code").as_deref());
        Ok(Self { outcome, total: None, charge_attempts, reason: text("message") })
    }
}

//! Steps that call no function and wait.

use std::time::Duration;

use schemars::JsonSchema;
use serde::Serialize;
use tasker_model::StepDefinition;
use tasker_model::wait::Until;

use super::StepNames;

/// A step that calls no function: it is done when a signal comes, or when a time has come. Its result, which later steps take as they
/// take any other, is the signal's payload.
///
/// ```
/// use std::time::Duration;
/// use tasker::Wait;
/// use tasker::prelude::*;
///
/// #[derive(serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
/// struct Approval { approved: bool }
///
/// #[tasker::step]
/// async fn refund(approval: Approval) -> Result<bool, StepError> { Ok(approval.approved) }
///
/// let refunds = Workflow::new("refunds")
///     .wait("approval", Wait::signal("approval").payload::<Approval>().timeout(Duration::from_hours(72)).or(Approval { approved: false }))
///     .step(refund);
/// assert_eq!(refunds.revision().unwrap().step_by_name("refund").unwrap().parents, [0]);
/// ```
#[derive(Debug, Clone)]
pub struct Wait {
    spec: tasker_model::wait::Wait,
    after: Vec<String>,
    problems: Vec<String>,
}

impl Wait {
    /// Waits for a signal of this name: [`Task::signal`](crate::Task::signal), or `tasker signal`.
    pub fn signal(name: &str) -> Self {
        Self::of(tasker_model::wait::Wait { signal: Some(name.to_owned()), ..Default::default() })
    }

    /// Waits this long, from the moment when the steps before it have ended.
    pub fn time(time: Duration) -> Self {
        Self::of(tasker_model::wait::Wait { for_ms: Some(millis(time)), ..Default::default() })
    }

    /// Waits until a moment: one in RFC 3339 (`2030-01-31T09:00:00Z`), or the place of one, such as `input.pickup_at` or `order.due`.
    pub fn until(moment: &str) -> Self {
        let parsed = moment.parse::<Until>();
        let mut wait = Self::of(tasker_model::wait::Wait::default());
        match parsed {
            Ok(until) => wait.spec.until = Some(until),
            Err(error) => wait.problems.push(error.message),
        }
        wait
    }

    fn of(spec: tasker_model::wait::Wait) -> Self {
        Self { spec, after: Vec::new(), problems: Vec::new() }
    }

    /// Says what the signal carries; another payload is refused when it is sent.
    pub fn payload<T: JsonSchema>(mut self) -> Self {
        self.spec.payload = Some(super::schema::<T>());
        self
    }

    /// Says how long the signal may take. The step fails then as `wait_timeout`, unless there is a default.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.spec.timeout_ms = Some(millis(timeout));
        self
    }

    /// Gives the result where no signal came in time, or where a time has come.
    pub fn or(mut self, default: impl Serialize) -> Self {
        match serde_json::to_value(default) {
            Ok(default) => self.spec.default = Some(default),
            Err(error) => self.problems.push(format!("the default is no JSON: {error}")),
        }
        self
    }

    /// Begins to wait after these steps: `.after((ChargePayment, ReserveStock))` or `.after("name")`.
    pub fn after(mut self, steps: impl StepNames) -> Self {
        self.after.extend(steps.names());
        self
    }

    /// Writes its part of a workflow's definition.
    pub(crate) fn define(self, name: &str) -> Result<StepDefinition, Vec<String>> {
        if self.problems.is_empty() {
            return Ok(StepDefinition { after: self.after, ..StepDefinition::waiting(name, self.spec) });
        }
        Err(self.problems.iter().map(|problem| format!("step `{name}`: {problem}")).collect())
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

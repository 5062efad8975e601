//! Steps that are tasks of their own, and functions that go on as a task or wait.

use std::time::Duration;

use serde::Serialize;
use tasker_model::id::WorkflowRef;
use tasker_model::{ErrorKind, Outcome, Payload, Source, StepDefinition, StepFailure};

use super::{IntoOutcome, Stated, StepNames, to_payload};
use crate::StepError;

/// A step that runs a task of another workflow: the task's output is its result, which later steps take as they take any other. It fails
/// where the task fails or is cancelled, and the task is cancelled where the step's own task ends first.
///
/// ```
/// use tasker::Child;
/// use tasker::prelude::*;
///
/// #[tasker::step]
/// async fn validate() -> u64 { 7 }
///
/// let orders = Workflow::new("orders")
///     .step(validate)
///     .child("shipping", Child::workflow("warehouse.shipments").with("order", "validate").with("address", "input.address"));
/// assert_eq!(orders.revision().unwrap().step_by_name("shipping").unwrap().parents, [0]);
/// ```
#[derive(Debug, Clone)]
pub struct Child {
    workflow: Result<WorkflowRef, String>,
    with: Vec<(String, String)>,
    after: Vec<String>,
    undo: Option<String>,
}

impl Child {
    /// Names the workflow: `name`, or `namespace.name`. Its current revision is looked up when the step begins.
    pub fn workflow(name: &str) -> Self {
        Self {
            workflow: name.parse::<WorkflowRef>().map_err(|error| error.message),
            with: Vec::new(),
            after: Vec::new(),
            undo: None,
        }
    }

    /// Binds a field of its input: `.with("order", "validate.order")`, `.with("email", "input.email")`.
    pub fn with(mut self, field: &str, source: &str) -> Self {
        self.with.push((field.to_owned(), source.to_owned()));
        self
    }

    /// Begins after these steps: `.after((ChargePayment, ReserveStock))` or `.after("name")`.
    pub fn after(mut self, steps: impl StepNames) -> Self {
        self.after.extend(steps.names());
        self
    }

    /// Names the handler that undoes it once it is done; it finds the task's output in its parameter `result`.
    pub fn undo(mut self, handler: &str) -> Self {
        self.undo = Some(handler.to_owned());
        self
    }

    /// Writes its part of a workflow's definition.
    pub(crate) fn define(self, name: &str) -> Result<StepDefinition, Vec<String>> {
        let mut problems = Vec::new();
        let mut step = StepDefinition { after: self.after, undo: self.undo, ..StepDefinition::new(name, "") };
        match self.workflow {
            Ok(workflow) => step.child = Some(workflow),
            Err(error) => problems.push(error),
        }
        for (field, source) in self.with {
            match source.parse::<Source>() {
                Ok(source) => drop(step.with.insert(field, source)),
                Err(error) => problems.push(format!("input field `{field}`: {error}")),
            }
        }
        if problems.is_empty() {
            return Ok(step);
        }
        Err(problems.iter().map(|problem| format!("step `{name}`: {problem}")).collect())
    }
}

/// What a step returns that goes on as a task of another workflow: the task's output is the step's result. The function is not called
/// again, and the task is no attempt.
///
/// ```
/// use tasker::RunChild;
/// use tasker::prelude::*;
///
/// #[tasker::step]
/// async fn ship(Input(express): Input<bool>) -> RunChild {
///     RunChild::workflow(if express { "warehouse.express" } else { "warehouse.shipments" }, &serde_json::json!({ "order": 7 }))
/// }
/// ```
#[derive(Debug)]
pub struct RunChild(Result<(WorkflowRef, Payload), StepError>);

impl RunChild {
    /// Names the workflow, `name` or `namespace.name`, and gives its input, which is written as a JSON object.
    pub fn workflow(name: &str, input: &impl Serialize) -> Self {
        let workflow = name
            .parse::<WorkflowRef>()
            .map_err(|error| StepError::of(StepFailure::new(ErrorKind::Permanent, error.message)));
        Self(workflow.and_then(|workflow| Ok((workflow, to_payload(input)?))))
    }
}

impl IntoOutcome<Stated> for RunChild {
    fn into_outcome(self) -> Outcome {
        match self.0 {
            Ok((workflow, input)) => Outcome::Child { workflow, input },
            Err(error) => error.into_outcome(),
        }
    }
}

/// What a step returns that waits: what the signal brings is the step's result. The function is not called again.
///
/// ```
/// use std::time::Duration;
/// use tasker::WaitFor;
/// use tasker::prelude::*;
///
/// #[tasker::step]
/// async fn ask_the_customer() -> WaitFor {
///     // Send a mail with a link that sends the signal.
///     WaitFor::signal("confirmed").timeout(Duration::from_hours(48)).or(false)
/// }
/// ```
#[derive(Debug)]
pub struct WaitFor {
    signal: Option<String>,
    until: Option<chrono::DateTime<chrono::Utc>>,
    timeout: Option<Duration>,
    default: Result<Option<Payload>, StepError>,
}

impl WaitFor {
    /// Waits for a signal of this name. One that came before, and that a step of the workflow might have taken, is taken at once.
    pub fn signal(name: &str) -> Self {
        Self { signal: Some(name.to_owned()), until: None, timeout: None, default: Ok(None) }
    }

    /// Waits until a moment; the result is null, unless there is a default.
    pub fn until(moment: chrono::DateTime<chrono::Utc>) -> Self {
        Self { signal: None, until: Some(moment), timeout: None, default: Ok(None) }
    }

    /// Waits this long.
    pub fn time(time: Duration) -> Self {
        Self { signal: None, until: None, timeout: Some(time), default: Ok(None) }
    }

    /// Says how long the signal may take. The step fails then as `wait_timeout`, unless there is a default.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }

    /// Gives the result where no signal came in time, or where a time has come.
    pub fn or(mut self, default: impl Serialize) -> Self {
        self.default = to_payload(&default).map(Some);
        self
    }
}

impl IntoOutcome<Stated> for WaitFor {
    fn into_outcome(self) -> Outcome {
        let timeout_ms = self.timeout.map(|time| u64::try_from(time.as_millis()).unwrap_or(u64::MAX));
        match self.default {
            Ok(default) => Outcome::Wait { signal: self.signal, until: self.until, timeout_ms, default },
            Err(error) => error.into_outcome(),
        }
    }
}

//! Workflows in code: the builder, and what is wrong with what it was given.

use std::sync::Arc;

use schemars::JsonSchema;
use tasker_model::binding::bind_code_first;
use tasker_model::{
    Definition, Durability, Error, ErrorKind, OnFailure, Result, Revision, Signature, Signatures, StepDefinition,
    WorkflowRef,
};

use crate::Event;
use crate::home::Home;
use crate::step::{Child, IntoStep, Need, Step, StepFunction, Undo, Wait};

/// A workflow. Cheap to clone; the clones of one that was given to a [`Tasker`](crate::Tasker) can all submit.
///
/// ```
/// use tasker::prelude::*;
///
/// #[derive(serde::Deserialize, schemars::JsonSchema)]
/// struct OrderIn { total: f64 }
///
/// #[tasker::step]
/// async fn validate_cart(Input(order): Input<OrderIn>) -> Result<f64, StepError> { Ok(order.total) }
///
/// #[tasker::step]
/// async fn charge_payment(total: Dep<ValidateCart>) -> Result<String, StepError> { Ok(format!("paid {}", *total)) }
///
/// let orders = Workflow::new("order_processing")
///     .namespace("orders")
///     .input::<OrderIn>()
///     .step(validate_cart)
///     .step(charge_payment.retry(5));
/// let revision = orders.revision().unwrap();
/// assert_eq!(revision.step_by_name("charge_payment").unwrap().parents, [0]);
/// ```
#[derive(Debug, Clone)]
pub struct Workflow {
    definition: Definition,
    steps: Vec<Step>,
    /// Steps that wait or are tasks of their own, each with the number of steps that stand before it.
    waits: Vec<(usize, Result<StepDefinition, Vec<String>>)>,
    events: Vec<(String, Event)>,
    /// From YAML: the definition has its steps, and they call handlers by name.
    is_complete: bool,
    home: Home,
}

impl Workflow {
    /// Starts a workflow without steps in the namespace `default`.
    pub fn new(name: &str) -> Self {
        Self {
            definition: Definition::new(name),
            steps: Vec::new(),
            waits: Vec::new(),
            events: Vec::new(),
            is_complete: false,
            home: Home::default(),
        }
    }

    /// Reads a workflow from YAML; the steps' `call`s are handlers given with [`Tasker::handler`](crate::Tasker::handler), or those
    /// of other workers. `file` is its name in messages. The error shows every mistake with its line.
    pub fn from_yaml(text: &str, file: &str) -> Result<Self> {
        let definition = tasker_model::parse::parse(text, file).map_err(|report| {
            Error::new(ErrorKind::Invalid, format!("{file} is no workflow:\n{}", report.render(false)))
        })?;
        Ok(Self { definition, is_complete: true, ..Self::new("") })
    }

    /// Names its namespace.
    pub fn namespace(mut self, namespace: &str) -> Self {
        namespace.clone_into(&mut self.definition.namespace);
        self
    }

    /// Gives it a version for people; revisions are told apart by their content.
    pub fn version(mut self, version: &str) -> Self {
        self.definition.version = Some(version.to_owned());
        self
    }

    /// Says what it is for.
    pub fn description(mut self, description: &str) -> Self {
        self.definition.description = Some(description.to_owned());
        self
    }

    /// Declares the input by a type: a submitted input is checked against its JSON Schema before anything runs.
    pub fn input<T: JsonSchema>(self) -> Self {
        self.input_schema(crate::step::schema::<T>())
    }

    /// Declares the input by a JSON Schema.
    pub fn input_schema(mut self, schema: serde_json::Value) -> Self {
        self.definition.input = Some(schema);
        self
    }

    /// Says what happens to the rest when a step fails for good.
    pub fn on_failure(mut self, policy: OnFailure) -> Self {
        self.definition.on_failure = policy;
        self
    }

    /// Says how durable intermediate results are.
    pub fn durability(mut self, durability: Durability) -> Self {
        self.definition.durability = durability;
        self
    }

    /// Copies these fields of the input into the tags, so that tasks can be found by them.
    pub fn search<const N: usize>(mut self, fields: [&str; N]) -> Self {
        self.definition.search = fields.map(str::to_owned).to_vec();
        self
    }

    /// Adds a step: a function marked with `#[tasker::step]`, with settings if need be.
    pub fn step<Mark>(mut self, step: impl IntoStep<Mark>) -> Self {
        self.steps.push(step.into_step());
        self
    }

    /// Adds a step that calls no function and waits, for a time or a signal.
    pub fn wait(mut self, name: &str, wait: Wait) -> Self {
        self.waits.push((self.steps.len(), wait.define(name)));
        self
    }

    /// Publishes an event of this name for the application. In a workflow from YAML it is added to those that stand there.
    pub fn event(mut self, name: &str, event: Event) -> Self {
        self.events.push((name.to_owned(), event));
        self
    }

    /// Adds a step that is a task of another workflow.
    pub fn child(mut self, name: &str, child: Child) -> Self {
        self.waits.push((self.steps.len(), child.define(name)));
        self
    }

    /// Adds a step that is any async function or closure of extractors.
    ///
    /// ```
    /// use tasker::prelude::*;
    ///
    /// let workflow = Workflow::new("greet").step_fn("hello", async |Input(name): Input<String>| format!("hello {name}"));
    /// assert!(workflow.revision().is_ok());
    /// ```
    pub fn step_fn<Mark>(self, name: &str, function: impl StepFunction<Mark>) -> Self {
        self.step(crate::step_fn(name, function))
    }

    /// Returns its full name.
    pub fn reference(&self) -> WorkflowRef {
        self.definition.reference()
    }

    /// Compiles it, with the bindings that the steps' signatures make. The error lists every mistake with the nearest right
    /// spelling.
    pub fn revision(&self) -> Result<Revision> {
        let mut definition = self.definition.clone();
        let mut problems = Vec::new();
        if !self.is_complete {
            let mut waits = self.waits.iter().peekable();
            for at in 0..=self.steps.len() {
                let here = std::iter::from_fn(|| waits.next_if(|(before, _)| *before == at));
                let mut steps: Vec<_> = here.map(|(_, wait)| wait.clone()).collect();
                steps.extend(self.steps.get(at).map(|step| step.define(&definition.name)));
                for step in steps {
                    match step {
                        Ok(step) => definition.steps.push(step),
                        Err(more) => problems.extend(more),
                    }
                }
            }
            let diagnostics = bind_code_first(&mut definition, &Signatures { handlers: self.signatures() });
            problems.extend(diagnostics.iter().map(ToString::to_string));
        } else if !self.steps.is_empty() || !self.waits.is_empty() {
            problems.push(
                "the steps of a workflow from YAML stand in the YAML; remove `.step(..)`, `.wait(..)` and `.child(..)`"
                    .to_owned(),
            );
        }
        for (name, event) in &self.events {
            match event.define(name) {
                Err(problem) => problems.push(problem),
                Ok(event) => {
                    if definition.events.insert(name.clone(), event).is_some() {
                        problems.push(format!("event `{name}` is there twice; name one of them differently"));
                    }
                }
            }
        }
        let compiled = Revision::compile(definition);
        if let Err(diagnostics) = &compiled {
            problems.extend(diagnostics.iter().map(ToString::to_string));
        }
        match compiled {
            Ok(revision) if problems.is_empty() => Ok(revision),
            _ => {
                let mut seen = Vec::new();
                for problem in problems {
                    if !seen.contains(&problem) {
                        seen.push(problem);
                    }
                }
                let message = format!("workflow {} cannot run:\n  {}", self.reference(), seen.join("\n  "));
                Err(Error::new(ErrorKind::Invalid, message).with("workflow", self.reference()))
            }
        }
    }

    /// The steps' functions and those that undo them, with their handlers' names.
    pub(crate) fn handlers(&self) -> impl Iterator<Item = (String, &Step)> {
        self.steps.iter().chain(self.undos()).map(|step| (step.handler_name(&self.definition.name), step))
    }

    /// The functions that undo steps.
    fn undos(&self) -> impl Iterator<Item = &Step> {
        self.steps.iter().filter_map(|step| match &step.undo {
            Some(Undo::Function(undo)) => Some(&**undo),
            _ => None,
        })
    }

    pub(crate) fn definition(&self) -> &Definition {
        &self.definition
    }

    pub(crate) fn is_from_yaml(&self) -> bool {
        self.is_complete
    }

    pub(crate) fn home(&self) -> &Home {
        &self.home
    }

    pub(crate) fn compile(&self) -> Result<Arc<Revision>> {
        self.revision().map(Arc::new)
    }

    pub(crate) fn signatures(&self) -> Vec<Signature> {
        let mut signatures: Vec<Signature> = Vec::new();
        for (handler, step) in self.handlers() {
            if !signatures.iter().any(|known| known.handler == handler) {
                signatures.push(Signature { handler, params: step.body.params(), result: step.body.result.clone() });
            }
        }
        // The result that an undo takes is found by the name of its step: nothing binds it.
        for undo in self.undos() {
            let handler = undo.handler_name(&self.definition.name);
            let results = undo.body.parameters.iter().filter(|parameter| matches!(parameter.need, Need::Result(_)));
            let results: Vec<&str> = results.map(|parameter| parameter.name.as_str()).collect();
            let is_step = self.steps.iter().any(|step| step.handler_name(&self.definition.name) == handler);
            if let Some(signature) = signatures.iter_mut().find(|known| known.handler == handler && !is_step) {
                signature.params.retain(|param| !results.contains(&param.name.as_str()));
            }
        }
        signatures
    }
}

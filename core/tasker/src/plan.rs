//! What a Tasker was given: workflows, handlers, states; checked as a whole before a worker starts.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures::future::BoxFuture;
use tasker_model::binding::check_bindings;
use tasker_model::diagnostic::Code;
use tasker_model::id::DEFAULT_NAMESPACE;
use tasker_model::{Error, ErrorKind, Outcome, Result, Revision, Signature, Signatures, WorkflowRef};
use tasker_worker::{Handler, Handlers, Options, StepContext, Subscriber};

use crate::Workflow;
use crate::step::{Body, Need, States, Step};

#[derive(Debug, Clone, Default)]
pub(crate) struct Plan {
    pub(crate) workflows: Vec<(Workflow, Arc<Revision>)>,
    /// Handlers that YAML calls, with their namespace where one was said.
    handlers: Vec<(Option<String>, Step)>,
    /// Those who take events; no handlers.
    subscribers: Handlers,
    pub(crate) states: States,
    pub(crate) worker: Options,
    problems: Vec<String>,
}

/// A step's function as the worker calls it.
pub(crate) struct StepHandler {
    pub(crate) body: Body,
    pub(crate) states: States,
}

impl Handler for StepHandler {
    fn call(&self, context: StepContext) -> BoxFuture<'static, Outcome> {
        self.body.run(&context, &self.states)
    }
}

impl Plan {
    pub(crate) fn new(worker: Options) -> Self {
        Self { worker, ..Self::default() }
    }

    pub(crate) fn add(&mut self, workflow: Workflow) -> Option<Arc<Revision>> {
        if self.find(&workflow.reference()).is_some() {
            self.problems
                .push(format!("workflow {} was given twice; remove one, or name it differently", workflow.reference()));
            return None;
        }
        match workflow.compile() {
            Ok(revision) => {
                self.workflows.push((workflow, Arc::clone(&revision)));
                Some(revision)
            }
            Err(error) => {
                self.problems.push(error.message);
                None
            }
        }
    }

    pub(crate) fn add_handler(&mut self, namespace: Option<&str>, step: Step) {
        self.handlers.push((namespace.map(str::to_owned), step));
    }

    pub(crate) fn subscribe(&mut self, event: &str, name: &str, subscriber: Arc<dyn Subscriber>) {
        if let Err(error) = self.subscribers.subscribe(event, name, subscriber) {
            self.problems.push(error.message);
        }
    }

    pub(crate) fn problem(&mut self, problem: String) {
        self.problems.push(problem);
    }

    pub(crate) fn find(&self, name: &WorkflowRef) -> Option<&Arc<Revision>> {
        self.workflows.iter().find(|(workflow, _)| workflow.reference() == *name).map(|(_, revision)| revision)
    }

    pub(crate) fn revisions(&self) -> Vec<Arc<Revision>> {
        self.workflows.iter().map(|(_, revision)| Arc::clone(revision)).collect()
    }

    /// Refuses a plan with a workflow that does not compile.
    pub(crate) fn check(&self) -> Result<()> {
        refuse(&self.problems)
    }

    /// Refuses what cannot work, all of it at once: what `check` refuses, two functions under one name, a state that nobody
    /// gave, a binding in YAML that does not fit the handler.
    pub(crate) fn handlers(&self) -> Result<Handlers> {
        let mut problems = self.problems.clone();
        let mut bodies: BTreeMap<(String, String), &Body> = BTreeMap::new();
        for (namespace, handler, step) in self.functions() {
            problems.extend(self.missing_states(&handler, &step.body));
            let known = bodies.entry((namespace.clone(), handler.clone())).or_insert(&step.body);
            if known.identity != step.body.identity {
                problems.push(format!(
                    "two functions are called `{handler}` in namespace {namespace}; name one of them differently"
                ));
            }
        }
        let signatures = self.signatures();
        for (workflow, revision) in self.workflows.iter().filter(|(workflow, _)| workflow.is_from_yaml()) {
            // A handler that is not here may be another worker's.
            let misfits = check_bindings(&revision.definition, &signatures);
            let misfits = misfits.iter().filter(|problem| problem.code != Code::UnknownHandler);
            problems.extend(misfits.map(|problem| format!("workflow {}: {problem}", workflow.reference())));
        }
        problems.dedup();
        refuse(&problems)?;
        let mut handlers = self.subscribers.clone();
        for ((namespace, name), body) in bodies {
            let handler = StepHandler { body: body.clone(), states: self.states.clone() };
            handlers.insert(&namespace, &name, Arc::new(handler))?;
        }
        Ok(handlers)
    }

    pub(crate) fn signatures(&self) -> Signatures {
        let mut handlers: Vec<Signature> = Vec::new();
        for (_, handler, step) in self.functions() {
            if !handlers.iter().any(|known| known.handler == handler) {
                handlers.push(Signature { handler, params: step.body.params(), result: step.body.result.clone() });
            }
        }
        handlers.sort_by(|one, other| one.handler.cmp(&other.handler));
        Signatures { handlers }
    }

    /// Every function with its namespace and its handler's name.
    fn functions(&self) -> Vec<(String, String, &Step)> {
        let mut functions = Vec::new();
        for (workflow, _) in &self.workflows {
            let namespace = &workflow.definition().namespace;
            functions.extend(workflow.handlers().map(|(handler, step)| (namespace.clone(), handler, step)));
        }
        for (namespace, step) in &self.handlers {
            let handler = step.own_name();
            let namespaces = match namespace {
                Some(namespace) => vec![namespace.clone()],
                None => self.namespaces(),
            };
            functions.extend(namespaces.into_iter().map(|namespace| (namespace, handler.clone(), step)));
        }
        functions
    }

    /// The namespaces of the workflows from YAML, which call handlers by name.
    fn namespaces(&self) -> Vec<String> {
        let yaml = self.workflows.iter().filter(|(workflow, _)| workflow.is_from_yaml());
        let mut namespaces: Vec<String> = yaml.map(|(workflow, _)| workflow.definition().namespace.clone()).collect();
        if namespaces.is_empty() {
            namespaces.push(DEFAULT_NAMESPACE.to_owned());
        }
        namespaces.sort();
        namespaces.dedup();
        namespaces
    }

    fn missing_states(&self, handler: &str, body: &Body) -> Vec<String> {
        let missing = |need: Need| match need {
            Need::State(id, name) if !self.states.has(id) => Some(missing_state(handler, name)),
            _ => None,
        };
        body.parameters.iter().filter_map(|parameter| missing(parameter.need)).collect()
    }
}

fn missing_state(handler: &str, name: &str) -> String {
    format!("`{handler}` takes `State<{name}>`, but no such state was given; add `.with_state(..)`")
}

fn refuse(problems: &[String]) -> Result<()> {
    if problems.is_empty() {
        return Ok(());
    }
    Err(Error::new(ErrorKind::Invalid, problems.join("\n")))
}

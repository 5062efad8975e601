//! Runs the scenarios of this directory, all at once, on a worker and a database. `SCENARIO` chooses those whose name contains it.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
#![expect(clippy::print_stdout, reason = "a line for each scenario")]
#![expect(clippy::disallowed_methods, reason = "the one place of this crate that reads the environment")]
mod scenario;

use std::collections::{BTreeMap, HashMap};
use std::fmt::Debug;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::FutureExt as _;
use scenario::{Behaviour, Scenario, payload};
use serde_json::Value;
use tasker_engine::queries::{PublicationFilter, TaskDetail};
use tasker_engine::{Engine, Submission};
use tasker_model::{DynamicName, Outcome, Payload, Revision, StepFailure, TaskId};
use tasker_worker::{Handler, Handlers, Options, StepContext, Worker};

const PATIENCE: Duration = Duration::from_secs(30);

/// The one handler of all scenarios: does what the scenario says of its step, else returns its arguments.
fn handler(scenarios: HashMap<String, Arc<Scenario>>) -> Arc<dyn Handler> {
    let runs = Arc::new(Mutex::new(HashMap::<(TaskId, String), usize>::new()));
    Arc::new(move |ctx: StepContext| {
        let task = &ctx.input().task;
        let scenario = Arc::clone(&scenarios[&task.workflow]);
        let mut runs = runs.lock().unwrap();
        // An item or range has the name of its step with its place.
        let step = &ctx.input().step.name;
        // One of a child's has that one's name before it.
        let child = task.workflow.strip_prefix(&scenario.name).and_then(|rest| rest.strip_prefix('_'));
        let name = &child.map_or_else(|| step.clone(), |child| format!("{child}/{step}"));
        let run = runs.entry((task.id, name.clone())).or_default();
        let behaviour = scenario.behaviour(name, *run);
        *run += 1;
        async move { act(&ctx, behaviour).await }.boxed()
    })
}

async fn act(ctx: &StepContext, behaviour: Option<Behaviour>) -> Outcome {
    match &behaviour {
        None => {
            return match ctx.arguments() {
                Ok(arguments) => Outcome::success(Payload::from_value(&arguments).unwrap()),
                Err(error) => Outcome::failure(StepFailure::permanent(error.message)),
            };
        }
        Some(Behaviour::SaveAndFail(cursor)) => ctx.checkpoint(cursor).await.unwrap(),
        Some(Behaviour::ReturnCursor(())) => {
            return Outcome::success(ctx.last_checkpoint().map_or_else(Payload::null, |last| last.cursor));
        }
        Some(Behaviour::ReturnItem(())) => {
            return Outcome::success(ctx.input().step.item.clone().unwrap_or_default());
        }
        Some(Behaviour::ReturnResult(())) => {
            let undone = DynamicName::of(&ctx.input().step.name).undoes.unwrap();
            return Outcome::success(ctx.input().results[undone].clone());
        }
        Some(Behaviour::Sleep(ms)) => {
            let stopped = tokio::time::timeout(Duration::from_millis(*ms), ctx.token().cancelled()).await;
            if stopped.is_ok() {
                return Outcome::Cancelled;
            }
        }
        Some(_) => {}
    }
    behaviour.unwrap().outcome()
}

struct Runner {
    engine: Engine,
    worker: Worker,
}

impl Runner {
    async fn detail(&self, task: TaskId) -> TaskDetail {
        self.engine.task_detail(task).await.unwrap()
    }

    /// Waits until a condition such as `approval: ready` holds.
    async fn until(&self, task: TaskId, condition: &str) {
        let (step, state) = condition.split_once(": ").unwrap();
        let end = tokio::time::Instant::now() + PATIENCE;
        loop {
            let detail = self.detail(task).await;
            if detail.steps.iter().any(|row| row.name == step && row.state.to_string() == state) {
                return;
            }
            assert!(tokio::time::Instant::now() < end, "`{condition}` never came true");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Waits until a task has ended; answers what is wrong if it does not.
    async fn ended(&self, task: TaskId) -> Option<String> {
        let end = tokio::time::Instant::now() + PATIENCE;
        // A signal or a cancel may end it, of which the worker hears nothing.
        while self.engine.task_end(task).await.unwrap().is_none() {
            if tokio::time::Instant::now() > end {
                return Some("it never ended".to_owned());
            }
            let _ = tokio::time::timeout(Duration::from_millis(20), self.worker.finished(task)).await;
        }
        None
    }

    /// The task that a step runs, once it does.
    async fn child(&self, task: TaskId, step: &str) -> TaskId {
        let end = tokio::time::Instant::now() + PATIENCE;
        loop {
            let detail = self.detail(task).await;
            let row = detail.steps.iter().find(|row| row.name == step).unwrap();
            if let Some(child) = &row.child {
                return child.task_id;
            }
            assert!(tokio::time::Instant::now() < end, "`{step}` never had a child");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Runs one to its end; answers what is not as it must be.
    async fn run(&self, scenario: &Scenario) -> Vec<String> {
        let revision = self.worker.revision_id(&scenario.name.parse().unwrap()).unwrap();
        let submission = Submission::new(revision, payload(&scenario.input));
        let task = self.worker.submit(&[submission]).await.unwrap()[0].task_id;
        let mut wrong = Vec::new();
        for signal in &scenario.signals {
            if let Some(condition) = &signal.when {
                self.until(task, condition).await;
            }
            let to = match &signal.to {
                Some(step) => self.child(task, step).await,
                None => task,
            };
            let sent = self.engine.signal(to, &signal.send, &payload(&signal.payload), "scenario").await;
            let taken_by = sent.unwrap_or_else(|error| Some(error.kind.to_string()));
            compare(&mut wrong, &format!("signal {} taken by", signal.send), &signal.taken_by, &taken_by);
        }
        if let Some(condition) = &scenario.cancel_when {
            self.until(task, condition).await;
            self.engine.cancel(task, "scenario", "as the scenario says").await.unwrap();
        }
        wrong.extend(self.ended(task).await);
        if let Some(reason) = &scenario.compensate {
            self.engine.compensate(task, "scenario", reason).await.unwrap();
            wrong.extend(self.ended(task).await);
        }
        let children: Vec<TaskId> =
            self.detail(task).await.steps.iter().filter_map(|step| Some(step.child.as_ref()?.task_id)).collect();
        for child in children {
            wrong.extend(self.ended(child).await);
        }
        self.check(scenario, task, &mut wrong).await;
        wrong
    }

    async fn check(&self, scenario: &Scenario, task: TaskId, wrong: &mut Vec<String>) {
        let (detail, expect) = (self.detail(task).await, &scenario.expect);
        compare(wrong, "the task is", &expect.task, &detail.task.state.to_string());
        let rows: BTreeMap<_, _> = detail.steps.iter().map(|row| (row.name.clone(), row)).collect();
        let states = rows.iter().filter(|(name, _)| expect.steps.contains_key(*name));
        let states = states.map(|(name, row)| (name.clone(), row.state.to_string())).collect();
        compare(wrong, "the steps are", &expect.steps, &states);
        for (name, attempts) in &expect.attempts {
            compare(wrong, &format!("attempts of {name}"), attempts, &rows[name].attempt);
        }
        for (name, result) in &expect.results {
            let found: Value = rows[name].result.as_ref().map(|result| result.to().unwrap()).unwrap_or_default();
            compare(wrong, &format!("the result of {name} is"), result, &found);
        }
        for (name, state) in &expect.children {
            let found = rows[name].child.as_ref().map(|child| child.state.to_string());
            compare(wrong, &format!("the child of {name} is"), &Some(state.clone()), &found);
        }
        for (name, error) in &expect.errors {
            let stored = if name == "task" { &detail.task.error } else { &rows[name].error };
            let found: Value = stored.as_ref().map(|error| error.to().unwrap()).unwrap_or_default();
            let code = found.get("code").or_else(|| found.get("kind")).and_then(Value::as_str).unwrap_or_default();
            compare(wrong, &format!("the error of {name} is"), error, &code.to_owned());
        }
        if let Some(expected) = &expect.published {
            let filter = PublicationFilter { task: Some(task), limit: 1_000, ..PublicationFilter::default() };
            let published = self.engine.publications(&filter).await.unwrap();
            let names = published.iter().rev().filter_map(|row| row.event.strip_prefix("default."));
            compare(wrong, "it published", expected, &names.map(str::to_owned).collect());
        }
        let events = self.engine.events(task, None).await.unwrap();
        for (name, kinds) in &expect.events {
            let of = |step: Option<&str>| if name == "task" { step.is_none() } else { step == Some(name) };
            let found =
                events.iter().filter(|event| of(event.step.as_deref())).map(|event| event.kind.clone()).collect();
            compare(wrong, &format!("the events of {name} are"), kinds, &found);
        }
    }
}

fn compare<T: PartialEq + Debug>(wrong: &mut Vec<String>, what: &str, expected: &T, found: &T) {
    if expected != found {
        wrong.push(format!("{what} {found:?}, expected {expected:?}"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_scenario_ends_as_it_says() {
    let only = std::env::var("SCENARIO").unwrap_or_default();
    let scenarios = Scenario::all(&only);
    assert!(!scenarios.is_empty(), "no scenario's name contains `{only}`");
    let scenarios: Vec<(String, Arc<Scenario>)> =
        scenarios.into_iter().map(|(name, scenario)| (name, Arc::new(scenario))).collect();
    let revisions: Vec<(Arc<Revision>, Arc<Scenario>)> = scenarios
        .iter()
        .flat_map(|(_, scenario)| {
            scenario.revisions().into_iter().map(|revision| (Arc::new(revision), Arc::clone(scenario)))
        })
        .collect();
    let by_workflow: HashMap<_, _> =
        revisions.iter().map(|(revision, scenario)| (revision.definition.name.clone(), Arc::clone(scenario))).collect();
    assert_eq!(by_workflow.len(), revisions.len(), "two scenarios have one name");
    let database = tasker_testkit::database("tasker_scenarios", async |url| {
        let engine = Engine::connect(&tasker_engine::Options::new(url)).await.unwrap();
        engine.migrate().await.unwrap();
        engine.pool().close().await;
    })
    .await;
    let engine = Engine::connect(&tasker_engine::Options::new(database.engine_url())).await.unwrap();
    let mut handlers = Handlers::default();
    handlers.insert("default", "step", handler(by_workflow)).unwrap();
    let revisions = revisions.into_iter().map(|(revision, _)| revision).collect();
    let options = Options { concurrency: 64, ..Options::default() };
    let worker = Worker::start(engine.clone(), revisions, handlers, options).await.unwrap();
    let runner = Arc::new(Runner { engine, worker });
    let mut all = tokio::task::JoinSet::new();
    for (name, scenario) in &scenarios {
        let (runner, name, scenario) = (Arc::clone(&runner), name.clone(), Arc::clone(scenario));
        all.spawn(async move { (name, runner.run(&scenario).await) });
    }
    let mut results = all.join_all().await;
    results.sort();
    for (name, wrong) in &results {
        println!("{name}: {}", if wrong.is_empty() { "ok".to_owned() } else { wrong.join("; ") });
    }
    runner.worker.drain(Duration::from_secs(5)).await;
    let breaches: Vec<String> =
        sqlx::query_scalar("select concat_ws(' ', invariant, task_id, idx, detail) from tasker.check_invariants()")
            .fetch_all(runner.engine.pool())
            .await
            .unwrap();
    assert!(breaches.is_empty(), "{breaches:?}");
    let wrong = results.iter().filter(|(_, wrong)| !wrong.is_empty()).count();
    assert_eq!(wrong, 0, "{wrong} of {} scenarios went wrong", results.len());
}

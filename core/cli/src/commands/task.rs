//! `tasker task`: lists, details, waiting, cancelling, history.

use std::time::Duration;

use serde_json::json;
use tasker_engine::queries::{EVENTS_LIMIT, EventRow, TaskDetail, TaskFilter, TaskRow};
use tasker_engine::{CancelReply, Engine, clock};
use tasker_model::state::TaskState;
use tasker_model::{Error, ErrorKind, TaskId, WorkflowRef};
use tokio::time::Instant;

use super::tree::Tree;
use super::{Context, submit, watch};
use crate::args::{ListArgs, SignalArgs, StateName, TaskCommand, VerbArgs};
use crate::config;
use crate::failure::{Failure, Outcome};
use crate::input::{read_payload, read_tags};
use crate::output::{elapsed, error_message, or_dash, plain, precise_time, shorten, table, talk, time};
use crate::when;

/// The exit code of a task that did not complete.
const TASK_FAILED: i32 = 6;

/// The longest pause between two looks at a task.
const LONGEST_PAUSE: Duration = Duration::from_millis(500);

pub(super) async fn run(context: &Context, command: TaskCommand) -> Outcome {
    match command {
        TaskCommand::Run(args) => submit::run(context, *args).await,
        TaskCommand::List(args) => list(context, args).await,
        TaskCommand::Show(args) => {
            let (engine, task) = find(context, &args.task).await?;
            let detail = engine.task_detail(task).await?;
            context.output.show(&detail, |detail| describe(context, detail));
            Ok(())
        }
        TaskCommand::Watch(args) => {
            let timeout = args.timeout.as_deref().map(|t| when::duration("--timeout", t)).transpose()?;
            let (engine, task) = find(context, &args.task).await?;
            watch::watch(context, &engine, task, timeout).await
        }
        TaskCommand::Wait(args) => {
            let timeout = args.timeout.as_deref().map(|t| when::duration("--timeout", t)).transpose()?;
            let (engine, task) = find(context, &args.task).await?;
            wait(context, &engine, task, timeout).await
        }
        TaskCommand::Cancel(args) => cancel(context, args).await,
        TaskCommand::Signal(args) => signal(context, args).await,
        TaskCommand::Compensate(args) => compensate(context, args).await,
        TaskCommand::Events(args) => {
            let (engine, task) = find(context, &args.task).await?;
            let events = all_events(&engine, task).await?;
            context.output.show(&events, |events| history(events));
            Ok(())
        }
    }
}

async fn all_events(engine: &Engine, task: TaskId) -> Outcome<Vec<EventRow>> {
    let mut events: Vec<EventRow> = Vec::new();
    loop {
        let place = events.last().map(|last| (last.at, last.event_id));
        let page = engine.events(task, place).await?;
        let is_last = page.len() < EVENTS_LIMIT;
        events.extend(page);
        if is_last {
            return Ok(events);
        }
    }
}

async fn find(context: &Context, text: &str) -> Outcome<(Engine, TaskId)> {
    let engine = context.config.connect().await?;
    let task = engine.find_task(text).await?;
    Ok((engine, task))
}

async fn list(context: &Context, args: ListArgs) -> Outcome {
    let tags = read_tags(&args.tag)?;
    let engine = context.config.connect().await?;
    let mut filter = TaskFilter {
        state: args.state.map(|state| match state {
            StateName::Running => TaskState::Running,
            StateName::Complete => TaskState::Complete,
            StateName::Failed => TaskState::Failed,
            StateName::Cancelled => TaskState::Cancelled,
        }),
        namespace: args.namespace,
        key: args.key,
        tags,
        limit: args.limit,
        ..TaskFilter::default()
    };
    if let Some(name) = &args.workflow {
        let workflow: WorkflowRef = name.parse()?;
        if name.contains('.') {
            filter.namespace = Some(workflow.namespace);
        }
        filter.workflow = Some(workflow.name);
    }
    if let Some(text) = &args.since {
        let mut conn = engine.acquire().await?;
        let now = clock::now(&mut conn, engine.schema()).await?;
        filter.since = Some(when::since(text, now)?);
    }
    if let Some(text) = &args.before {
        filter.before = Some(engine.find_task(text).await?);
    }
    let tasks = engine.list_tasks(&filter).await?;
    context.output.show(&tasks, |tasks| {
        table(
            &["task", "workflow", "state", "steps", "key", "submitted", "took", "error"],
            tasks.iter().map(row).collect(),
            "no such task",
        )
    });
    if tasks.len() == args.limit as usize
        && let Some(last) = tasks.last()
    {
        talk(format!("there may be more: --before {}", last.task_id));
    }
    Ok(())
}

fn row(task: &TaskRow) -> Vec<String> {
    vec![
        task.task_id.to_string(),
        task.workflow.to_string(),
        state_of(task),
        format!("{}/{}", task.steps_done, task.steps),
        or_dash(task.key.as_deref()),
        time(task.created_at),
        or_dash(task.finished_at.map(|at| elapsed((at - task.created_at).num_milliseconds()))),
        task.error.as_ref().map(|error| shorten(&error_message(error), 60)).unwrap_or_default(),
    ]
}

/// The state for people: what it is on its way to, too.
pub(super) fn state_of(task: &TaskRow) -> String {
    match task.ending {
        Some(ending) if task.state == TaskState::Running && task.compensating => {
            format!("being undone, ending as {ending}")
        }
        Some(ending) if task.state == TaskState::Running => format!("ending as {ending}"),
        _ if task.paused => format!("{}, paused", task.state),
        _ => task.state.to_string(),
    }
}

fn describe(context: &Context, detail: &TaskDetail) -> String {
    let task = &detail.task;
    let mut lines = vec![Tree::new(context.output).draw(detail), String::new()];
    let mut fact = |name: &str, value: Option<String>| {
        if let Some(value) = value {
            lines.push(format!("{name:14} {}", plain(&value)));
        }
    };
    fact("task", Some(task.task_id.to_string()));
    fact("state", Some(state_of(task)));
    fact("child of", detail.parent.as_ref().map(|parent| format!("{}/{}", parent.task_id, parent.step)));
    fact("key", task.key.clone());
    fact(
        "revision",
        Some(match &detail.version {
            Some(version) => format!("{} ({version})", shorten(&detail.revision, 13)),
            None => shorten(&detail.revision, 13),
        }),
    );
    fact("submitted", Some(precise_time(task.created_at)));
    fact("run at", task.run_at.map(precise_time));
    fact("deadline", task.deadline.map(precise_time));
    fact(
        "finished",
        task.finished_at
            .map(|at| format!("{}, after {}", precise_time(at), elapsed((at - task.created_at).num_milliseconds()))),
    );
    fact("correlation id", detail.correlation_id.clone());
    fact("tags", (task.tags.get() != "{}").then(|| task.tags.to_string()));
    fact("error", task.error.as_ref().map(error_message));
    fact("input", Some(shorten(detail.input.get(), 2_000)));
    fact("output", detail.output.as_ref().map(|output| shorten(output.get(), 2_000)));
    lines.join("\n")
}

fn history(events: &[EventRow]) -> String {
    let rows = events.iter().map(|event| {
        let mut why: Vec<String> = Vec::new();
        why.extend(event.actor.as_ref().map(|actor| format!("by {actor}")));
        why.extend(event.reason.clone());
        why.extend(event.error.as_ref().map(|error| shorten(&error_message(error), 80)));
        why.extend(event.detail.as_ref().map(|detail| shorten(detail.get(), 80)));
        vec![
            precise_time(event.at),
            event.kind.clone(),
            or_dash(event.step.as_deref()),
            or_dash(event.attempt),
            or_dash(event.worker.as_deref()),
            or_dash(event.duration_ms.map(|ms| elapsed(ms.into()))),
            why.join("; "),
        ]
    });
    table(&["at", "event", "step", "attempt", "worker", "ran", "why"], rows.collect(), "nothing happened yet")
}

/// Waits for the end of a task, shows its output, and ends with the task's status.
pub(super) async fn wait(context: &Context, engine: &Engine, task: TaskId, timeout: Option<Duration>) -> Outcome {
    let begun = Instant::now();
    let mut pause = Duration::from_millis(20);
    let row = loop {
        let row = engine.task_row(task).await?;
        if row.state.is_terminal() {
            break row;
        }
        if timeout.is_some_and(|timeout| begun.elapsed() >= timeout) {
            return Err(timed_out(&row));
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    };
    let output = engine.task_output(task).await?;
    let value = json!({
        "task_id": task,
        "workflow": row.workflow,
        "state": row.state,
        "output": output,
        "error": row.error,
        "created_at": row.created_at,
        "finished_at": row.finished_at,
    });
    let failed = row.state != TaskState::Complete;
    if !failed || context.output.format == crate::args::Format::Json {
        context.output.show(&value, |_| output.unwrap_or_default().to_string());
    }
    ended(&row)
}

/// The task goes on; this command does not.
pub(super) fn timed_out(row: &TaskRow) -> Failure {
    Error::new(ErrorKind::Timeout, format!("task {} is still {}; it goes on", row.task_id, state_of(row))).into()
}

/// Turns a task's end into the command's.
pub(super) fn ended(row: &TaskRow) -> Outcome {
    if row.state == TaskState::Complete {
        return Ok(());
    }
    let why = row.error.as_ref().map(error_message).unwrap_or_default();
    talk(format!("task {} is {}: {why}", row.task_id, row.state));
    Err(Failure::Told(TASK_FAILED))
}

pub(super) async fn signal(context: &Context, args: SignalArgs) -> Outcome {
    let payload = read_payload(args.payload.as_deref())?;
    let (engine, task) = find(context, &args.task).await?;
    let actor = args.actor.or_else(config::user).unwrap_or_else(|| "cli".to_owned());
    let taken_by = engine.signal(task, &args.name, &payload, &actor).await?;
    let value = json!({ "task_id": task, "signal": args.name, "taken_by": taken_by });
    context.output.show(&value, |_| match &taken_by {
        Some(step) => format!("step {step} of task {task} took signal {}", args.name),
        None => format!("task {task} keeps signal {} for the step that will wait for it", args.name),
    });
    Ok(())
}

async fn cancel(context: &Context, args: VerbArgs) -> Outcome {
    let (engine, task) = find(context, &args.task).await?;
    let reason = context.answer(args.reason, "--reason", &format!("Why should task {task} be cancelled?"))?;
    let actor = args.actor.or_else(config::user).unwrap_or_else(|| "cli".to_owned());
    let reply = engine.cancel(task, &actor, &reason).await?;
    let (state, ending) = match reply {
        CancelReply::Ended(state) => (state, false),
        CancelReply::Ending => (TaskState::Running, true),
    };
    let value = json!({ "task_id": task, "state": state, "ending": ending });
    context.output.show(&value, |_| match reply {
        CancelReply::Ended(TaskState::Cancelled) => format!("task {task} is cancelled"),
        CancelReply::Ended(state) => format!("task {task} was {state} already"),
        CancelReply::Ending => {
            format!("task {task} is being cancelled: its running handlers have ten seconds to stop")
        }
    });
    Ok(())
}

pub(super) async fn compensate(context: &Context, args: VerbArgs) -> Outcome {
    let (engine, task) = find(context, &args.task).await?;
    let reason = context.answer(args.reason, "--reason", &format!("Why should what task {task} did be undone?"))?;
    let actor = args.actor.or_else(config::user).unwrap_or_else(|| "cli".to_owned());
    let (state, ending) = match engine.compensate(task, &actor, &reason).await? {
        CancelReply::Ended(state) => (state, false),
        CancelReply::Ending => (TaskState::Running, true),
    };
    let value = json!({ "task_id": task, "state": state, "ending": ending });
    context.output.show(&value, |_| {
        if ending {
            format!("what task {task} did is being undone; follow it with: tasker task watch {task}")
        } else {
            format!("task {task} is {state}: no step of it was done that could be undone")
        }
    });
    Ok(())
}

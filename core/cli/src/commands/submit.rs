//! `tasker run`: making a task.

use serde_json::json;
use tasker_engine::{Engine, Root, Submission, clock, pgmq};
use tasker_model::definition::Priority;
use tasker_model::{Error, ErrorKind, Revision, TaskId, WorkflowRef};

use super::graph::Drawing;
use super::{Context, task, watch};
use crate::args::{GraphFormat, PriorityName, RunArgs};
use crate::config;
use crate::failure::Outcome;
use crate::input::{read_input, read_tags};
use crate::output::talk;
use crate::when;

pub(super) async fn run(context: &Context, args: RunArgs) -> Outcome {
    let workflow: WorkflowRef = args.workflow.parse()?;
    let timeout = args.timeout.as_deref().map(|text| when::duration("--timeout", text)).transpose()?;
    // What can be refused without a database is refused before it.
    let input = read_input(args.input.as_deref(), &args.set)?;
    let tags = read_tags(&args.tag)?;
    let delay = args.delay.as_deref().map(|text| when::duration("--delay", text)).transpose()?;
    let deadline = args.deadline.as_deref().map(|text| when::duration("--deadline", text)).transpose()?;

    let engine = context.config.connect().await?;
    let mut conn = engine.acquire().await?;
    let revision_id = engine.current_revision(&mut conn, &workflow).await?;
    let revision = engine.revision(&mut conn, revision_id).await?;
    let now = clock::now(&mut conn, engine.schema()).await?;
    let mut submission = Submission::new(revision_id, input);
    submission.key = args.key;
    submission.tags = tags;
    submission.priority = args.priority.map(priority);
    submission.run_at = delay.map(|delay| when::after(now, delay));
    submission.deadline = deadline.map(|deadline| when::after(now, deadline));
    submission.correlation_id = args.correlation_id;
    submission.skip = args.skip;
    submission.check(&revision)?;
    drop(conn);

    if args.dry_run {
        return explain(context, &workflow, &revision, &submission);
    }
    let (task_id, created) = submit(&engine, &submission).await?;
    if args.watch || args.wait {
        talk(format!("{} {workflow} {task_id}", if created { "running" } else { "found" }));
    }
    if args.watch {
        return watch::watch(context, &engine, task_id, timeout).await;
    }
    if args.wait {
        return task::wait(context, &engine, task_id, timeout).await;
    }
    let value = json!({ "task_id": task_id, "workflow": workflow, "created": created });
    context.output.show(&value, |_| task_id.to_string());
    if !created {
        talk("the key was used with the same input before: this is that task");
    }
    if context.output.is_terminal {
        talk(format!("follow it with: tasker task watch {task_id}"));
    }
    Ok(())
}

async fn submit(engine: &Engine, submission: &Submission) -> Outcome<(TaskId, bool)> {
    let mut conn = engine.acquire().await?;
    let actor = config::user();
    let reply = engine.submit(&mut conn, std::slice::from_ref(submission), actor.as_deref(), Root::Anyone).await?;
    let queues: Vec<i32> = reply.left.iter().map(|(queue, _)| *queue).collect();
    if !queues.is_empty() {
        pgmq::wake(engine, &mut conn, &queues).await?;
    }
    let submitted = reply
        .submitted
        .first()
        .ok_or_else(|| Error::new(ErrorKind::Internal, "the database did not say which task was made"))?;
    Ok((submitted.task_id, submitted.created))
}

/// Shows what would be submitted.
fn explain(context: &Context, workflow: &WorkflowRef, revision: &Revision, submission: &Submission) -> Outcome {
    let drawing = Drawing::new(&revision.definition)?;
    let value = json!({
        "dry_run": true,
        "workflow": workflow,
        "revision": revision.hash,
        "input": submission.input,
        "tags": submission.tags,
        "key": submission.key,
        "run_at": submission.run_at,
        "deadline": submission.deadline,
        "skip": submission.skip,
    });
    context.output.show(&value, |_| {
        format!("{}\ninput: {}\nnothing was submitted", drawing.draw(GraphFormat::Terminal), submission.input)
    });
    Ok(())
}

fn priority(name: PriorityName) -> Priority {
    match name {
        PriorityName::Low => Priority::Low,
        PriorityName::Normal => Priority::Normal,
        PriorityName::High => Priority::High,
        PriorityName::Critical => Priority::Critical,
    }
}

//! `tasker workflow`: files and registered revisions.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::json;
use tasker_engine::queries::WorkflowDetail;
use tasker_model::{Definition, EventDefinition, Revision, WorkflowRef};

use super::graph::Drawing;
use super::{Context, lint};
use crate::args::WorkflowCommand;
use crate::failure::{Outcome, invalid};
use crate::output::{count, elapsed, or_dash, table, talk, time};

/// How much of a content hash is shown: enough to be unique, short enough to be read.
const HASH_SHOWN: usize = 12;

pub(super) async fn run(context: &Context, command: WorkflowCommand) -> Outcome {
    match command {
        WorkflowCommand::List => list(context).await,
        WorkflowCommand::Show(args) => show(context, &args.workflow).await,
        WorkflowCommand::Lint { files, handlers } => lint::run(context, &files, handlers.as_deref()),
        WorkflowCommand::Graph { workflow, format } => {
            let definition = file_or_registered(context, &workflow).await?;
            let drawing = Drawing::new(&definition)?;
            context.output.show(&drawing, |drawing| drawing.draw(format));
            Ok(())
        }
        WorkflowCommand::Export(args) => {
            let definition = registered(context, &args.workflow).await?;
            context.output.show(&definition, Definition::to_yaml);
            Ok(())
        }
        WorkflowCommand::Activate { workflow, revision } => {
            let workflow: WorkflowRef = workflow.parse()?;
            let engine = context.config.connect().await?;
            let hash = engine.activate(&workflow, &revision).await?;
            let value = json!({ "workflow": workflow, "revision": hash });
            context.output.show(&value, |_| format!("{workflow} uses revision {}", short(&hash)));
            Ok(())
        }
        WorkflowCommand::Register { file } => register(context, &file).await,
    }
}

async fn list(context: &Context) -> Outcome {
    let engine = context.config.connect().await?;
    let workflows = engine.workflows().await?;
    context.output.show(&workflows, |workflows| {
        let rows = workflows.iter().map(|row| {
            vec![
                row.workflow.to_string(),
                or_dash(row.version.as_deref()),
                or_dash(row.revision.as_deref().map(short)),
                row.revisions.to_string(),
                row.steps.to_string(),
                or_dash(row.last_task_at.map(time)),
                if row.paused { "paused" } else { "open" }.to_owned(),
            ]
        });
        table(
            &["workflow", "version", "revision", "revisions", "steps", "last task", "state"],
            rows.collect(),
            "no workflow is registered; a worker registers its own, a file is registered with: tasker workflow register FILE",
        )
    });
    Ok(())
}

async fn show(context: &Context, name: &str) -> Outcome {
    let workflow: WorkflowRef = name.parse()?;
    let engine = context.config.connect().await?;
    let detail = engine.workflow(&workflow).await?;
    context.output.show(&detail, describe);
    Ok(())
}

fn describe(detail: &WorkflowDetail) -> String {
    let steps = detail.step_list.iter().map(|step| {
        vec![
            step.name.clone(),
            or_dash(step.handler.as_deref()),
            match (&step.kind, &step.handler) {
                (Some(kind), _) => kind.clone(),
                (None, Some(_)) => "never announced".to_owned(),
                (None, None) => "waits".to_owned(),
            },
            or_dash(step.queue.as_deref()),
            step.handler.as_ref().map_or_else(|| "-".to_owned(), |_| step.max_attempts.to_string()),
            step.handler.as_ref().map_or_else(|| "-".to_owned(), |_| elapsed(step.timeout_ms.into())),
            step.parents.join(", "),
        ]
    });
    let revisions = detail.revision_list.iter().map(|revision| {
        vec![
            short(&revision.revision),
            or_dash(revision.version.as_deref()),
            time(revision.created_at),
            if revision.current { "current" } else { "" }.to_owned(),
        ]
    });
    let events: BTreeMap<String, EventDefinition> =
        detail.definition.at(&["events"]).and_then(|events| events.to().ok()).unwrap_or_default();
    let events = events.iter().map(|(name, event)| {
        vec![name.clone(), event.on.as_str().to_owned(), event.step.clone().unwrap_or_else(|| "the task".to_owned())]
    });
    let events = match table(&["event", "on", "of"], events.collect(), "") {
        events if events.is_empty() => events,
        events => format!("\n\n{events}"),
    };
    let paused = if detail.row.paused { "   paused" } else { "" };
    format!(
        "{}   {}{paused}\n\n{}{events}\n\n{}",
        detail.row.workflow,
        count(detail.step_list.len(), "step"),
        table(&["step", "handler", "kind", "queue", "attempts", "timeout", "waits for"], steps.collect(), "no steps"),
        table(&["revision", "version", "registered", ""], revisions.collect(), "")
    )
}

async fn register(context: &Context, file: &Path) -> Outcome {
    let definition = lint::definition(context, file)?;
    let workflow = definition.reference();
    let revision = Revision::compile(definition).map_err(|problems| {
        let list: Vec<String> = problems.iter().map(ToString::to_string).collect();
        invalid(format!("{}: {}", file.display(), list.join("; ")))
    })?;
    let engine = context.config.connect().await?;
    let registered = engine.register(&revision).await?;
    let value = json!({ "workflow": workflow, "revision": revision.hash, "created": registered.created });
    context.output.show(&value, |_| {
        let hash = short(&revision.hash);
        if registered.created {
            format!("{workflow} has the new revision {hash}")
        } else {
            format!("{workflow} had the revision {hash} already")
        }
    });
    if !registered.created {
        talk(format!(
            "if another revision is current, make this one current with: tasker workflow activate {workflow} {}",
            short(&revision.hash)
        ));
    }
    Ok(())
}

/// A name that is a file, or looks like one, is a file; else a registered workflow.
async fn file_or_registered(context: &Context, name: &str) -> Outcome<Definition> {
    let path = Path::new(name);
    let looks_like_a_file = path.extension().is_some_and(|extension| extension == "yaml" || extension == "yml");
    if looks_like_a_file || path.is_file() {
        return lint::definition(context, path);
    }
    registered(context, name).await
}

async fn registered(context: &Context, name: &str) -> Outcome<Definition> {
    let workflow: WorkflowRef = name.parse()?;
    let engine = context.config.connect().await?;
    let mut conn = engine.acquire().await?;
    let current = engine.current_revision(&mut conn, &workflow).await?;
    let revision = engine.revision(&mut conn, current).await?;
    let mut definition = revision.definition;
    // The database does not keep the order in which steps were written; that of the graph reads best.
    let place = |name: &str| revision.steps.iter().position(|step| step.name == name);
    definition.steps.sort_by_key(|step| place(&step.name));
    Ok(definition)
}

fn short(hash: impl AsRef<str>) -> String {
    hash.as_ref().chars().take(HASH_SHOWN).collect()
}

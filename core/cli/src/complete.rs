//! What a shell may complete: the names of workflows and the newest tasks, asked of the database at the press of a key.

use std::ffi::OsStr;
use std::time::Duration;

use clap::Parser;
use clap_complete::CompletionCandidate;
use tasker_engine::Engine;
use tasker_engine::queries::TaskFilter;

use crate::args::Cli;
use crate::config::Config;
use crate::output::count;

/// The variable in which a shell says that it wants completions.
pub(crate) const VARIABLE: &str = "COMPLETE";
/// Nobody waits longer for a completion.
const PATIENCE: Duration = Duration::from_secs(2);
const TASKS: u32 = 20;

/// The registered workflows.
pub(crate) fn workflows(current: &OsStr) -> Vec<CompletionCandidate> {
    candidates(current, async |engine| {
        let workflows = engine.workflows().await?;
        Ok(workflows
            .into_iter()
            .map(|row| (row.workflow.to_string(), count(usize::try_from(row.steps).unwrap_or_default(), "step")))
            .collect())
    })
}

/// The newest tasks, by id and by key.
pub(crate) fn tasks(current: &OsStr) -> Vec<CompletionCandidate> {
    candidates(current, async |engine| {
        let filter = TaskFilter { limit: TASKS, ..TaskFilter::default() };
        let tasks = engine.list_tasks(&filter).await?;
        let mut found = vec![("@last".to_owned(), "the newest task".to_owned())];
        for task in tasks {
            let about = format!("{} {}", task.workflow, task.state);
            found.extend(task.key.map(|key| (key, about.clone())));
            found.push((task.task_id.to_string(), about));
        }
        Ok(found)
    })
}

/// Asks the configured database. Without one there is nothing to complete, and nothing to say about it.
fn candidates(
    current: &OsStr,
    ask: impl AsyncFnOnce(Engine) -> tasker_model::Result<Vec<(String, String)>>,
) -> Vec<CompletionCandidate> {
    let asked = async {
        let global = Cli::try_parse_from(["tasker", "version"]).ok()?.global;
        let engine = Config::load(&global).ok()?.connect().await.ok()?;
        ask(engine).await.ok()
    };
    let found = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .ok()
        .and_then(|runtime| runtime.block_on(async { tokio::time::timeout(PATIENCE, asked).await.ok()? }));
    let start = current.to_string_lossy();
    found
        .unwrap_or_default()
        .into_iter()
        .filter(|(name, _)| name.starts_with(&*start))
        .map(|(name, about)| CompletionCandidate::new(name).help(Some(about.into())))
        .collect()
}

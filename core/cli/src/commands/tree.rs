//! The picture of a task: its steps with what each is doing.

use tasker_engine::queries::{StepDisplay, StepRow, TaskDetail};
use tasker_model::state::TaskState;

use super::task::state_of;
use crate::output::{Color, Output, elapsed, error_message, shorten};

const BAR: usize = 10;
/// What a step that somebody should look at may say.
const WHY: usize = 70;

/// Draws a task.
#[derive(Debug, Clone, Copy)]
pub(super) struct Tree {
    output: Output,
    /// Turns with each picture, so that running steps move.
    turn: usize,
}

impl Tree {
    pub(super) fn new(output: Output) -> Self {
        Self { output, turn: 0 }
    }

    pub(super) fn turn(&mut self) {
        self.turn += 1;
    }

    /// Draws the head and one line a step.
    pub(super) fn draw(self, detail: &TaskDetail) -> String {
        let mut lines = vec![self.head(detail)];
        lines.extend(self.steps(detail));
        lines.join("\n")
    }

    /// The workflow, its key, how far it is and how long it has taken.
    pub(super) fn head(self, detail: &TaskDetail) -> String {
        let task = &detail.task;
        let end = task.finished_at.unwrap_or(detail.read_at);
        let total = usize::try_from(task.steps).unwrap_or_default().max(1);
        let ended = usize::try_from(task.steps_ended).unwrap_or_default();
        let full = ended * BAR / total;
        let bar = "█".repeat(full) + &"░".repeat(BAR - full.min(BAR));
        let key = task.key.as_ref().map(|key| format!("  key={key}")).unwrap_or_default();
        let color = match task.state {
            TaskState::Running => Color::Blue,
            TaskState::Complete => Color::Green,
            TaskState::Failed => Color::Red,
            TaskState::Cancelled => Color::Yellow,
        };
        format!(
            "{}  {bar} {}/{}  {}  {}  {}{key}",
            task.workflow,
            task.steps_ended,
            task.steps,
            elapsed((end - task.created_at).num_milliseconds()),
            self.output.paint(color, &state_of(task)),
            task.task_id,
        )
    }

    /// One line a step.
    pub(super) fn steps(self, detail: &TaskDetail) -> Vec<String> {
        let width = detail.steps.iter().map(|step| step.name.chars().count()).max().unwrap_or_default();
        let last = detail.steps.len().saturating_sub(1);
        let line = |(at, step): (usize, &StepRow)| {
            let branch = if at == last { "└─" } else { "├─" };
            let (glyph, color) = self.glyph(step.display);
            let text = format!(
                "{branch} {} {:width$}  {}",
                self.output.paint(color, glyph),
                step.name,
                self.words(step, detail)
            );
            text.trim_end().to_owned()
        };
        detail.steps.iter().enumerate().map(line).collect()
    }

    fn glyph(self, display: StepDisplay) -> (&'static str, Color) {
        const SPINNER: [&str; 4] = ["◐", "◓", "◑", "◒"];
        match display {
            StepDisplay::Waiting => ("·", Color::Dim),
            StepDisplay::Ready | StepDisplay::Scheduled => ("◌", Color::Dim),
            StepDisplay::Running => (SPINNER[self.turn % SPINNER.len()], Color::Blue),
            StepDisplay::Retrying => ("↻", Color::Yellow),
            StepDisplay::Held => ("⏸", Color::Yellow),
            StepDisplay::Done => ("✓", Color::Green),
            StepDisplay::Failed => ("✗", Color::Red),
            StepDisplay::Skipped => ("⤼", Color::Dim),
            StepDisplay::Cancelled => ("⊘", Color::Dim),
        }
    }

    fn words(self, step: &StepRow, detail: &TaskDetail) -> String {
        let attempt = match step.max_attempts {
            Some(max) => format!("attempt {}/{max}", step.attempt),
            None => format!("attempt {}", step.attempt),
        };
        let ran = step.duration_ms.map(|ms| elapsed(ms.into()));
        let error = step.error.as_ref().map(|error| shorten(&error_message(error), WHY));
        let due = step.due_at.map(|at| elapsed((at - detail.read_at).num_milliseconds()));
        let mut words: Vec<String> = Vec::new();
        match step.display {
            StepDisplay::Waiting => words.push(self.output.paint(Color::Dim, "waiting")),
            StepDisplay::Ready => words.push("ready".to_owned()),
            StepDisplay::Scheduled => words.push(format!("in {}", due.unwrap_or_default())),
            StepDisplay::Running => {
                words.push("running".to_owned());
                words.extend(
                    step.started_at
                        .filter(|_| step.worker.is_some())
                        .map(|at| elapsed((detail.read_at - at).num_milliseconds())),
                );
                if step.attempt > 1 {
                    words.push(attempt);
                }
            }
            StepDisplay::Retrying => {
                words.push(format!("{attempt} in {}", due.unwrap_or_default()));
                words.extend(error);
            }
            StepDisplay::Held => words.push(held(step)),
            StepDisplay::Done => {
                words.extend(ran);
                if step.attempt > 1 {
                    words.push(format!("({} attempts)", step.attempt));
                }
            }
            StepDisplay::Failed => {
                words.push(format!("failed, {attempt}"));
                words.extend(error);
            }
            StepDisplay::Skipped => words.push(format!(
                "skipped: {}",
                match step.skipped_as.as_deref() {
                    Some("blocked") => "what it depends on failed",
                    Some("operator") => "left out",
                    _ => "not chosen",
                }
            )),
            StepDisplay::Cancelled => words.push("cancelled".to_owned()),
        }
        words.join("  ")
    }
}

/// Why a step is held, and who lets it go.
fn held(step: &StepRow) -> String {
    match step.held.as_deref() {
        Some("no_handler") => {
            format!("no worker has announced its handler {}", step.handler.as_deref().unwrap_or_default())
        }
        Some("paused") => "paused".to_owned(),
        Some("limit") => "waits for its limit".to_owned(),
        Some("signal") => "waits for a signal".to_owned(),
        Some("child") => "waits for its child task".to_owned(),
        other => format!("held: {}", other.unwrap_or_default()),
    }
}

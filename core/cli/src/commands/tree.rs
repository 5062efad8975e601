//! The picture of a task: its steps with what each is doing.

use tasker_engine::queries::{StepDisplay, StepRow, TaskDetail};
use tasker_model::state::TaskState;
use tasker_model::{Checkpoint, DynamicName, Payload, StepState};

use super::task::state_of;
use crate::output::{Color, Output, elapsed, error_message, plain, shorten};

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
        let key = task.key.as_ref().map(|key| format!("  key={}", plain(key))).unwrap_or_default();
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
        let shown = shown(detail);
        let width = shown.iter().map(|step| step.name.chars().count()).max().unwrap_or_default();
        let last = shown.len().saturating_sub(1);
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
        shown.into_iter().enumerate().map(line).collect()
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
        if let Some(count) = step.item_count {
            words.extend(items(step, count, detail));
        }
        match step.display {
            StepDisplay::Waiting if step.item_count.is_some() => {}
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
                words.extend(step.checkpoint.as_ref().and_then(saved));
                if step.attempt > 1 {
                    words.push(attempt);
                }
            }
            StepDisplay::Retrying => {
                words.push(format!("{attempt} in {}", due.unwrap_or_default()));
                words.extend(error);
            }
            StepDisplay::Held => {
                words.push(held(step));
                words.extend(due.map(|due| format!("{due} left")));
            }
            StepDisplay::Done => {
                words.extend(ran);
                words.extend(step.child.as_ref().map(|child| format!("ran as {}", child.task_id)));
                if step.attempt > 1 {
                    words.push(format!("({} attempts)", step.attempt));
                }
            }
            StepDisplay::Failed => {
                words.push(match &step.handler {
                    Some(_) => format!("failed, {attempt}"),
                    None => "failed".to_owned(),
                });
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

/// The steps that are drawn: of the items of a map and the ranges of a batch only those that somebody should look at, and few of them.
pub(super) fn shown(detail: &TaskDetail) -> Vec<&StepRow> {
    const ITEMS: usize = 5;
    let mut shown: Vec<&StepRow> = detail.steps.iter().filter(|step| !DynamicName::of(&step.name).is_item()).collect();
    for map in detail.steps.iter().filter(|step| step.item_count.is_some()) {
        let is_worth = |step: &&StepRow| {
            let worth = [StepDisplay::Running, StepDisplay::Retrying, StepDisplay::Held, StepDisplay::Failed];
            worth.contains(&step.display)
        };
        let items = items_of(map, detail).filter(is_worth).take(ITEMS);
        let at = shown.iter().position(|step| step.idx == map.idx).map_or(shown.len(), |at| at + 1);
        shown.splice(at..at, items);
    }
    shown
}

fn items_of<'d>(map: &'d StepRow, detail: &'d TaskDetail) -> impl Iterator<Item = &'d StepRow> {
    detail.steps.iter().filter(move |step| {
        let name = DynamicName::of(&step.name);
        name.is_item() && name.step == map.name
    })
}

/// How far a map or batch is.
fn items(map: &StepRow, count: i32, detail: &TaskDetail) -> Vec<String> {
    let ended = items_of(map, detail).filter(|step| step.state.is_terminal()).count();
    let failed = items_of(map, detail).filter(|step| step.state == StepState::Failed).count();
    let mut words = vec![format!("{ended} of {count} {}", if count == 1 { "item" } else { "items" })];
    if failed > 0 {
        words.push(format!("{failed} failed"));
    }
    words
}

/// How far a step has come by its last checkpoint.
fn saved(checkpoint: &Payload) -> Option<String> {
    let checkpoint: Checkpoint = checkpoint.to().ok()?;
    Some(match checkpoint.items {
        0 => format!("at {}", shorten(checkpoint.cursor.get(), 40)),
        items => format!("{items} items"),
    })
}

/// Why a step is held, and who lets it go.
fn held(step: &StepRow) -> String {
    match step.held.as_deref() {
        Some("no_handler") => {
            format!("no worker has announced its handler {}", step.handler.as_deref().unwrap_or_default())
        }
        Some("paused") => "paused".to_owned(),
        Some("limit") => "waits for its limit".to_owned(),
        Some("signal") => format!("waits for signal {}", step.signal.as_deref().unwrap_or_default()),
        Some("child") => match &step.child {
            Some(child) => format!("runs as {} ({})", child.task_id, child.state),
            None => "begins its child task".to_owned(),
        },
        other => format!("held: {}", other.unwrap_or_default()),
    }
}

#[cfg(test)]
pub(super) mod tests {
    use chrono::{DateTime, TimeDelta, Utc};
    use tasker_engine::queries::{ChildRow, TaskRow};
    use tasker_model::{Payload, StepState, TaskId, TaskState, WorkflowRef};

    use super::*;
    use crate::args::Format;

    fn plain() -> Tree {
        Tree::new(Output { format: Format::Table, is_terminal: true, is_colored: false })
    }

    fn at(second: i64) -> DateTime<Utc> {
        DateTime::UNIX_EPOCH + TimeDelta::seconds(1_800_000_000 + second)
    }

    fn step(name: &str, display: StepDisplay) -> StepRow {
        StepRow {
            idx: 0,
            name: name.to_owned(),
            state: StepState::Ready,
            display,
            due_at: None,
            held: None,
            signal: None,
            child: None,
            skipped_as: None,
            run: 0,
            attempt: 1,
            max_attempts: Some(3),
            timeout_ms: None,
            handler: Some(format!("orders.{name}")),
            queue: None,
            priority: None,
            parents: Vec::new(),
            item_count: None,
            result: None,
            error: None,
            checkpoint: None,
            started_at: None,
            finished_at: None,
            duration_ms: None,
            worker: None,
        }
    }

    /// A task seven seconds old whose steps do these things.
    pub(in crate::commands) fn detail(steps: Vec<StepRow>) -> TaskDetail {
        let total = i64::try_from(steps.len()).expect("few");
        TaskDetail {
            task: TaskRow {
                task_id: TaskId(uuid::Uuid::from_u128(7)),
                workflow: WorkflowRef { namespace: "shop".to_owned(), name: "orders".to_owned() },
                state: TaskState::Running,
                ending: None,
                compensating: false,
                paused: false,
                steps: total,
                steps_done: 1,
                steps_ended: total / 2,
                key: Some("order:4711".to_owned()),
                tags: Payload::empty_object(),
                priority: None,
                created_at: at(0),
                run_at: None,
                deadline: None,
                finished_at: None,
                error: None,
            },
            revision: String::new(),
            version: None,
            parent: None,
            input: Payload::empty_object(),
            output: None,
            correlation_id: None,
            trace: None,
            steps,
            read_at: at(7),
        }
    }

    pub(in crate::commands) fn many(displays: &[StepDisplay]) -> TaskDetail {
        detail(displays.iter().enumerate().map(|(n, display)| step(&format!("s{n}"), *display)).collect())
    }

    #[test]
    fn a_map_says_how_far_it_is_and_shows_the_items_that_matter() {
        let item = |at: usize, state, display| StepRow { state, ..step(&format!("pack[{at}]"), display) };
        let steps = vec![
            StepRow { item_count: Some(40), state: StepState::Waiting, ..step("pack", StepDisplay::Waiting) },
            step("ship", StepDisplay::Waiting),
            item(0, StepState::Done, StepDisplay::Done),
            item(1, StepState::Failed, StepDisplay::Failed),
            item(2, StepState::Ready, StepDisplay::Ready),
            item(3, StepState::Ready, StepDisplay::Running),
        ];
        assert_eq!(
            plain().steps(&detail(steps)),
            [
                "├─ · pack     2 of 40 items  1 failed",
                "├─ ✗ pack[1]  failed, attempt 1/3",
                "├─ ◐ pack[3]  running",
                "└─ · ship     waiting"
            ]
        );
    }

    #[test]
    fn each_step_says_what_it_is_doing() {
        let error = Payload::parse(r#"{"kind":"unexpected","message":"Net::ReadTimeout smtp"}"#).expect("JSON");
        let steps = vec![
            StepRow { duration_ms: Some(2_100), attempt: 2, ..step("charge", StepDisplay::Done) },
            StepRow {
                due_at: Some(at(11)),
                attempt: 2,
                error: Some(error.clone()),
                ..step("confirm", StepDisplay::Retrying)
            },
            StepRow {
                started_at: Some(at(3)),
                worker: Some("till-1".to_owned()),
                ..step("reserve", StepDisplay::Running)
            },
            StepRow {
                held: Some("child".to_owned()),
                child: Some(ChildRow { task_id: TaskId(uuid::Uuid::nil()), state: TaskState::Running }),
                ..step("ship", StepDisplay::Held)
            },
            StepRow { held: Some("no_handler".to_owned()), ..step("notify", StepDisplay::Held) },
            StepRow { attempt: 3, error: Some(error), ..step("mail", StepDisplay::Failed) },
            step("close", StepDisplay::Waiting),
        ];
        assert_eq!(
            plain().draw(&detail(steps)),
            "\
shop.orders  ████░░░░░░ 3/7  7.0 s  running  00000000-0000-0000-0000-000000000007  key=order:4711
├─ ✓ charge   2.1 s  (2 attempts)
├─ ↻ confirm  attempt 2/3 in 4.0 s  Net::ReadTimeout smtp
├─ ◐ reserve  running  4.0 s
├─ ⏸ ship     runs as 00000000-0000-0000-0000-000000000000 (running)
├─ ⏸ notify   no worker has announced its handler orders.notify
├─ ✗ mail     failed, attempt 3/3  Net::ReadTimeout smtp
└─ · close    waiting"
        );
    }
}

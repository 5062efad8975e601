//! Following a task to its end: a live tree on a terminal, a JSON line for each event in a pipe.

use std::collections::HashSet;
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use console::{Term, truncate_str};
use tasker_engine::Engine;
use tasker_engine::queries::{EVENTS_LIMIT, EventRow, StepDisplay, TaskDetail, TaskRow};
use tasker_model::TaskId;
use tokio::time::Instant;

use super::Context;
use super::task::{ended, timed_out};
use super::tree::{Tree, shown};
use crate::args::Format;
use crate::failure::Outcome;
use crate::output::line;

/// How often the tree is drawn anew.
const FRAME: Duration = Duration::from_millis(120);
/// The pause between two looks at the events, while some come and at most.
const SHORTEST_PAUSE: Duration = Duration::from_millis(25);
const LONGEST_PAUSE: Duration = Duration::from_millis(400);
/// How much later than the events around it an event may become visible: the longest settle.
const OVERLAP: TimeDelta = TimeDelta::seconds(30);

/// Follows a task and ends with its status.
pub(super) async fn watch(context: &Context, engine: &Engine, task: TaskId, timeout: Option<Duration>) -> Outcome {
    let deadline = timeout.map(|timeout| Instant::now() + timeout);
    let row = if context.output.can_redraw() && context.output.format == Format::Table {
        draw(context, engine, task, deadline).await?
    } else {
        stream(engine, task, deadline).await?
    };
    ended(&row)
}

fn check(deadline: Option<Instant>, row: &TaskRow) -> Outcome {
    if deadline.is_some_and(|deadline| Instant::now() >= deadline) {
        return Err(timed_out(row));
    }
    Ok(())
}

async fn draw(context: &Context, engine: &Engine, task: TaskId, deadline: Option<Instant>) -> Outcome<TaskRow> {
    let term = Term::stdout();
    let mut tree = Tree::new(context.output);
    let mut drawn = 0;
    loop {
        let detail = engine.task_detail(task).await?;
        let is_over = detail.task.state.is_terminal();
        let (rows, columns) = term.size();
        // The last picture stays in the scrollback: it is drawn whole.
        let room = if is_over { usize::MAX } else { usize::from(rows).saturating_sub(2).max(4) };
        let lines = picture(tree, &detail, room);
        let width = usize::from(columns.max(20)) - 1;
        let text: Vec<String> = lines.iter().map(|text| truncate_str(text, width, "…").into_owned()).collect();
        // Each line is written over the old one, in one write: nothing flickers.
        let up = if drawn == 0 { String::new() } else { format!("\x1b[{drawn}A") };
        let frame = format!("{up}\r{}\x1b[K\n\x1b[J", text.join("\x1b[K\n"));
        // A terminal that went away ends the watching.
        if term.write_str(&frame).and_then(|()| term.flush()).is_err() {
            return Ok(detail.task);
        }
        drawn = text.len();
        if is_over {
            return Ok(detail.task);
        }
        check(deadline, &detail.task)?;
        tree.turn();
        tokio::time::sleep(FRAME).await;
    }
}

/// The tree in at most `room` lines: where it is larger, the steps that move come first.
fn picture(tree: Tree, detail: &TaskDetail, room: usize) -> Vec<String> {
    let mut lines = vec![tree.head(detail)];
    let steps = tree.steps(detail);
    if steps.len() < room {
        lines.extend(steps);
        return lines;
    }
    let moves = |display: StepDisplay| {
        !matches!(display, StepDisplay::Waiting | StepDisplay::Done | StepDisplay::Skipped | StepDisplay::Cancelled)
    };
    let shown = shown(detail);
    let mut order: Vec<usize> = (0..steps.len()).collect();
    order.sort_by_key(|&at| !moves(shown[at].display));
    order.truncate(room.saturating_sub(2));
    order.sort_unstable();
    let hidden = steps.len() - order.len();
    lines.extend(order.into_iter().map(|at| steps[at].clone()));
    lines.push(format!("   … and {hidden} more steps"));
    lines
}

async fn stream(engine: &Engine, task: TaskId, deadline: Option<Instant>) -> Outcome<TaskRow> {
    let mut seen = HashSet::new();
    let mut place = None;
    let mut pause = SHORTEST_PAUSE;
    loop {
        // First the state, then the events: those of a finished task are all there.
        let row = engine.task_row(task).await?;
        let events = engine.events(task, place).await?;
        let before = seen.len();
        for event in &events {
            if seen.insert(event.event_id) {
                line(&serde_json::to_string(event).unwrap_or_default());
            }
        }
        let is_full = events.len() >= EVENTS_LIMIT;
        place = next_place(&events, is_full).or(place);
        if is_full {
            continue;
        }
        if row.state.is_terminal() {
            return Ok(row);
        }
        check(deadline, &row)?;
        pause = if seen.len() > before { SHORTEST_PAUSE } else { (pause * 2).min(LONGEST_PAUSE) };
        tokio::time::sleep(pause).await;
    }
}

/// Where to read on: a little before the end, but behind a page that was full, or it would come again.
fn next_place(events: &[EventRow], is_full: bool) -> Option<(DateTime<Utc>, i64)> {
    events.last().map(|last| if is_full { (last.at, last.event_id) } else { (last.at - OVERLAP, 0) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::tree::tests::many;
    use crate::output::Output;

    #[test]
    fn a_tree_larger_than_the_terminal_shows_what_moves() {
        let mut displays = vec![StepDisplay::Done; 30];
        displays[20] = StepDisplay::Running;
        displays[25] = StepDisplay::Retrying;
        let detail = many(&displays);
        let tree = Tree::new(Output { format: Format::Table, is_terminal: true, is_colored: false });
        assert_eq!(picture(tree, &detail, usize::MAX).len(), 31);
        let lines = picture(tree, &detail, 8);
        assert_eq!(lines.len(), 8);
        assert!(lines.iter().any(|line| line.contains("s20")) && lines.iter().any(|line| line.contains("s25")));
        assert_eq!(lines[7], "   … and 24 more steps");
    }
}

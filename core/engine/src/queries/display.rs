//! What a step looks like to people: its stored state, and why a ready one does not move.

use serde::Serialize;
use tasker_model::state::StepState;

/// What a step is doing. Computed, never stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum StepDisplay {
    /// It waits for its parents.
    Waiting,
    /// It will run at `due_at`, for the first time.
    Scheduled,
    /// It may run; no worker has taken it yet.
    Ready,
    /// A worker runs it.
    Running,
    /// It failed and will run again at `due_at`.
    Retrying,
    /// It may run but is held; `held` says why.
    Held,
    /// It has its result.
    Done,
    /// It failed for good.
    Failed,
    /// It was left out.
    Skipped,
    /// It was cancelled.
    Cancelled,
}

impl StepDisplay {
    /// Returns the name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Scheduled => "scheduled",
            Self::Ready => "ready",
            Self::Running => "running",
            Self::Retrying => "retrying",
            Self::Held => "held",
            Self::Done => "done",
            Self::Failed => "failed",
            Self::Skipped => "skipped",
            Self::Cancelled => "cancelled",
        }
    }
}

/// What is known of a step beside its row.
#[derive(Debug, Clone, Copy)]
pub(super) struct Signs {
    pub(super) state: StepState,
    pub(super) attempt: i32,
    pub(super) is_held: bool,
    /// A timer, or a message that is not visible yet though nobody read it.
    pub(super) is_delayed: bool,
    /// A heartbeat names it, or its message is leased.
    pub(super) is_leased: bool,
}

pub(super) fn display(signs: Signs) -> StepDisplay {
    match signs.state {
        StepState::Waiting => StepDisplay::Waiting,
        StepState::Done => StepDisplay::Done,
        StepState::Failed => StepDisplay::Failed,
        StepState::Skipped => StepDisplay::Skipped,
        StepState::Cancelled => StepDisplay::Cancelled,
        StepState::Ready if signs.is_held => StepDisplay::Held,
        StepState::Ready if signs.is_leased => StepDisplay::Running,
        StepState::Ready if signs.is_delayed && signs.attempt > 1 => StepDisplay::Retrying,
        StepState::Ready if signs.is_delayed => StepDisplay::Scheduled,
        StepState::Ready => StepDisplay::Ready,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ready_step_says_why_it_does_not_move() {
        let ready = Signs { state: StepState::Ready, attempt: 1, is_held: false, is_delayed: false, is_leased: false };
        let delayed = Signs { is_delayed: true, ..ready };
        for (signs, shown) in [
            (ready, StepDisplay::Ready),
            (Signs { is_leased: true, ..ready }, StepDisplay::Running),
            (Signs { is_held: true, ..ready }, StepDisplay::Held),
            (delayed, StepDisplay::Scheduled),
            (Signs { attempt: 2, ..delayed }, StepDisplay::Retrying),
            (Signs { state: StepState::Done, ..delayed }, StepDisplay::Done),
        ] {
            assert_eq!(display(signs), shown, "{signs:?}");
        }
    }
}

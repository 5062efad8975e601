//! The stored states of tasks and steps, and every change between them that is legal.
//!
//! These two tables are the only statement of the rules: `docs/states.md` and the guards in SQL are rendered from them.

use std::fmt::Write as _;

use crate::error::{Error, ErrorKind, Result};

/// Who makes a change of state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// The engine, as work proceeds.
    Engine,
    /// A verb of an operator or of the application; it raises the step's `gen`.
    Verb,
}

/// One legal change of state.
#[derive(Debug, Clone, Copy)]
pub struct Transition<S: 'static> {
    /// The state before; nothing for what is created.
    pub from: Option<S>,
    /// The state afterwards.
    pub to: S,
    /// Who makes it.
    pub cause: Cause,
    /// When it happens.
    pub why: &'static str,
}

const fn engine<S>(from: Option<S>, to: S, why: &'static str) -> Transition<S>
where
    S: Copy,
{
    Transition { from, to, cause: Cause::Engine, why }
}

const fn verb<S>(from: S, to: S, why: &'static str) -> Transition<S>
where
    S: Copy,
{
    Transition { from: Some(from), to, cause: Cause::Verb, why }
}

/// Defines a state with its names, its parsing and the questions to its table of transitions.
macro_rules! states {
    ($(#[$doc:meta])* $type:ident, $noun:literal, $table:ident, $($(#[$state_doc:meta])* $state:ident = $name:literal, $terminal:literal;)*) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
        #[serde(rename_all = "snake_case")]
        pub enum $type { $($(#[$state_doc])* $state,)* }

        impl $type {
            /// Every state.
            pub const ALL: &'static [Self] = &[$(Self::$state,)*];

            /// Returns the name used in SQL and on the wire.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$state => $name,)* }
            }

            /// Says whether only a verb leads out of this state.
            pub fn is_terminal(self) -> bool {
                match self { $(Self::$state => $terminal,)* }
            }

            /// Says whether this state may become `to` by any cause.
            pub fn can_become(self, to: Self) -> bool {
                $table.iter().any(|row| row.from == Some(self) && row.to == to)
            }

            /// Returns the states from which the given cause leads to `to`, each once, in the order of the enum.
            pub fn sources_by(to: Self, cause: Cause) -> Vec<Self> {
                let leads = |from: &&Self| $table.iter().any(|row| row.from == Some(**from) && row.to == to && row.cause == cause);
                Self::ALL.iter().filter(leads).copied().collect()
            }

            /// Returns the states from which the engine itself moves to `to`: what the guards in SQL admit.
            pub fn sources_of(to: Self) -> Vec<Self> {
                Self::sources_by(to, Cause::Engine)
            }
        }

        impl std::fmt::Display for $type {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.as_str())
            }
        }

        impl std::str::FromStr for $type {
            type Err = Error;

            fn from_str(text: &str) -> Result<Self> {
                Self::ALL.iter().copied().find(|state| state.as_str() == text).ok_or_else(|| {
                    let names: Vec<_> = Self::ALL.iter().map(|state| state.as_str()).collect();
                    Error::new(ErrorKind::Invalid, format!("`{text}` is no {} state; use one of {}", $noun, names.join(", ")))
                })
            }
        }
    };
}

states! {
    /// The stored state of a task. `paused`, `ending` and `compensating` are flags beside it.
    TaskState, "task", TASK_TRANSITIONS,
    /// Work remains.
    Running = "running", false;
    /// Every step ended and none failed.
    Complete = "complete", true;
    /// It ended because a step failed, its input was invalid or its deadline passed.
    Failed = "failed", true;
    /// It ended because somebody cancelled it.
    Cancelled = "cancelled", true;
}

states! {
    /// The stored state of a step. That it runs, or why it does not, is derived.
    StepState, "step", STEP_TRANSITIONS,
    /// Parents are not finished.
    Waiting = "waiting", false;
    /// It may run: it has a message, a timer or a hold.
    Ready = "ready", false;
    /// It has a result.
    Done = "done", true;
    /// It failed for good.
    Failed = "failed", true;
    /// It was not needed, or a parent's failure kept it from running.
    Skipped = "skipped", true;
    /// The end of its task came first.
    Cancelled = "cancelled", true;
}

/// Every legal change of a task's state.
pub const TASK_TRANSITIONS: &[Transition<TaskState>] = {
    use TaskState::{Cancelled, Complete, Failed, Running};
    &[
        engine(None, Running, "submit"),
        engine(Some(Running), Complete, "the last sink ended and no step failed"),
        engine(
            Some(Running),
            Failed,
            "a step failed, the input was invalid or the deadline passed, and the last sink ended",
        ),
        engine(Some(Running), Cancelled, "cancel was asked for and the last sink ended"),
        verb(Failed, Running, "retry now, retry failed, retry from here, resolve or skip"),
        verb(Cancelled, Running, "retry now, retry failed, retry from here, resolve or skip"),
        verb(Complete, Running, "retry from here or compensate"),
    ]
};

/// Every legal change of a step's state.
pub const STEP_TRANSITIONS: &[Transition<StepState>] = {
    use StepState::{Cancelled, Done, Failed, Ready, Skipped, Waiting};
    &[
        engine(None, Waiting, "submit, with parents"),
        engine(None, Ready, "submit, without parents; or a dynamic step"),
        engine(None, Skipped, "submit named it to be skipped"),
        engine(Some(Waiting), Ready, "all parents ended, at least one of them live"),
        engine(Some(Waiting), Skipped, "all parents ended, one of them blocked or none of them live"),
        engine(Some(Waiting), Cancelled, "its task is ending"),
        engine(Some(Ready), Waiting, "it runs many times at once: it waits for its items or ranges"),
        engine(Some(Ready), Ready, "retry, release or timeout: a new message; a timeout raises gen"),
        engine(Some(Ready), Done, "its result was settled"),
        engine(Some(Ready), Failed, "its failure was permanent or its attempts are used up"),
        engine(Some(Ready), Cancelled, "its task is ending"),
        verb(Waiting, Done, "resolve"),
        verb(Waiting, Skipped, "skip"),
        verb(Ready, Ready, "retry now or release"),
        verb(Ready, Waiting, "retry from here, of an ancestor"),
        verb(Ready, Done, "resolve"),
        verb(Ready, Skipped, "skip"),
        verb(Done, Ready, "retry from here"),
        verb(Done, Waiting, "retry from here, of an ancestor"),
        verb(Failed, Ready, "retry now, retry failed or retry from here"),
        verb(Failed, Waiting, "retry from here, of an ancestor"),
        verb(Failed, Done, "resolve"),
        verb(Failed, Skipped, "skip"),
        verb(Skipped, Ready, "retry from here"),
        verb(Skipped, Waiting, "the task was reopened and a parent had blocked it; or retry from here, of an ancestor"),
        verb(Cancelled, Ready, "retry now or retry from here"),
        verb(Cancelled, Waiting, "the task was reopened and its ending had cancelled it"),
        verb(Cancelled, Done, "resolve"),
        verb(Cancelled, Skipped, "skip"),
    ]
};

/// Renders `docs/states.md` from the two tables.
pub fn states_markdown() -> String {
    let mut page = String::from(
        "# States\n\nGenerated from `core/model/src/state.rs`; a test holds the two equal \
         (`UPDATE_DOCS=1 cargo test -p tasker-model` rewrites this page).\n\n\
         That a step runs, waits for a signal or for its next attempt is derived from its message, timer or hold and never stored. \
         A change *by a verb* raises the step's `gen`, so that whatever still runs under the old one is refused when it reports. \
         Terminal states are left by verbs only.\n",
    );
    render(&mut page, "Task", TaskState::ALL, TASK_TRANSITIONS, TaskState::is_terminal);
    render(&mut page, "Step", StepState::ALL, STEP_TRANSITIONS, StepState::is_terminal);
    page
}

fn render<S: Copy + PartialEq + std::fmt::Display>(
    page: &mut String,
    title: &str,
    states: &[S],
    table: &[Transition<S>],
    is_terminal: fn(S) -> bool,
) {
    let (terminal, open): (Vec<S>, Vec<S>) = states.iter().partition(|state| is_terminal(**state));
    let list = |states: &[S]| states.iter().map(|state| format!("`{state}`")).collect::<Vec<_>>().join(", ");
    // Writing to a `String` cannot fail.
    let _ = write!(
        page,
        "\n## {title}\n\nOpen: {}. Terminal: {}.\n\n| from | to | by | when |\n|---|---|---|---|\n",
        list(&open),
        list(&terminal)
    );
    for row in table {
        let from = row.from.map_or_else(|| "(new)".to_owned(), |from| format!("`{from}`"));
        let by = match row.cause {
            Cause::Engine => "engine",
            Cause::Verb => "verb",
        };
        let _ = writeln!(page, "| {from} | `{}` | {by} | {} |", row.to, row.why);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_survive_their_text() {
        for state in TaskState::ALL {
            assert_eq!(state.as_str().parse::<TaskState>().unwrap(), *state);
        }
        for state in StepState::ALL {
            assert_eq!(state.as_str().parse::<StepState>().unwrap(), *state);
            assert_eq!(serde_json::to_string(state).unwrap(), format!("\"{state}\""));
        }
        assert!("done".parse::<TaskState>().unwrap_err().message.contains("complete"));
    }

    #[test]
    fn the_engine_never_leaves_a_terminal_state() {
        let task =
            |row: &Transition<TaskState>| row.from.is_some_and(TaskState::is_terminal) && row.cause == Cause::Engine;
        let step =
            |row: &Transition<StepState>| row.from.is_some_and(StepState::is_terminal) && row.cause == Cause::Engine;
        assert!(!TASK_TRANSITIONS.iter().any(task));
        assert!(!STEP_TRANSITIONS.iter().any(step));
    }

    #[test]
    fn the_guards_admit_what_the_protocol_says() {
        assert_eq!(StepState::sources_of(StepState::Done), [StepState::Ready]);
        assert_eq!(StepState::sources_of(StepState::Failed), [StepState::Ready]);
        assert_eq!(StepState::sources_of(StepState::Cancelled), [StepState::Waiting, StepState::Ready]);
        assert_eq!(TaskState::sources_of(TaskState::Complete), [TaskState::Running]);
        assert!(TaskState::Complete.can_become(TaskState::Running));
        assert!(!StepState::Done.can_become(StepState::Failed));
    }

    #[test]
    fn no_change_is_listed_twice() {
        for (at, row) in STEP_TRANSITIONS.iter().enumerate() {
            let same =
                |other: &&Transition<StepState>| (other.from, other.to, other.cause) == (row.from, row.to, row.cause);
            assert_eq!(STEP_TRANSITIONS[at..].iter().filter(same).count(), 1, "{row:?}");
        }
    }

    #[test]
    #[expect(clippy::disallowed_methods, reason = "a switch of the test run, not configuration")]
    fn the_page_on_states_is_current() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/states.md");
        if std::env::var_os("UPDATE_DOCS").is_some() {
            std::fs::write(path, states_markdown()).unwrap();
        }
        let written = std::fs::read_to_string(path).unwrap_or_default();
        assert_eq!(written, states_markdown(), "run UPDATE_DOCS=1 cargo test -p tasker-model");
    }
}

//! What undoes a step.

use super::{IntoStep, Step};

/// The handler that undoes a step: one of this program, or the name of one.
#[derive(Debug, Clone)]
pub(crate) enum Undo {
    Handler(String),
    Function(Box<Step>),
}

impl Undo {
    pub(crate) fn handler_name(&self, workflow: &str) -> String {
        match self {
            Self::Handler(name) => name.clone(),
            Self::Function(step) => step.handler_name(workflow),
        }
    }
}

/// Marks [`IntoUndo`] for a handler's name.
#[derive(Debug)]
pub enum ByName {}

/// What undoes a step: a function marked with `#[tasker::step]`, a [`step_fn`](crate::step_fn), or the name of a handler.
///
/// Its parameters are bound as those of the step that it undoes; `result`, or `Dep<ThatStep>`, is what that one gave. It is tried as often
/// and for as long as that step: settings of its own mean nothing here.
pub trait IntoUndo<Mark>: Sized {
    #[doc(hidden)]
    fn undo_of(self, step: Step) -> Step;
}

impl IntoUndo<ByName> for &str {
    fn undo_of(self, mut step: Step) -> Step {
        step.undo = Some(Undo::Handler(self.to_owned()));
        step
    }
}

impl<S: IntoStep<Mark>, Mark> IntoUndo<(Mark,)> for S {
    fn undo_of(self, mut step: Step) -> Step {
        step.undo = Some(Undo::Function(Box::new(self.into_step())));
        step
    }
}

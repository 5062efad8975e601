//! The numbers of all diagnostics; `docs/errors/README.md` explains each.

use std::fmt;

use serde::{Serialize, Serializer};

macro_rules! codes {
    ($($(#[$doc:meta])* $code:ident = $number:literal, $title:literal;)*) => {
        /// Numbers one kind of mistake.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Code { $($(#[$doc])* $code,)* }

        impl Code {
            /// Every code, in the order of their numbers.
            pub const ALL: &'static [Code] = &[$(Code::$code,)*];

            /// Returns the number as it is printed, for example `TSK0102`.
            pub fn as_str(self) -> &'static str {
                match self { $(Code::$code => $number,)* }
            }

            /// Returns what it says, without the names concerned.
            pub fn title(self) -> &'static str {
                match self { $(Code::$code => $title,)* }
            }
        }
    };
}

codes! {
    /// The text is no YAML.
    Syntax = "TSK0101", "the text is not YAML";
    /// A key that means nothing here.
    UnknownKey = "TSK0102", "unknown key";
    /// A key or step written twice.
    Duplicate = "TSK0103", "written twice";
    /// A key that must be there.
    Missing = "TSK0104", "a required key is missing";
    /// A value of the wrong type.
    WrongType = "TSK0105", "wrong type";
    /// A name that breaks the pattern.
    BadName = "TSK0106", "not a name";
    /// A duration that cannot be read or is out of range.
    BadDuration = "TSK0107", "not a duration";
    /// A retry policy that makes no sense.
    BadRetry = "TSK0108", "not a retry policy";
    /// A word that is none of the choices.
    BadChoice = "TSK0109", "none of the choices";
    /// YAML that is not part of the definition language.
    Unsupported = "TSK0110", "YAML that definitions do not use";
    /// A file beyond the limits.
    TooLarge = "TSK0111", "larger than a definition may be";
    /// No steps at all.
    NoSteps = "TSK0112", "no steps";
    /// A source that cannot be read.
    BadSource = "TSK0113", "not a source";
    /// A schema that is no JSON Schema.
    BadSchema = "TSK0114", "not a JSON Schema";
    /// A name that means something else.
    Reserved = "TSK0115", "a reserved name";
    /// A step that does not exist.
    UnknownStep = "TSK0120", "unknown step";
    /// A step that depends on itself.
    SelfDependency = "TSK0121", "a step depends on itself";
    /// Steps that wait for each other.
    Cycle = "TSK0122", "a cycle";
    /// A decision's route that is no child of it.
    BadRoute = "TSK0123", "a route that does not follow its decision";
    /// A wait that says nothing, too much, or what only a handler has.
    BadWait = "TSK0124", "a wait that cannot be kept";
    /// A map or batch that cannot run.
    BadFan = "TSK0125", "a map or batch that cannot run";
    /// A child task that cannot be.
    BadChild = "TSK0126", "a child task that cannot be";
    /// An undo without anything to undo.
    BadUndo = "TSK0127", "an undo that cannot be";
    /// An event that can never be published.
    BadEvent = "TSK0128", "an event that is never published";
    /// A handler that nobody has.
    UnknownHandler = "TSK0130", "unknown handler";
    /// A parameter that the handler does not have.
    UnknownParameter = "TSK0131", "unknown parameter";
    /// A parameter without a value.
    Unbound = "TSK0132", "a required parameter is not bound";
    /// A path to a field that a result does not have.
    NoResultField = "TSK0133", "a path into nothing";
    /// A path to a field that the input does not have.
    NoInputField = "TSK0134", "the input has no such field";
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Serialize for Code {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

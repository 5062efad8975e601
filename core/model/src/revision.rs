//! A definition made ready to run: numbered steps, resolved edges and bindings, the compiled check of the input.

use std::fmt::Write as _;
use std::{collections::BTreeMap, fmt, sync::Arc};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{
    check::check,
    definition::{Definition, Priority},
    diagnostic::Diagnostic,
    error::{Error, ErrorKind, Result},
    fan::Fan,
    id::WorkflowRef,
    limits::INPUT_BYTES,
    payload::check_payload,
    retry::Retry,
    schema,
    source::Source,
    wait::Wait,
};

/// How many places of a wrong input are told in full; more would bury the first.
pub(crate) const SHOWN_PLACES: usize = 20;
/// How much of one complaint is told: it may quote the value, which may be large.
const SHOWN_CHARS: usize = 300;

/// The compiled form of a definition, identified by its content hash.
#[derive(Clone)]
pub struct Revision {
    /// What it was compiled from.
    pub definition: Definition,
    /// The definition's content hash.
    pub hash: String,
    /// The steps by `idx`.
    pub steps: Vec<RevisionStep>,
    /// The part of the input's schema that SQL checks at submit.
    pub input_check: InputCheck,
    validator: Option<Arc<jsonschema::Validator>>,
}

/// One step of a revision.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RevisionStep {
    /// Its number, its position in a topological order.
    pub idx: i32,
    /// Its name.
    pub name: String,
    /// The handler that it calls; empty where it calls none.
    pub handler: String,
    /// What it waits for, in place of a handler.
    pub wait: Option<Wait>,
    /// The workflow that it runs, in place of a handler.
    pub child: Option<WorkflowRef>,
    /// How it fans out.
    pub fan: Option<Fan>,
    /// The handler that undoes it.
    pub undo: Option<String>,
    /// The queue it waits in.
    pub queue: String,
    /// Its own priority, if it has one.
    pub priority: Option<Priority>,
    /// When it runs again.
    pub retry: Retry,
    /// How long one attempt may take.
    pub timeout_ms: u64,
    /// What it waits for, ascending.
    pub parents: Vec<i32>,
    /// What waits for it, ascending.
    pub children: Vec<i32>,
    /// What a decision may choose among its children.
    pub routes: Vec<String>,
    /// Whether nothing waits for it.
    pub is_sink: bool,
    /// Where its arguments come from.
    pub bindings: Vec<Binding>,
    /// What the handler finds in its context.
    pub config: Option<Value>,
}

impl RevisionStep {
    /// Says whether it calls a handler.
    pub fn calls_handler(&self) -> bool {
        self.wait.is_none() && self.child.is_none()
    }

    /// Says whether the engine itself moves it on: it waits, runs a child task, or fans out over a list.
    pub fn is_auto(&self) -> bool {
        !self.calls_handler() || self.fan.as_ref().is_some_and(|fan| fan.list.is_some())
    }
}

/// One argument of a step.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Binding {
    /// The parameter.
    pub param: String,
    /// Where its value comes from.
    pub source: Source,
    /// Whether the argument is left out where there is no value: the source is an input field that the schema does
    /// not require. Otherwise a missing value fails the step.
    pub optional: bool,
}

/// What the SQL function `submit` checks of an input; the full schema is checked in Rust.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct InputCheck {
    /// Fields that must be there.
    pub required: Vec<String>,
    /// Fields with one declared type, by JSON Schema's name: string, number, integer, boolean, array, object, null.
    pub types: BTreeMap<String, String>,
}

impl Revision {
    /// Compiles a definition, or reports everything that is wrong with it.
    pub fn compile(definition: Definition) -> Result<Self, Vec<Diagnostic>> {
        let graph = check(&definition)?;
        // `check` compiled the schema once already, so that it cannot fail here.
        let validator =
            definition.input.as_ref().and_then(|schema| jsonschema::validator_for(schema).ok()).map(Arc::new);
        let steps = graph.names.iter().enumerate().filter_map(|(at, name)| {
            let step = definition.step(name)?;
            Some(RevisionStep {
                idx: i32::try_from(at).ok()?,
                name: name.clone(),
                handler: step.call.clone(),
                wait: step.wait.clone(),
                child: step.child.clone(),
                fan: step.fan(definition.on_failure),
                undo: step.undo.clone(),
                queue: step.queue.clone(),
                priority: step.priority,
                retry: step.retry,
                timeout_ms: step.timeout_ms,
                parents: graph.parents[at].clone(),
                children: graph.children[at].clone(),
                routes: step.routes.clone(),
                is_sink: graph.children[at].is_empty(),
                bindings: step.with.iter().map(|(param, source)| binding(&definition, param, source)).collect(),
                config: step.config.clone(),
            })
        });
        Ok(Self {
            steps: steps.collect(),
            hash: definition.content_hash(),
            input_check: definition.input.as_ref().map(InputCheck::of).unwrap_or_default(),
            validator,
            definition,
        })
    }

    /// Returns the named step.
    pub fn step_by_name(&self, name: &str) -> Option<&RevisionStep> {
        self.steps.iter().find(|step| step.name == name)
    }

    /// Checks an input in full: limits, that it is an object, and the schema. The error is of kind `input_invalid`
    /// and names every failing place by its JSON pointer.
    pub fn validate_input(&self, text: &str) -> Result<()> {
        check_payload(ErrorKind::InputInvalid, text, INPUT_BYTES, "the input")?;
        let workflow = self.definition.reference();
        let value: Value = serde_json::from_str(text).map_err(|cause| {
            Error::new(ErrorKind::InputInvalid, format!("the input of {workflow} is not JSON: {cause}"))
                .caused_by(cause)
        })?;
        if !value.is_object() {
            return Err(Error::new(
                ErrorKind::InputInvalid,
                format!("the input of {workflow} must be a JSON object; put the value under a name"),
            ));
        }
        let Some(validator) = &self.validator else {
            return Ok(());
        };
        let mut failures = validator.iter_errors(&value);
        let shown: Vec<(String, String)> = failures
            .by_ref()
            .take(SHOWN_PLACES)
            .map(|failure| (failure.instance_path().to_string(), shorten(failure.to_string())))
            .collect();
        if shown.is_empty() {
            return Ok(());
        }
        let told = shown.iter().map(|(pointer, what)| match pointer.as_str() {
            "" => what.clone(),
            pointer => format!("{pointer}: {what}"),
        });
        let mut message = format!("the input does not satisfy {workflow}: {}", told.collect::<Vec<_>>().join("; "));
        let hidden = failures.count();
        if hidden > 0 {
            let _ = write!(message, "; and {hidden} more");
        }
        let error = Error::new(ErrorKind::InputInvalid, message);
        Err(shown.into_iter().fold(error, |error, (pointer, _)| error.with("pointer", pointer)))
    }
}

/// Cuts a complaint that quotes a large value.
fn shorten(mut text: String) -> String {
    if let Some((at, _)) = text.char_indices().nth(SHOWN_CHARS) {
        text.truncate(at);
        text.push_str(" ...");
    }
    text
}

fn binding(definition: &Definition, param: &str, source: &Source) -> Binding {
    let optional = match (source, &definition.input) {
        (Source::Input { path }, Some(input)) => path
            .first()
            .is_some_and(|field| schema::fields(input).contains(&field.as_str()) && !schema::requires(input, field)),
        // A batch that divides its work is called without a range.
        (Source::Item { .. }, _) => {
            definition.steps.iter().any(|step| step.batch.is_some() && step.with.get(param) == Some(source))
        }
        _ => false,
    };
    Binding { param: param.to_owned(), source: source.clone(), optional }
}

impl InputCheck {
    fn of(schema: &Value) -> Self {
        let mut required: Vec<String> = schema::fields(schema)
            .into_iter()
            .filter(|field| schema::requires(schema, field))
            .map(str::to_owned)
            .collect();
        let listed = schema.get("required").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str);
        required.extend(listed.map(str::to_owned));
        required.sort();
        required.dedup();
        let properties = schema.get("properties").and_then(Value::as_object).into_iter().flatten();
        let types =
            properties.filter_map(|(field, schema)| Some((field.clone(), schema.get("type")?.as_str()?.to_owned())));
        Self { required, types: types.collect() }
    }
}

impl fmt::Debug for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Revision")
            .field("workflow", &self.definition.reference())
            .field("hash", &self.hash)
            .field("steps", &self.steps)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::definition::StepDefinition;
    use serde_json::json;

    fn orders() -> Definition {
        let mut definition = Definition::new("order_processing");
        definition.input = Some(json!({
            "type": "object", "required": ["email", "lines"],
            "properties": {"email": {"type": "string"}, "lines": {"type": "array", "minItems": 1}, "coupon": {"type": ["string", "null"]}}
        }));
        let mut charge = StepDefinition::new("charge", "orders.charge");
        charge.with.insert("total".into(), "validate.total".parse().unwrap());
        charge.with.insert("coupon".into(), "input.coupon".parse().unwrap());
        let mut reserve = StepDefinition::new("reserve", "orders.reserve");
        reserve.with.insert("items".into(), "validate.items".parse().unwrap());
        let mut confirm = StepDefinition::new("confirm", "orders.confirm");
        confirm.after = vec!["reserve".into(), "charge".into()];
        definition.steps = vec![confirm, reserve, charge, StepDefinition::new("validate", "orders.validate")];
        definition
    }

    #[test]
    fn steps_are_numbered_by_level_and_name() {
        let revision = Revision::compile(orders()).unwrap();
        let names: Vec<&str> = revision.steps.iter().map(|step| step.name.as_str()).collect();
        assert_eq!(names, ["validate", "charge", "reserve", "confirm"]);
        assert_eq!(revision.steps[0].children, [1, 2]);
        assert_eq!(revision.step_by_name("confirm").unwrap().parents, [1, 2]);
        assert!(revision.steps[3].is_sink && !revision.steps[1].is_sink);
        let bindings = &revision.steps[1].bindings;
        assert_eq!(
            bindings.iter().map(|binding| (binding.param.as_str(), binding.optional)).collect::<Vec<_>>(),
            [("coupon", true), ("total", false)]
        );
        assert_eq!(revision.input_check.required, ["email", "lines"]);
        assert_eq!(revision.input_check.types["lines"], "array");
        assert!(!revision.input_check.types.contains_key("coupon"));
    }

    #[test]
    fn a_wrong_input_is_told_all_its_places() {
        let revision = Revision::compile(orders()).unwrap();
        assert!(revision.validate_input(r#"{"email":"a@b.c","lines":[1],"more":1.10}"#).is_ok());
        let error = revision.validate_input(r#"{"email":1,"lines":[]}"#).unwrap_err();
        assert_eq!(error.kind, ErrorKind::InputInvalid);
        assert!(error.message.contains("/email: ") && error.message.contains("/lines: "), "{error}");
        assert!(revision.validate_input("[]").unwrap_err().message.contains("object"));
        assert!(revision.validate_input(r#"{"email":"\u0000","lines":[1]}"#).unwrap_err().message.contains("/email"));
    }

    #[test]
    fn compiling_reports_every_mistake_with_its_place() {
        let mut definition = orders();
        definition.name = "Orders".into();
        definition.steps[0].after.push("chrage".into());
        definition.steps[1].queue = "my queue".into();
        let problems = Revision::compile(definition).unwrap_err();
        let places: Vec<(&str, &str)> = problems.iter().map(|p| (p.code.as_str(), p.at.as_str())).collect();
        assert_eq!(
            places,
            [("TSK0106", "name"), ("TSK0106", "steps.reserve.queue"), ("TSK0120", "steps.confirm.after.2")]
        );
        assert_eq!(problems[2].help.as_deref(), Some("did you mean `charge`?"));
    }

    #[test]
    fn a_revision_is_shared_between_threads() {
        fn is_shared<T: Send + Sync>(_: &T) {}
        is_shared(&Revision::compile(orders()).unwrap());
    }

    #[test]
    fn a_cycle_is_shown_with_all_its_members() {
        let mut definition = orders();
        definition.steps[3].after.push("confirm".into());
        let problems = Revision::compile(definition).unwrap_err();
        assert_eq!(problems.len(), 1);
        assert_eq!(problems[0].code, crate::diagnostic::Code::Cycle);
        for name in ["validate", "charge", "reserve", "confirm"] {
            assert!(problems[0].message.contains(name), "{}", problems[0].message);
        }
    }
}

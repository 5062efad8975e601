//! How the parameters of a handler get their values: the same rule in every language.
//!
//! For each parameter: what `with` says, else (code-first only) the whole result of an earlier step of the same name,
//! else the input field of the same name, else the context if it is called `ctx`, else the parameter's own default.
//! Whatever remains is a mistake. In YAML only `with` and `after` make edges, so that the text shows the graph.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::{
    definition::{Definition, StepDefinition},
    diagnostic::{
        Code, Diagnostic,
        suggest::{did_you_mean, nearest},
    },
    error::{Error, ErrorKind, Result},
    fan::DynamicName,
    input::StepInput,
    payload::Payload,
    revision::RevisionStep,
    schema::{self, Found},
    signature::{Param, Signature, Signatures},
    source::{CTX, ITEM, RESULT, Source},
};

/// Reports what does not fit between a definition and the handlers' signatures.
pub fn check_bindings(definition: &Definition, signatures: &Signatures) -> Vec<Diagnostic> {
    let mut problems = Vec::new();
    for step in &definition.steps {
        let at = format!("steps.{}", step.name);
        result_paths(&mut problems, definition, signatures, step);
        if let Some(undo) = &step.undo {
            undo_binding(&mut problems, definition, signatures, step, undo);
        }
        if !step.calls_handler() {
            continue;
        }
        let Some(signature) = signatures.get(&step.call) else {
            let handlers = signatures.handlers.iter().map(|signature| signature.handler.as_str());
            problems.push(
                Diagnostic::error(
                    Code::UnknownHandler,
                    format!("{at}.call"),
                    format!("no handler is called `{}`", step.call),
                )
                .maybe_help(did_you_mean(&step.call, handlers)),
            );
            continue;
        };
        let params = signature.params.iter().map(|param| param.name.as_str()).filter(|name| *name != CTX);
        let mut meant = Vec::new();
        for param in step.with.keys().filter(|param| *param != CTX && signature.param(param).is_none()) {
            meant.extend(nearest(param, params.clone()));
            let message = format!("`{}` has no parameter `{param}`", step.call);
            problems.push(
                Diagnostic::error(Code::UnknownParameter, format!("{at}.with.{param}"), message)
                    .maybe_help(did_you_mean(param, params.clone()))
                    .on_key(),
            );
        }
        // A parameter that is bound under a misspelt name is one mistake, not two.
        let is_missing = |param: &&Param| !is_bound(definition, step, param) && !meant.contains(&param.name.as_str());
        for param in signature.params.iter().filter(is_missing) {
            problems.push(unbound(definition, signatures, step, signature, param));
        }
    }
    problems
}

/// Makes implicit bindings explicit: adds to `with` what a parameter gets from an earlier step of its name, or from a
/// declared input field of its name. Reports what remains wrong afterwards.
///
/// A parameter that must be there and that a workflow without an input schema does not bind is read from the input.
pub fn bind_code_first(definition: &mut Definition, signatures: &Signatures) -> Vec<Diagnostic> {
    for at in 0..definition.steps.len() {
        let Some(signature) = signatures.get(&definition.steps[at].call) else {
            continue;
        };
        for param in signature.params.iter().filter(|param| param.name != CTX) {
            if definition.steps[at].with.contains_key(&param.name) {
                continue;
            }
            let source = if param.name == ITEM && definition.steps[at].fans_out() {
                Source::Item { path: Vec::new() }
            } else if definition.steps[..at].iter().any(|earlier| earlier.name == param.name) {
                Source::step(&param.name)
            } else if has_input_field(definition, &param.name) || (definition.input.is_none() && param.required) {
                Source::input_field(&param.name)
            } else {
                continue;
            };
            definition.steps[at].with.insert(param.name.clone(), source);
        }
    }
    check_bindings(definition, signatures)
}

/// Collects a step's arguments from what was delivered, each as the text it arrived in.
///
/// `params` are the handler's parameters: those without a binding get the input field of their name. A parameter
/// that is not required and has no value is left out, so that its own default holds. Below `null` everything is
/// `null`: a skipped step gives `null`, and its dependents run.
pub fn arguments(step: &RevisionStep, params: &[Param], input: &StepInput) -> Result<BTreeMap<String, Payload>> {
    let mut arguments = BTreeMap::new();
    for binding in &step.bindings {
        let is_optional = binding.optional || params.iter().any(|param| param.name == binding.param && !param.required);
        match value(&binding.source, input) {
            Some(value) => {
                arguments.insert(binding.param.clone(), value);
            }
            None if is_optional => {}
            None if binding.source.step_name().is_some_and(|step| input.paged.contains_key(step)) => {
                let message = format!(
                    "step `{}` takes `{}` from `{}`, which is too large to be delivered at once; read it in pages",
                    step.name, binding.param, binding.source
                );
                return Err(Error::new(ErrorKind::ContextTooLarge, message).with("source", &binding.source));
            }
            None => {
                return Err(Error::new(
                    ErrorKind::Invalid,
                    format!(
                        "step `{}` takes `{}` from `{}`, which is not there; correct the path, or return the field",
                        step.name, binding.param, binding.source
                    ),
                )
                .with("step", &step.name)
                .with("param", &binding.param)
                .with("source", &binding.source));
            }
        }
    }
    for param in params.iter().filter(|param| param.name != CTX) {
        if arguments.contains_key(&param.name) || step.bindings.iter().any(|binding| binding.param == param.name) {
            continue;
        }
        match implied(&param.name, input) {
            Some(value) => {
                arguments.insert(param.name.clone(), value);
            }
            None if !param.required => {}
            None => {
                return Err(Error::new(
                    ErrorKind::Invalid,
                    format!(
                        "step `{}` needs `{}`, which neither `with` nor the input gives; bind it",
                        step.name, param.name
                    ),
                )
                .with("step", &step.name)
                .with("param", &param.name));
            }
        }
    }
    Ok(arguments)
}

/// What a parameter gets that nothing binds: the item of its run, the result of the step that it undoes, else the input field of its
/// name.
fn implied(param: &str, input: &StepInput) -> Option<Payload> {
    let name = DynamicName::of(&input.step.name);
    match (param, name.undoes) {
        (RESULT, Some(undone)) => input.results.get(undone).cloned(),
        (ITEM, _) if input.step.item.is_some() => input.step.item.clone(),
        _ => value(&Source::input_field(param), input),
    }
}

fn value(source: &Source, input: &StepInput) -> Option<Payload> {
    let (mut value, path) = match source {
        Source::Item { path } => (input.step.item.clone()?, path),
        Source::Input { path } => (input.task.input.clone(), path),
        Source::Step { step, path } => (input.results.get(step)?.clone(), path),
    };
    for segment in path {
        if value.is_null() {
            break;
        }
        value = value.at(std::slice::from_ref(segment))?;
    }
    Some(value)
}

fn has_input_field(definition: &Definition, field: &str) -> bool {
    definition.input.as_ref().is_some_and(|input| schema::fields(input).contains(&field))
}

fn is_bound(definition: &Definition, step: &StepDefinition, param: &Param) -> bool {
    !param.required
        || param.name == CTX
        || param.name == ITEM && step.fans_out()
        || step.with.contains_key(&param.name)
        // Without a schema any field may be there; the first run says whether it is.
        || definition.input.is_none()
        || has_input_field(definition, &param.name)
}

fn unbound(
    definition: &Definition,
    signatures: &Signatures,
    step: &StepDefinition,
    signature: &Signature,
    param: &Param,
) -> Diagnostic {
    let message = format!("parameter `{}` of `{}` has no value in step `{}`", param.name, signature.handler, step.name);
    let problem = Diagnostic::error(Code::Unbound, format!("steps.{}.with.{}", step.name, param.name), message);
    if definition.step(&param.name).is_some() {
        return problem.help(format!("write `with: {{ {0}: {0} }}` to take the result of step `{0}`", param.name));
    }
    // A result field of the same name elsewhere in the workflow is most likely what was meant.
    let giver = definition.steps.iter().filter(|other| other.name != step.name).find(|other| {
        let result = signatures.get(&other.call).and_then(|signature| signature.result.as_ref());
        result.is_some_and(|schema| schema::fields(schema).contains(&param.name.as_str()))
    });
    if let Some(giver) = giver {
        return problem.help(format!("write `with: {{ {0}: {1}.{0} }}`", param.name, giver.name));
    }
    let fields = definition.input.as_ref().map(schema::fields).unwrap_or_default();
    match nearest(&param.name, fields) {
        Some(field) => problem.help(format!("write `with: {{ {}: input.{field} }}`", param.name)),
        None => problem.help(format!("bind it under `with`, or add `{}` to the input", param.name)),
    }
}

/// Reports an undo that nobody has, and parameters of it that nothing gives: it takes what its step takes, and the step's `result`.
fn undo_binding(
    problems: &mut Vec<Diagnostic>,
    definition: &Definition,
    signatures: &Signatures,
    step: &StepDefinition,
    undo: &str,
) {
    let at = format!("steps.{}.undo", step.name);
    let Some(signature) = signatures.get(undo) else {
        let handlers = signatures.handlers.iter().map(|signature| signature.handler.as_str());
        problems.push(
            Diagnostic::error(Code::UnknownHandler, at, format!("no handler is called `{undo}`"))
                .maybe_help(did_you_mean(undo, handlers)),
        );
        return;
    };
    let missing = |param: &&Param| param.name != RESULT && !is_bound(definition, step, param);
    for param in signature.params.iter().filter(missing) {
        let message =
            format!("parameter `{}` of `{undo}` has no value when step `{}` is undone", param.name, step.name);
        problems.push(Diagnostic::error(Code::Unbound, &at, message).help(format!(
            "bind it in the step's `with`, or take it from the step's result by a parameter `{RESULT}`"
        )));
    }
}

/// The schema of what a step gives to others, as far as it is known.
fn result_schema(producer: &StepDefinition, signatures: &Signatures) -> Option<Value> {
    if let Some(wait) = &producer.wait {
        return wait.payload.clone();
    }
    if producer.child.is_some() {
        return None;
    }
    if producer.batch.is_some() {
        let list = || json!({ "type": "array" });
        return Some(json!({
            "type": "object", "additionalProperties": false,
            "properties": { "items": { "type": "integer" }, "results": list(), "failed": list() },
        }));
    }
    let result = signatures.get(&producer.call)?.result.clone()?;
    Some(if producer.map.is_some() { json!({ "type": "array", "items": result }) } else { result })
}

/// Reports paths into results that the producing handler's schema rules out.
fn result_paths(
    problems: &mut Vec<Diagnostic>,
    definition: &Definition,
    signatures: &Signatures,
    step: &StepDefinition,
) {
    for (param, source) in &step.with {
        let Source::Step { step: producer, path } = source else {
            continue;
        };
        let result = definition.step(producer).and_then(|producer| result_schema(producer, signatures));
        let Some(Found::Nothing { segment, fields }) = result.as_ref().map(|schema| schema::look_up(schema, path))
        else {
            continue;
        };
        let place = path[..segment].iter().fold(producer.clone(), |place, segment| format!("{place}.{segment}"));
        let missing = &path[segment];
        problems.push(
            Diagnostic::error(
                Code::NoResultField,
                format!("steps.{}.with.{param}", step.name),
                format!("the result `{place}` has no field `{missing}`"),
            )
            .maybe_help(did_you_mean(missing, fields)),
        );
    }
}

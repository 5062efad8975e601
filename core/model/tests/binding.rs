//! How parameters get their values, code-first and from YAML, and what a step is then given.

#![expect(clippy::unwrap_used, reason = "tests")]

use serde_json::json;
use tasker_model::{
    Definition, ErrorKind, Param, Revision, Signatures, Source, StepDefinition, StepInput,
    binding::{arguments, bind_code_first, check_bindings},
};

fn signatures() -> Signatures {
    Signatures::from_json(
        &json!({"handlers": [
            {"handler": "validate", "params": [{"name": "lines", "required": true}], "result": {"type": "object", "properties": {"total": {"type": "number"}}}},
            {"handler": "charge", "params": [{"name": "validate_cart", "required": true}, {"name": "token", "required": true}, {"name": "currency"}, {"name": "ctx", "required": true}]},
            {"handler": "confirm", "params": [{"name": "total", "required": true}, {"name": "emial", "required": true}]}
        ]})
        .to_string(),
    )
    .unwrap()
}

fn definition() -> Definition {
    let mut definition = Definition::new("orders");
    definition.input = Some(json!({
        "type": "object", "required": ["lines", "token"],
        "properties": {"lines": {"type": "array"}, "token": {"type": "string"}, "email": {"type": "string"}, "currency": {"type": "string"}}
    }));
    definition.steps = vec![StepDefinition::new("validate_cart", "validate"), StepDefinition::new("charge", "charge")];
    definition
}

#[test]
fn code_first_takes_the_earlier_step_then_the_input() {
    let mut definition = definition();
    assert_eq!(bind_code_first(&mut definition, &signatures()), []);
    let with = &definition.step("charge").unwrap().with;
    assert_eq!(with["validate_cart"], Source::step("validate_cart"));
    assert_eq!(with["token"], Source::input_field("token"));
    assert_eq!(with["currency"], Source::input_field("currency"));
    assert!(!with.contains_key("ctx"));
    let revision = Revision::compile(definition).unwrap();
    assert_eq!(revision.step_by_name("charge").unwrap().parents, [0]);
}

#[test]
fn what_remains_unbound_is_reported_with_a_proposal() {
    let mut definition = definition();
    definition.steps.push(StepDefinition::new("confirm", "confirm"));
    let problems = bind_code_first(&mut definition, &signatures());
    let told: Vec<(&str, &str)> = problems.iter().map(|p| (p.code.as_str(), p.help.as_deref().unwrap())).collect();
    assert_eq!(
        told,
        [
            ("TSK0132", "write `with: { total: validate_cart.total }`"),
            ("TSK0132", "write `with: { emial: input.email }`")
        ]
    );
}

#[test]
fn a_later_step_is_no_source_and_yaml_takes_no_step_by_its_name() {
    let mut turned = definition();
    turned.steps.reverse();
    assert_eq!(bind_code_first(&mut turned, &signatures()).len(), 1);
    let problems = check_bindings(&definition(), &signatures());
    assert_eq!(problems.len(), 1);
    assert!(problems[0].help.as_deref().unwrap().contains("with: { validate_cart: validate_cart }"));
}

fn delivered(input: &str, results: &str) -> StepInput {
    let id = "0199a3c2-7d1e-7c44-9f5b-2f8d4be1a0c3";
    serde_json::from_str(&format!(
        r#"{{"task":{{"id":"{id}","namespace":"default","workflow":"orders","revision":"x","input":{input},"created_at":"2026-01-01T00:00:00Z"}},
            "step":{{"id":"{id}/charge","name":"charge","attempt":1,"max_attempts":3,"timeout_ms":1000}},
            "results":{results},"idempotency_key":"{id}/charge"}}"#
    ))
    .unwrap()
}

#[test]
fn arguments_keep_their_text_and_leave_out_what_has_a_default() {
    let mut definition = definition();
    let with = &mut definition.steps[1].with;
    with.insert("total".into(), "validate_cart.lines.1.price".parse().unwrap());
    with.insert("currency".into(), "input.currency".parse().unwrap());
    let revision = Revision::compile(definition).unwrap();
    let step = revision.step_by_name("charge").unwrap();
    let params =
        [Param::required("token"), Param { required: false, ..Param::required("note") }, Param::required("ctx")];

    let input =
        delivered(r#"{"token":"t","lines":[]}"#, r#"{"validate_cart":{"lines":[{},{"price":9007199254740993.10}]}}"#);
    let given = arguments(step, &params, &input).unwrap();
    let given: Vec<(&str, &str)> = given.iter().map(|(param, value)| (param.as_str(), value.get())).collect();
    assert_eq!(given, [("token", "\"t\""), ("total", "9007199254740993.10")]);

    // A step skipped by an operator gives null, whatever the path.
    let skipped = arguments(step, &params, &delivered(r#"{"token":"t"}"#, r#"{"validate_cart":null}"#)).unwrap();
    assert!(skipped["total"].is_null());
}

#[test]
fn a_path_into_nothing_names_step_parameter_and_source() {
    let mut definition = definition();
    definition.steps[1].with.insert("total".into(), "validate_cart.totl".parse().unwrap());
    let revision = Revision::compile(definition).unwrap();
    let step = revision.step_by_name("charge").unwrap();
    let error = arguments(step, &[], &delivered("{}", r#"{"validate_cart":{"total":1}}"#)).unwrap_err();
    assert_eq!(error.kind, ErrorKind::Invalid);
    for part in ["`charge`", "`total`", "`validate_cart.totl`"] {
        assert!(error.message.contains(part), "{error}");
    }
    let error =
        arguments(step, &[Param::required("token")], &delivered("{}", r#"{"validate_cart":{"totl":1}}"#)).unwrap_err();
    assert!(error.message.contains("`token`"), "{error}");
}

//! The wire form of outcomes: nothing is lost on the way, and what cannot be stored is refused.

use std::time::Duration;

use tasker_model::{ErrorKind, Outcome, Payload, StepFailure};

fn read(text: &str) -> Outcome {
    serde_json::from_str(text).unwrap_or_else(|error| unreachable!("{text}: {error}"))
}

#[test]
fn every_outcome_survives_its_wire_form() {
    for text in [
        r#"{"outcome":"success","value":{"total":1.10}}"#,
        r#"{"outcome":"success","value":null,"metadata":{"rows":12}}"#,
        r#"{"outcome":"failure","error":{"kind":"permanent","code":"CARD_DECLINED","message":"declined","class":"Declined","backtrace":["a","b"],"retryable":false,"details":null}}"#,
        r#"{"outcome":"failure","error":{"kind":"unexpected","message":"x","retryable":true,"retry_after_ms":30000}}"#,
        r#"{"outcome":"decision","steps":["review"],"value":1E+2}"#,
        r#"{"outcome":"batches","items":1000,"cursors":[{"from":0},{"from":9007199254740993}]}"#,
        r#"{"outcome":"map","step":"import","items":[1.10,null,"x"]}"#,
        r#"{"outcome":"checkpoint","cursor":"abc","items":5,"accumulated":{"sum":1.10}}"#,
        r#"{"outcome":"child","workflow":"shop.refund","input":{"amount":1.10}}"#,
        r#"{"outcome":"wait","signal":"approved","timeout_ms":1000,"default":null}"#,
        r#"{"outcome":"wait","until":"2026-01-02T03:04:05Z"}"#,
        r#"{"outcome":"settled"}"#,
        r#"{"outcome":"cancelled"}"#,
    ] {
        let outcome = read(text);
        assert_eq!(serde_json::to_string(&outcome).unwrap(), text);
        assert!(outcome.check().is_ok(), "{text}");
    }
}

#[test]
fn numbers_pass_as_text() {
    for number in ["9007199254740993", "1.10", "-0", "1234567890123456789012345678901234567890"] {
        let text = format!(r#"{{"outcome":"success","value":{{"n":{number}}},"metadata":{{"m":{number}}}}}"#);
        assert_eq!(serde_json::to_string(&read(&text)).unwrap(), text);
        // The tag may come last.
        let late = format!(r#"{{"value":{number},"outcome":"success"}}"#);
        assert_eq!(read(&late), Outcome::success(Payload::parse(number).unwrap()));
    }
}

#[test]
fn what_is_no_outcome_is_refused() {
    for text in [
        "{}",
        r#"{"outcome":"sucess","value":1}"#,
        r#"{"outcome":"failure"}"#,
        r#"{"outcome":"success","vaule":1}"#,
        r#"{"outcome":"map","items":[]}"#,
        r#"{"outcome":"batches","items":-1,"cursors":[]}"#,
        r#"{"outcome":"wait","timeout_ms":5}"#,
        r#"{"outcome":"child","workflow":"A.b","input":{}}"#,
        r#"{"outcome":"failure","error":{"kind":"strange","message":"","retryable":false}}"#,
    ] {
        assert!(serde_json::from_str::<Outcome>(text).is_err(), "{text}");
    }
    // A result left out is null: both say that there is none.
    assert_eq!(read(r#"{"outcome":"success"}"#), Outcome::success(Payload::null()));
}

#[test]
fn what_cannot_be_stored_is_named_before_it_enters_a_batch() {
    let long = format!("\"{}\"", "x".repeat(256 * 1024));
    let rejected = [
        Outcome::success(Payload::parse(r#"{"a":"\u0000"}"#).unwrap()),
        Outcome::success(Payload::parse("1e400").unwrap()),
        Outcome::success(Payload::parse(&long).unwrap()),
        Outcome::success(Payload::parse(&format!("{}{}", "[".repeat(65), "]".repeat(65))).unwrap()),
        Outcome::failure(StepFailure::permanent("a\0b")),
        Outcome::failure(StepFailure::permanent("x").details(Payload::parse(r#""\ud800""#).unwrap())),
        Outcome::Map { step: "m".into(), items: vec![Payload::null(); 100_001] },
        Outcome::Map {
            step: "m".into(),
            items: vec![Payload::parse(&format!("\"{}\"", "x".repeat(200_000))).unwrap(); 30],
        },
    ];
    for outcome in rejected {
        assert_eq!(outcome.check().unwrap_err().kind, ErrorKind::ResultRejected);
    }
}

#[test]
fn failures_know_whether_a_retry_may_help() {
    assert!(StepFailure::unexpected("x").retryable);
    assert!(!StepFailure::permanent("x").retryable);
    assert!(StepFailure::timeout(Duration::from_secs(1)).retryable);
    assert!(!StepFailure::result_rejected("x").retryable);
    let asked = StepFailure::permanent("later").retry_after(Duration::from_secs(30));
    assert!(asked.retryable);
    assert_eq!(asked.retry_after_ms, Some(30_000));
}

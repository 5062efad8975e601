//! What holds for every definition, retry policy and payload, not only for the examples.

use std::time::Duration;

use proptest::{collection::vec, option, prelude::*, sample::select};
use serde_json::{Value, json};
use tasker_model::{
    Backoff, Definition, Durability, ErrorKind, EventDefinition, Graph, On, OnFailure, Payload, Priority, Retry,
    Revision, Source, StepDefinition, limits::LONGEST_DELAY, parse::parse, payload::check_payload,
};

/// Any JSON value; numbers that a `Value` holds exactly.
fn json_value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>()
            .prop_filter("finite and readable", |n| n.is_finite() && (*n == 0.0 || n.abs() > 1e-300))
            .prop_map(Value::from),
        any::<String>().prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 24, 4, |inner| {
        prop_oneof![
            vec(inner.clone(), 0..4).prop_map(Value::from),
            vec((any::<String>(), inner), 0..4).prop_map(|entries| entries.into_iter().collect()),
        ]
    })
}

fn retry() -> impl Strategy<Value = Retry> {
    let backoff = select(Backoff::NAMES.map(|(_, backoff)| backoff).to_vec());
    (1..=1_000_u32, backoff, 0..10_000_u64, 10_000..10_000_000_u64, any::<bool>()).prop_map(
        |(max_attempts, backoff, base_ms, cap_ms, jitter)| Retry { max_attempts, backoff, base_ms, cap_ms, jitter },
    )
}

fn step(at: usize) -> impl Strategy<Value = StepDefinition> {
    let edges = vec((any::<prop::sample::Index>(), any::<bool>(), vec("[a-zA-Z0-9_-]{1,6}", 0..3)), 0..4);
    let inputs = vec(("[a-zA-Z_][a-zA-Z0-9_]{0,6}", vec("[a-zA-Z0-9_-]{1,6}", 0..3)), 0..3);
    let priority = option::of(select(Priority::NAMES.map(|(_, priority)| priority).to_vec()));
    let policy = prop_oneof![Just(Retry::default()), (1..9_u32).prop_map(Retry::attempts), retry()];
    let queue = prop_oneof![Just("default".to_owned()), "[a-z][a-z0-9_]{0,8}"];
    (
        edges,
        inputs,
        policy,
        1..10_000_000_u64,
        queue,
        priority,
        option::of(json_value().prop_filter("null is none", |config| !config.is_null())),
        "[A-Za-z0-9_.:#]{1,20}",
    )
        .prop_map(move |(edges, inputs, retry, timeout_ms, queue, priority, config, call)| {
            let mut step = StepDefinition {
                retry,
                timeout_ms,
                queue,
                priority,
                config,
                ..StepDefinition::new(format!("s{at}"), call)
            };
            for (parent, is_data, path) in edges.into_iter().filter(|_| at > 0) {
                // Only earlier steps, so that every definition is free of cycles.
                let parent = format!("s{}", parent.index(at));
                if is_data {
                    step.with.insert(format!("from_{parent}"), Source::Step { step: parent, path });
                } else if !step.after.contains(&parent) {
                    step.after.push(parent);
                }
            }
            step.with.extend(inputs.into_iter().map(|(param, path)| (format!("p{param}"), Source::Input { path })));
            step
        })
}

fn definition() -> impl Strategy<Value = Definition> {
    let steps = (1..12_usize).prop_flat_map(|count| (0..count).map(step).collect::<Vec<_>>());
    let head = ("[a-z][a-z0-9_]{0,20}", prop_oneof![Just("default".to_owned()), "[a-z][a-z0-9_]{0,9}"]);
    let texts = (option::of(any::<String>()), option::of(any::<String>()));
    (head, texts, any::<bool>(), any::<bool>(), any::<bool>(), steps.prop_shuffle()).prop_map(
        |((name, namespace), (version, description), continues, relaxed, has_input, steps)| Definition {
            namespace,
            version,
            description,
            on_failure: if continues { OnFailure::Continue } else { OnFailure::FailFast },
            durability: if relaxed { Durability::Relaxed } else { Durability::Strict },
            input: has_input.then(|| json!({"type": "object", "properties": {}, "additionalProperties": true})),
            search: if has_input { vec!["order_id".to_owned()] } else { Vec::new() },
            events: steps
                .iter()
                .take(2)
                .zip([On::Success, On::Failure])
                .map(|(step, on)| {
                    (format!("{}_ended", step.name), EventDefinition { on, step: Some(step.name.clone()) })
                })
                .chain([("all_done".to_owned(), EventDefinition { on: On::Success, step: None })])
                .collect(),
            steps,
            ..Definition::new(name)
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn yaml_reads_back_as_it_was(definition in definition()) {
        let yaml = definition.to_yaml();
        let read = parse(&yaml, "w.yaml").map_err(|report| TestCaseError::fail(format!("{yaml}\n{report}")))?;
        prop_assert_eq!(read, definition, "{}", yaml);
    }

    #[test]
    fn json_reads_back_as_it_was(definition in definition()) {
        let text = serde_json::to_string(&definition).unwrap();
        prop_assert_eq!(serde_json::from_str::<Definition>(&text).unwrap(), definition);
    }

    #[test]
    fn the_hash_and_the_numbering_ignore_the_order_of_steps(definition in definition()) {
        let mut turned = definition.clone();
        turned.steps.reverse();
        turned.steps.iter_mut().for_each(|step| step.after.reverse());
        prop_assert_eq!(turned.content_hash(), definition.content_hash());
        prop_assert_eq!(Graph::build(&turned).unwrap(), Graph::build(&definition).unwrap());
        turned.steps[0].timeout_ms += 1;
        prop_assert_ne!(turned.content_hash(), definition.content_hash());
    }

    #[test]
    fn the_numbering_is_topological_and_edges_agree(definition in definition()) {
        let revision = Revision::compile(definition.clone()).map_err(|problems| TestCaseError::fail(format!("{problems:?}")))?;
        prop_assert_eq!(revision.steps.len(), definition.steps.len());
        for (at, step) in revision.steps.iter().enumerate() {
            prop_assert_eq!(usize::try_from(step.idx).unwrap(), at);
            prop_assert!(step.parents.iter().all(|parent| *parent < step.idx));
            prop_assert!(step.parents.is_sorted() && step.children.is_sorted());
            prop_assert_eq!(step.is_sink, step.children.is_empty());
            let parents: Vec<&str> = step.parents.iter().map(|idx| revision.steps[usize::try_from(*idx).unwrap()].name.as_str()).collect();
            let mut named = definition.step(&step.name).unwrap().dependencies();
            named.sort_by_key(|name| revision.step_by_name(name).unwrap().idx);
            prop_assert_eq!(parents, named);
            for child in &step.children {
                prop_assert!(revision.steps[usize::try_from(*child).unwrap()].parents.contains(&step.idx));
            }
        }
    }

    #[test]
    fn delays_keep_their_bounds(retry in retry(), failures in 0..2_000_u32, random in 0.0..1.0_f64, asked in option::of(any::<u64>())) {
        let cap = Duration::from_millis(retry.cap_ms);
        let delay = retry.delay(failures, None, random);
        prop_assert!(delay <= cap.mul_f64(1.2).min(LONGEST_DELAY) + Duration::from_nanos(1));
        let plain = Retry { jitter: false, ..retry };
        let exact = plain.delay(failures, None, random);
        prop_assert!(exact <= cap);
        prop_assert!(plain.delay(failures + 1, None, random) >= exact, "the delay shrank");
        prop_assert!(delay >= exact.mul_f64(0.8).saturating_sub(Duration::from_nanos(1)) && delay <= exact.mul_f64(1.2) + Duration::from_nanos(1));
        let asked = asked.map(Duration::from_millis);
        prop_assert_eq!(retry.delay(failures, asked, random), asked.map_or(delay, |asked| asked.min(LONGEST_DELAY)));
    }

    #[test]
    fn what_json_accepts_passes_the_gate(value in json_value()) {
        for text in [value.to_string(), serde_json::to_string_pretty(&value).unwrap()] {
            let verdict = check_payload(ErrorKind::InputInvalid, &text, usize::MAX, "the input");
            prop_assert_eq!(verdict.is_ok(), !text.contains("\\u0000"), "{}: {:?}", text, verdict);
        }
    }

    #[test]
    fn what_json_refuses_the_gate_refuses(value in json_value(), cut in any::<prop::sample::Index>(), noise in "[\\[\\]{}\",:0-9eE+.\\\\ud a-]{0,3}") {
        let text = value.to_string();
        let positions: Vec<usize> = text.char_indices().map(|(at, _)| at).collect();
        let at = positions[cut.index(positions.len())];
        for broken in [text[..at].to_owned(), format!("{}{noise}{}", &text[..at], &text[at..]), noise.clone()] {
            let passes = check_payload(ErrorKind::InputInvalid, &broken, usize::MAX, "the input").is_ok();
            let reads = serde_json::from_str::<Value>(&broken).is_ok();
            prop_assert!(!passes || reads, "{broken} passes");
            if reads && !broken.contains("\\u0000") && !broken.to_lowercase().contains('e') {
                prop_assert!(passes, "{broken} is refused");
            }
        }
    }

    #[test]
    fn a_path_gives_what_a_tree_would_give(value in json_value(), picks in vec(any::<prop::sample::Index>(), 0..5)) {
        let payload = Payload::parse(&value.to_string()).unwrap();
        let (mut here, mut path) = (&value, Vec::new());
        for pick in picks {
            here = match here {
                Value::Array(items) if !items.is_empty() => {
                    path.push(pick.index(items.len()).to_string());
                    &items[pick.index(items.len())]
                }
                Value::Object(map) if !map.is_empty() => {
                    let (key, value) = map.iter().nth(pick.index(map.len())).unwrap();
                    path.push(key.clone());
                    value
                }
                _ => break,
            };
        }
        prop_assert_eq!(payload.at(&path).unwrap().to::<Value>().unwrap(), here.clone());
    }

    #[test]
    fn no_text_breaks_the_parser_and_every_place_is_in_it(definition in definition(), cut in any::<prop::sample::Index>(), noise in any::<String>()) {
        let yaml = definition.to_yaml();
        let positions: Vec<usize> = yaml.char_indices().map(|(at, _)| at).collect();
        let at = positions[cut.index(positions.len())];
        for text in [format!("{}{noise}{}", &yaml[..at], &yaml[at..]), yaml[..at].to_owned(), noise.clone()] {
            if let Err(report) = parse(&text, "w.yaml") {
                prop_assert!(report.has_errors());
                let lines = text.split(['\n', '\r']).count();
                for diagnostic in &report.diagnostics {
                    prop_assert!(diagnostic.column >= 1 && (1..=lines + 1).contains(&diagnostic.line), "{diagnostic} at {}:{}", diagnostic.line, diagnostic.column);
                }
                prop_assert!(!report.render(true).is_empty());
            }
        }
    }
}

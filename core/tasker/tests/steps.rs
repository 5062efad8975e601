//! Steps and workflows as they are written, without a database.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::time::Duration;

use serde::{Deserialize, Serialize};
use tasker::prelude::*;
use tasker::testing::TestTasker;
use tasker::{Backoff, ErrorKind};

#[derive(Debug, Clone, Serialize, Deserialize, schemars::JsonSchema)]
struct OrderIn {
    items: Vec<f64>,
    email: String,
    coupon: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
struct Cart {
    total: f64,
    lines: usize,
}

/// Has no JSON Schema: that is no condition.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Payment {
    id: String,
}

#[derive(Clone)]
struct Gateway {
    prefix: &'static str,
}

/// Adds the items up.
#[tasker::step]
async fn validate_cart(Input(order): Input<OrderIn>) -> Result<Cart, StepError> {
    if order.items.is_empty() {
        return Err(StepError::permanent("the cart is empty").code("EMPTY_CART"));
    }
    Ok(Cart { total: order.items.iter().sum(), lines: order.items.len() })
}

#[tasker::step(retry = 5, timeout = "30s", queue = "slow")]
async fn charge_payment(
    cart: Dep<ValidateCart>,
    State(gateway): State<Gateway>,
    ctx: Ctx,
) -> Result<Payment, StepError> {
    Ok(Payment { id: format!("{}{}/{}", gateway.prefix, cart.total, ctx.attempt()) })
}

#[tasker::step]
async fn send_receipt(email: String, total: f64, coupon: Option<String>) -> String {
    format!("{email} paid {total} with {}", coupon.as_deref().unwrap_or("no coupon"))
}

#[tasker::step(name = "confirm", definition = "Confirmation")]
async fn confirm_order() {}

/// A parameter may be called like a step of this module.
#[tasker::step]
async fn count_lines(validate_cart: Cart) -> Success<usize> {
    Success::new(validate_cart.lines).metadata("unit", "lines")
}

fn orders() -> Workflow {
    Workflow::new("order_processing")
        .namespace("orders")
        .input::<OrderIn>()
        .step(validate_cart)
        .step(charge_payment)
        .step(send_receipt.with("total", "validate_cart.total"))
        .step(count_lines.priority(Priority::High))
        .step(confirm_order.after((ChargePayment, SendReceipt, "count_lines")))
}

fn parents(workflow: &Workflow, step: &str) -> Vec<String> {
    let revision = workflow.revision().unwrap();
    let of = revision.step_by_name(step).unwrap();
    of.parents.iter().map(|idx| revision.steps[usize::try_from(*idx).unwrap()].name.clone()).collect()
}

fn mistakes(workflow: &Workflow) -> String {
    let error = workflow.revision().unwrap_err();
    assert_eq!(error.kind, ErrorKind::Invalid);
    error.message
}

#[test]
fn edges_come_from_signatures() {
    let orders = orders();
    assert_eq!(parents(&orders, "charge_payment"), ["validate_cart"]);
    assert_eq!(parents(&orders, "send_receipt"), ["validate_cart"]);
    assert_eq!(parents(&orders, "count_lines"), ["validate_cart"]);
    assert_eq!(parents(&orders, "confirm"), ["charge_payment", "count_lines", "send_receipt"]);
    let yaml = orders.revision().unwrap().definition.to_yaml();
    assert!(yaml.contains("send_receipt: { call: send_receipt, with: { coupon: input.coupon, email: input.email, total: validate_cart.total } }"), "{yaml}");
}

#[test]
fn settings_come_from_the_attribute_and_the_call() {
    let workflow = orders().step(charge_payment.named("charge_again").retry(2).timeout(Duration::from_secs(1)));
    let definition = workflow.revision().unwrap().definition;
    let charge = definition.step("charge_payment").unwrap();
    assert_eq!((charge.retry.max_attempts, charge.timeout_ms, charge.queue.as_str()), (5, 30_000, "slow"));
    let again = definition.step("charge_again").unwrap();
    assert_eq!((again.retry.max_attempts, again.timeout_ms, again.queue.as_str()), (2, 1_000, "slow"));
    assert_eq!(again.call, "charge_payment");
    let patient = Retry { backoff: Backoff::Linear, ..Retry::attempts(9) };
    let workflow = Workflow::new("w").input::<OrderIn>().step(validate_cart.retry(patient));
    assert_eq!(workflow.revision().unwrap().steps[0].retry, patient);
    assert_eq!(Confirmation::NAME, "confirm");
}

#[test]
fn the_revision_depends_on_what_is_written_only() {
    assert_eq!(orders().revision().unwrap().hash, orders().revision().unwrap().hash);
    assert_ne!(orders().revision().unwrap().hash, orders().version("2").revision().unwrap().hash);
}

#[test]
fn mistakes_are_found_before_anything_runs_with_the_right_spelling() {
    let told = mistakes(
        &Workflow::new("w").input::<OrderIn>().step(validate_cart).step(charge_payment.after("validate_crat")),
    );
    assert!(told.contains("did you mean `validate_cart`?"), "{told}");
    let told = mistakes(&Workflow::new("w").input::<OrderIn>().step(charge_payment));
    assert!(told.contains("validate_cart"), "{told}");
    // `total` is neither a step nor an input field; the cart's field is most likely meant.
    let told = mistakes(&Workflow::new("w").input::<OrderIn>().step(validate_cart).step(send_receipt));
    assert!(told.contains("`total`") && told.contains("validate_cart.total"), "{told}");
    let told = mistakes(
        &Workflow::new("w")
            .input::<OrderIn>()
            .step(validate_cart)
            .step(send_receipt.with("total", "validate_cart.totl")),
    );
    assert!(told.contains("did you mean `total`?"), "{told}");
    let told = mistakes(&Workflow::new("w").input::<OrderIn>().step(validate_cart.with("totl", "input.email")));
    assert!(told.contains("totl"), "{told}");
    let told = mistakes(&Workflow::new("w").step(confirm_order).step(confirm_order));
    assert!(told.contains("confirm"), "{told}");
    let told = mistakes(&Workflow::new("w").step_fn("double", async |n: i64| n * 2));
    assert!(told.contains("parameter 1 has no name"), "{told}");
}

#[test]
fn closures_are_steps() {
    struct Total;
    impl StepDef for Total {
        const NAME: &'static str = "total";
        type Output = f64;
    }
    let workflow = Workflow::new("sum")
        .step_fn("total", |Input(items): Input<Vec<f64>>| async move { items.iter().sum::<f64>() })
        .step_fn("report", async |total: Dep<Total>| -> Result<String, StepError> { Ok(format!("{}", *total)) })
        .step(step_fn("double", async |n: f64| n * 2.0).parameters(["n"]).with("n", "total"));
    assert_eq!(parents(&workflow, "report"), ["total"]);
    assert_eq!(parents(&workflow, "double"), ["total"]);
    assert_eq!(workflow.revision().unwrap().step_by_name("total").unwrap().handler, "sum.total");
}

#[tokio::test]
async fn a_marked_function_stays_a_function() {
    let order = OrderIn { items: vec![1.5, 2.5], email: "a@b.c".into(), coupon: None };
    let cart = validate_cart(Input(order)).await.unwrap();
    assert_eq!(cart, Cart { total: 4.0, lines: 2 });
    let error = validate_cart(Input(OrderIn { items: vec![], email: String::new(), coupon: None })).await.unwrap_err();
    assert_eq!(error.failure().unwrap().code.as_deref(), Some("EMPTY_CART"));
    assert_eq!(send_receipt("me".into(), 2.0, None).await, "me paid 2 with no coupon");
}

#[tokio::test]
async fn one_step_runs_without_a_database() {
    let kit = TestTasker::new(&orders()).with_state(Gateway { prefix: "pay_" });
    let run =
        kit.step::<ValidateCart>().input(serde_json::json!({"items": [1, 2.5], "email": "a"})).run().await.unwrap();
    assert_eq!(run.value::<Cart>().unwrap(), Cart { total: 3.5, lines: 2 });
    let run =
        kit.step::<ChargePayment>().dep::<ValidateCart>(&Cart { total: 3.5, lines: 2 }).attempt(2).run().await.unwrap();
    assert_eq!(run.value::<Payment>().unwrap().id, "pay_3.5/2");
    let run = kit.step::<CountLines>().result("validate_cart", Cart { total: 0.0, lines: 7 }).run().await.unwrap();
    assert_eq!(run.value::<usize>().unwrap(), 7);
    assert_eq!(run.metadata::<String>("unit").as_deref(), Some("lines"));
    let run = kit
        .step::<SendReceipt>()
        .input(serde_json::json!({"email": "a@b.c", "coupon": "X"}))
        .result("validate_cart", serde_json::json!({"total": 1.25, "lines": 1}))
        .run()
        .await
        .unwrap();
    assert_eq!(run.value::<String>().unwrap(), "a@b.c paid 1.25 with X");
    assert!(kit.step::<Confirmation>().run().await.unwrap().value::<()>().is_ok());
}

#[tokio::test]
async fn a_failing_step_is_an_answer() {
    let kit = TestTasker::new(&orders()).with_state(Gateway { prefix: "" });
    let run = kit.step::<ValidateCart>().input(serde_json::json!({"items": [], "email": "a"})).run().await.unwrap();
    assert_eq!(run.error().unwrap().code.as_deref(), Some("EMPTY_CART"));
    assert!(run.retry_in().is_none() && !run.is_success());
    // What does not fit does not fit the next time.
    let run = kit.step::<ValidateCart>().input(serde_json::json!({"items": "none"})).run().await.unwrap();
    assert_eq!(run.error().unwrap().kind, ErrorKind::InputInvalid);
    assert!(run.retry_in().is_none());
    let failing =
        kit.clone().fail_next("charge_payment", StepError::retryable("busy").retry_after(Duration::from_secs(7)));
    let cart = Cart { total: 1.0, lines: 1 };
    let run = failing.step::<ChargePayment>().dep::<ValidateCart>(&cart).run().await.unwrap();
    assert_eq!(run.retry_in(), Some(Duration::from_secs(7)));
    assert!(failing.step::<ChargePayment>().dep::<ValidateCart>(&cart).run().await.unwrap().is_success());
    let last = kit.clone().fail_next("charge_payment", StepError::retryable("busy"));
    let run = last.step::<ChargePayment>().dep::<ValidateCart>(&cart).attempt(5).run().await.unwrap();
    assert!(run.retry_in().is_none() && run.error().is_some());
}

#[tokio::test]
async fn a_panic_is_a_failed_attempt() {
    let workflow = Workflow::new("w").step_fn("boom", async || -> () { panic!("out of luck") });
    let run = TestTasker::new(&workflow).step_named("boom").run().await.unwrap();
    let error = run.error().unwrap();
    assert_eq!((error.class.as_deref(), error.message.as_str()), (Some("panic"), "out of luck"));
    assert!(run.retry_in().is_some());
}

#[tokio::test]
async fn another_function_takes_a_steps_place() {
    let kit = TestTasker::new(&orders())
        .override_step("send_receipt", async |email: String, total: f64, _: Option<String>| {
            format!("fake {email} {total}")
        });
    let run = kit
        .step::<SendReceipt>()
        .input(serde_json::json!({"email": "a"}))
        .result("validate_cart", serde_json::json!({"total": 2}))
        .run()
        .await
        .unwrap();
    assert_eq!(run.value::<String>().unwrap(), "fake a 2");
    let error = kit.step_named("send_reciept").run().await.unwrap_err();
    assert!(error.message.contains("did you mean `send_receipt`?"), "{error}");
    let error = kit.step::<ValidateCart>().result("confirm", 1).run().await.unwrap_err();
    assert!(error.message.contains("does not depend on"), "{error}");
}

#[tokio::test]
async fn a_worker_does_not_start_with_what_cannot_work() {
    let pool = || sqlx::postgres::PgPoolOptions::new().connect_lazy("postgres://nobody@127.0.0.1:1/none").unwrap();
    let tasker = Tasker::from_pool(pool()).workflow(orders());
    let error = tasker.check().unwrap_err();
    assert!(error.message.contains("`charge_payment` takes `State<") && error.message.contains("Gateway"), "{error}");
    assert!(tasker.clone().with_state(Gateway { prefix: "" }).check().is_ok());
    assert_eq!(tasker.start().await.unwrap_err().kind, ErrorKind::Invalid);

    let twice = tasker.with_state(Gateway { prefix: "" }).workflow(orders());
    assert!(twice.check().unwrap_err().message.contains("given twice"));

    let one = Workflow::new("one").step(step_fn("same", async || 1).named("a"));
    let clash = Tasker::from_pool(pool()).handler_in("default", step_fn("one.a", async || 2)).workflow(one);
    let error = clash.check().unwrap_err();
    assert!(error.message.contains("two functions are called `one.a`"), "{error}");
    assert!(
        Tasker::from_pool(pool()).workflow_yaml("/no/such.yaml").check().unwrap_err().message.contains("/no/such.yaml")
    );
}

#[tokio::test]
async fn the_description_is_what_lint_reads() {
    let pool = sqlx::postgres::PgPoolOptions::new().connect_lazy("postgres://nobody@127.0.0.1:1/none").unwrap();
    let signatures = Tasker::from_pool(pool).workflow(orders()).describe();
    let text = serde_json::to_string(&signatures).unwrap();
    assert_eq!(tasker::Signatures::from_json(&text).unwrap(), signatures);
    let receipt = signatures.get("send_receipt").unwrap();
    let params: Vec<_> = receipt.params.iter().map(|param| (param.name.as_str(), param.required)).collect();
    assert_eq!(params, [("email", true), ("total", true), ("coupon", false)]);
    assert_eq!(receipt.params[1].schema.as_ref().unwrap()["type"], "number");
    assert_eq!(
        signatures.get("validate_cart").unwrap().result.as_ref().unwrap()["properties"]["total"]["type"],
        "number"
    );
    assert!(signatures.get("charge_payment").unwrap().result.is_none());
    assert!(signatures.get("confirm").is_some());
}

#[tokio::test]
async fn yaml_calls_handlers_by_name_and_is_checked_against_them() {
    let directory = std::env::temp_dir().join(format!("tasker-yaml-{}", std::process::id()));
    std::fs::create_dir_all(&directory).unwrap();
    let write = |name: &str, receipt: &str| {
        let file = directory.join(name);
        let text = format!(
            "name: polyglot\nsteps:\n  cart: {{ call: validate_cart }}\n  receipt: {{ call: send_receipt, with: {receipt} }}\n  other: {{ call: python.ship, after: [receipt] }}\n"
        );
        std::fs::write(&file, text).unwrap();
        file
    };
    let pool = || sqlx::postgres::PgPoolOptions::new().connect_lazy("postgres://nobody@127.0.0.1:1/none").unwrap();
    let with = |file| Tasker::from_pool(pool()).workflow_yaml(file).handler(validate_cart).handler(send_receipt);
    let good = write("good.yaml", "{ total: cart.total, email: input.email }");
    with(good).check().unwrap();
    let bad = write("bad.yaml", "{ totl: cart.total, email: input.email }");
    let error = with(bad).check().unwrap_err();
    assert!(error.message.contains("did you mean `total`?"), "{error}");
    std::fs::remove_dir_all(&directory).unwrap();
}

#[tokio::test]
async fn a_transaction_needs_a_database_and_the_test_says_so() {
    let workflow = Workflow::new("w").step_fn("charge", async |ctx: Ctx| -> Result<Settled<u8>, StepError> {
        ctx.transaction(async |_| Ok::<_, StepError>(1)).await
    });
    let error = TestTasker::new(&workflow).step_named("charge").run().await.unwrap_err();
    assert!(error.message.contains("needs a real step"), "{error}");
}

#[tokio::test]
async fn workflows_share_handlers_and_yaml_gives_results_by_order_alone() {
    let pool = || sqlx::postgres::PgPoolOptions::new().connect_lazy("postgres://nobody@127.0.0.1:1/none").unwrap();
    let other = Workflow::new("other").namespace("orders").input::<OrderIn>().step(validate_cart).step(count_lines);
    Tasker::from_pool(pool()).workflow(orders()).workflow(other).with_state(Gateway { prefix: "" }).check().unwrap();

    let yaml = "name: short\nsteps:\n  validate_cart: { call: validate_cart }\n  charge: { call: charge_payment, after: [validate_cart] }\n";
    let short = Workflow::from_yaml(yaml, "short.yaml").unwrap();
    let kit =
        TestTasker::new(&short).handler(validate_cart).handler(charge_payment).with_state(Gateway { prefix: "p" });
    let cart = Cart { total: 2.0, lines: 1 };
    let run = kit.step_named("charge").result("validate_cart", &cart).run().await.unwrap();
    assert_eq!(run.value::<Payment>().unwrap().id, "p2/1");
    let alone = Workflow::from_yaml("name: alone\nsteps:\n  charge: { call: charge_payment }\n", "alone.yaml").unwrap();
    let kit = TestTasker::new(&alone).handler(charge_payment).with_state(Gateway { prefix: "" });
    let run = kit.step_named("charge").run().await.unwrap();
    assert!(run.error().unwrap().message.contains("does not depend on"), "{run:?}");
}

#[test]
fn a_tasker_is_a_web_frameworks_state() {
    fn state<T: Clone + Send + Sync + 'static>() {}
    fn future<F: Future + Send>(_: fn(Tasker) -> F) {}
    state::<Tasker>();
    state::<Workflow>();
    state::<tasker::Task>();
    future(|tasker| async move { tasker.work().await });
}

//! Sends a file of orders through the workflow and shows how each ends.
#![expect(clippy::print_stdout, reason = "this is what the program is for")]

use std::collections::BTreeMap;
use std::io::{IsTerminal as _, Write as _, stdout};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use example_orders::services::{Currency, Shop};
use example_orders::{Ending, Entry, OrderFile, Outcome, place};
use futures::StreamExt as _;
use rust_decimal::Decimal;
use tasker::Workflow;

/// How many orders are on their way at once.
const IN_FLIGHT: usize = 50;
const BAR: usize = 40;

/// Submits every order, waits for all, and answers 0 if each ended as the file says.
pub(crate) async fn run(file: &OrderFile, workflow: &Workflow, shop: &Shop) -> anyhow::Result<ExitCode> {
    file.stock_up(shop).await?;
    let mut summary = Summary::new(file.orders.len());
    let mut endings = futures::stream::iter(&file.orders)
        .map(|entry| async move {
            let began = Instant::now();
            let task = place(&shop.pool, workflow, &entry.order).await?;
            anyhow::Ok((entry, Ending::of(&task).await?, began.elapsed()))
        })
        .buffer_unordered(IN_FLIGHT);
    while let Some(ended) = endings.next().await {
        let (entry, ending, time) = ended?;
        summary.add(entry, &ending, time);
    }
    Ok(summary.show())
}

struct Summary {
    began: Instant,
    orders: usize,
    outcomes: BTreeMap<Outcome, usize>,
    totals: BTreeMap<Currency, Decimal>,
    retried: usize,
    retries: i32,
    unexpected: Vec<String>,
    is_live: bool,
}

impl Summary {
    fn new(orders: usize) -> Self {
        Self {
            began: Instant::now(),
            orders,
            outcomes: BTreeMap::new(),
            totals: BTreeMap::new(),
            retried: 0,
            retries: 0,
            unexpected: Vec::new(),
            is_live: stdout().is_terminal(),
        }
    }

    fn done(&self) -> usize {
        self.outcomes.values().sum()
    }

    fn count(&self, outcome: Outcome) -> usize {
        self.outcomes.get(&outcome).copied().unwrap_or_default()
    }

    fn add(&mut self, entry: &Entry, ending: &Ending, time: Duration) {
        let order = &entry.order;
        *self.outcomes.entry(ending.outcome).or_default() += 1;
        if let Some(total) = ending.total {
            *self.totals.entry(order.currency).or_default() += total;
        }
        if ending.charge_attempts > 1 {
            self.retried += 1;
            self.retries += ending.charge_attempts - 1;
        }
        let differs = entry.expect.differs(ending);
        if let Some(why) = &differs {
            self.unexpected.push(format!("{} is {}, but {why}", order.order_id, ending.outcome));
        }
        if self.is_live {
            self.draw();
        } else {
            self.line(entry, ending, time);
        }
    }

    /// One line for each order, for logs and pipes.
    fn line(&self, entry: &Entry, ending: &Ending, time: Duration) {
        let (at, of, order) = (self.done(), self.orders, &entry.order);
        let amount = ending.total.map(|total| format!("{} {total}", order.currency)).unwrap_or_default();
        let note = match (&ending.reason, ending.charge_attempts) {
            (Some(reason), _) => format!("  {reason}"),
            (None, 2..) => format!("  charged at attempt {}", ending.charge_attempts),
            _ => String::new(),
        };
        println!(
            "[{at:>3}/{of}] {}  {:<12}  {amount:>13}  {:>5} ms{note}",
            order.order_id,
            ending.outcome,
            time.as_millis()
        );
    }

    /// A bar that is drawn over itself, for terminals.
    fn draw(&self) {
        let (done, of) = (self.done(), self.orders);
        let full = done * BAR / of.max(1);
        let bar = "█".repeat(full) + &"░".repeat(BAR - full);
        let counts = [Outcome::Complete, Outcome::Declined, Outcome::OutOfStock].map(|outcome| self.count(outcome));
        let [complete, declined, out] = counts;
        let retries = self.retries;
        print!(
            "\r\x1b[2K{bar} {done}/{of}  {complete} complete, {declined} declined, {out} out of stock, {retries} retries"
        );
        // A terminal that is gone is noticed at the summary.
        let _ = stdout().flush();
    }

    fn show(&self) -> ExitCode {
        let (orders, seconds) = (self.orders, self.began.elapsed().as_secs_f64());
        println!("{}", if self.is_live { "\n" } else { "" });
        println!("{orders} orders in {seconds:.1} s");
        for outcome in [Outcome::Complete, Outcome::Declined, Outcome::OutOfStock, Outcome::Invalid, Outcome::Failed] {
            let count = self.count(outcome);
            if count > 0 {
                println!("  {outcome:<13} {count:>5}");
            }
        }
        println!("  {:<13} {:>5}   {} retries in all", "retried", self.retried, self.retries);
        println!("paid");
        for (currency, total) in &self.totals {
            println!("  {currency} {total:>15}");
        }
        if self.unexpected.is_empty() {
            println!("every order ended as its file says");
            return ExitCode::SUCCESS;
        }
        println!("{} orders did not end as their file says:", self.unexpected.len());
        for line in &self.unexpected {
            println!("  {line}");
        }
        ExitCode::FAILURE
    }
}

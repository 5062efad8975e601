//! A worker without handlers: the test says what becomes of each step.

use std::time::Duration;

use sqlx::PgConnection;
use tasker_engine::{Beat, Caller, Change, Claimed, Engine, NewWorker, Settlement, pgmq};
use tasker_model::{Payload, StepFailure};

pub(crate) struct Worker {
    engine: Engine,
    conn: PgConnection,
    caller: Caller,
}

impl Worker {
    /// Announces the handlers of `shop.orders`.
    pub(crate) async fn start(engine: &Engine) -> Self {
        let lease = Duration::from_secs(30);
        let worker_id = engine
            .start_worker(&NewWorker {
                name: "till-1".to_owned(),
                kind: "rust".to_owned(),
                host: "here".to_owned(),
                pid: 1,
                version: "0.1.0".to_owned(),
                concurrency: 4,
                lease,
            })
            .await
            .unwrap();
        let names: Vec<_> = ["validate", "charge", "reserve", "confirm"]
            .map(|name| ("shop".to_owned(), format!("orders.{name}")))
            .into();
        let announced = engine.announce(worker_id, "rust", &names).await.unwrap();
        let handlers: Vec<i32> = announced.iter().map(|a| a.handler_id).collect();
        let queues = engine.serve_queues(worker_id, "rust", &handlers, &[]).await.unwrap();
        Self {
            engine: engine.clone(),
            conn: engine.open().await.unwrap(),
            caller: Caller {
                worker_id,
                queues,
                handlers,
                exclude: Vec::new(),
                want: 10,
                handoff: 0,
                turn: 0,
                lease,
                relaxed: false,
            },
        }
    }

    pub(crate) async fn claim(&mut self) -> Vec<Claimed> {
        let reply = pgmq::receive(&self.engine, &mut self.conn, &self.caller).await.unwrap();
        reply.leased
    }

    /// Sends a heartbeat for these steps.
    pub(crate) async fn beat(&mut self, steps: &[Claimed]) {
        let beats: Vec<_> =
            steps.iter().map(|step| Beat { lease: step.lease, running: Duration::from_secs(3) }).collect();
        pgmq::extend(&self.engine, &mut self.conn, self.caller.worker_id, None, &beats, self.caller.lease)
            .await
            .unwrap();
    }

    pub(crate) async fn settle(&mut self, step: &Claimed, change: Change) {
        let settlement = Settlement { lease: step.lease, change, duration: Some(Duration::from_millis(120)) };
        let caller = Caller { want: 0, ..self.caller.clone() };
        pgmq::settle(&self.engine, &mut self.conn, &caller, &[settlement]).await.unwrap();
    }

    pub(crate) async fn succeed(&mut self, step: &Claimed, value: &str) {
        let value = Payload::parse(value).unwrap();
        self.settle(step, Change::Success { value, metadata: None }).await;
    }

    /// Runs everything to its end; each step's result names its number.
    pub(crate) async fn drain(&mut self) {
        loop {
            let steps = self.claim().await;
            if steps.is_empty() {
                return;
            }
            for step in steps {
                let value = format!("{{\"step\":{},\"exact\":1.10}}", step.lease.idx);
                self.succeed(&step, &value).await;
            }
        }
    }
}

/// A failure with a code.
pub(crate) fn declined() -> StepFailure {
    StepFailure::permanent("the card was declined").code("CARD_DECLINED")
}

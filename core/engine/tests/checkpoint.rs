//! A checkpoint beside rows of the application: there once, whoever runs the step.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
mod support;

use std::time::Duration;

use sqlx::Connection as _;
use support::*;
use tasker_engine::{Lease, pgmq};
use tasker_model::Payload;

const LEASE: Duration = Duration::from_secs(30);

/// A worker that has leased the only step of a task for so long.
async fn held_for(db: &Db, lease: Duration) -> (Hand, Lease) {
    let (_, revision) = db.register("{name: one, steps: {a: {call: h}}}").await;
    let mut hand = db.hand(&["h"]).await;
    hand.caller.lease = lease;
    db.submit(revision, "{}").await;
    let lease = hand.claim_one().await.lease;
    (hand, lease)
}

/// A claim that has the message and is not committed yet has read the checkpoint already: the old holder must not save another.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_checkpoint_waits_for_a_claim_and_then_knows_that_the_lease_is_lost() {
    let db = db().await;
    let (mut slow, lease) = held_for(&db, Duration::from_millis(1)).await;
    let mut next = db.hand(&["h"]).await;
    tokio::time::sleep(Duration::from_millis(20)).await;
    let caller = tasker_engine::Caller { want: 1, ..next.caller.clone() };
    let mut claiming = next.conn.begin().await.unwrap();
    assert_eq!(pgmq::receive(&db.engine, &mut claiming, &caller).await.unwrap().leased.len(), 1);
    let engine = db.engine.clone();
    let saving = tokio::spawn(async move {
        let saved = Payload::parse(r#"{"cursor": 1}"#).unwrap();
        engine.save_checkpoint(&mut slow.conn, &lease, &saved, None, LEASE).await.unwrap()
    });
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert!(!saving.is_finished(), "it must not be saved behind the back of a claim that has read the last one");
    claiming.commit().await.unwrap();
    assert!(!saving.await.unwrap(), "the lease is lost");
    assert_eq!(db.count("select count(*) from tasker.step where checkpoint is not null").await, 0);
}

/// The other way round: until the application commits nobody can claim the step; then the next holder finds the checkpoint.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_step_cannot_be_claimed_between_a_checkpoint_and_its_commit() {
    let db = db().await;
    let (mut slow, lease) = held_for(&db, Duration::from_millis(1)).await;
    let mut next = db.hand(&["h"]).await;
    tokio::time::sleep(Duration::from_millis(20)).await;
    let saved = Payload::parse(r#"{"cursor": 1}"#).unwrap();
    let mut tx = slow.conn.begin().await.unwrap();
    assert!(db.engine.save_checkpoint(&mut tx, &lease, &saved, None, Duration::from_millis(1)).await.unwrap());
    tokio::time::sleep(Duration::from_millis(20)).await;
    assert!(next.claim(1).await.leased.is_empty(), "its lease is over, and still it is the old holder's");
    tx.commit().await.unwrap();
    assert_eq!(next.claim_one().await.checkpoint.unwrap().get(), r#"{"cursor": 1}"#);
}

/// A client that stands still in its transaction holds the step's locks: the server ends it.
#[tokio::test]
async fn a_transaction_that_stands_still_after_a_checkpoint_is_ended() {
    let db = db().await;
    let (mut hand, lease) = held_for(&db, LEASE).await;
    let saved = Payload::parse(r#"{"cursor": 1}"#).unwrap();
    let mut tx = hand.conn.begin().await.unwrap();
    assert!(db.engine.save_checkpoint(&mut tx, &lease, &saved, None, LEASE).await.unwrap());
    let limit: String =
        sqlx::query_scalar("show idle_in_transaction_session_timeout").fetch_one(&mut *tx).await.unwrap();
    assert_eq!(limit, "5s");
}

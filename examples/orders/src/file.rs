//! The file of orders: what is on the shelves, what was ordered, and how each order should end.

use std::path::Path;

use anyhow::Context as _;
use rust_decimal::Decimal;
use serde::Deserialize;

use crate::services::{Order, Shop};
use crate::{Ending, Outcome};

/// A day of a shop.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OrderFile {
    /// What is on the shelves in the morning.
    pub stock: Vec<Article>,
    /// What is ordered.
    pub orders: Vec<Entry>,
}

/// An article on the shelf.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Article {
    /// Its number.
    pub sku: String,
    /// Its name.
    pub name: String,
    /// How many there are.
    pub on_hand: i32,
}

/// An order with how it should end.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    /// The order.
    pub order: Order,
    /// How it should end.
    pub expect: Expectation,
}

/// How an order should end: worked out when the file was made, by other code than the shop's.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Expectation {
    /// In which way.
    pub outcome: Outcome,
    /// What the order costs, where it can be taken at all.
    pub total: Option<Decimal>,
    /// How often the card is tried, where the order completes.
    pub charge_attempts: Option<i32>,
}

impl OrderFile {
    /// Reads a file.
    pub fn read(path: &Path) -> anyhow::Result<Self> {
        let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
        serde_json::from_str(&text).with_context(|| format!("{} is no file of orders", path.display()))
    }

    /// Fills the shelves; what is there stays as it is.
    pub async fn stock_up(&self, shop: &Shop) -> Result<(), sqlx::Error> {
        for Article { sku, name, on_hand } in &self.stock {
            shop.stock_up(sku, name, *on_hand).await?;
        }
        Ok(())
    }
}

impl Expectation {
    /// Says in what an ending differs from this; nothing where it is as it should be.
    pub fn differs(&self, ending: &Ending) -> Option<String> {
        let Ending { outcome, total, charge_attempts, .. } = ending;
        if *outcome != self.outcome {
            return Some(format!("it should be {}", self.outcome));
        }
        if *outcome != Outcome::Complete {
            return None;
        }
        if *total != self.total {
            return Some(format!("it should cost {}", self.total.unwrap_or_default()));
        }
        let attempts = self.charge_attempts.unwrap_or(1);
        (*charge_attempts != attempts)
            .then(|| format!("the card should be tried {attempts} times, not {charge_attempts}"))
    }
}

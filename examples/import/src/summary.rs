//! What a number of rows come to.

use std::collections::BTreeMap;
use std::fmt;

use chrono::NaiveDate;
use serde::{Deserialize, Serialize};

use crate::{Rejected, Row};

/// The sales of some rows by day, and how many of the rows were none.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Summary {
    /// The sales of each day.
    pub days: BTreeMap<NaiveDate, Day>,
    /// How many rows were no sales.
    pub rejected: u64,
}

/// The sales of a day.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Day {
    /// How many.
    pub rows: u64,
    /// For how much in all.
    pub amount_cents: i64,
}

impl Summary {
    /// Counts more rows.
    pub fn add(&mut self, rows: &[Result<Row, Rejected>]) {
        for row in rows {
            match row {
                Ok(row) => self.add_day(row.day, Day { rows: 1, amount_cents: row.amount_cents }),
                Err(_) => self.rejected += 1,
            }
        }
    }

    /// Puts several together.
    pub fn of(parts: &[Self]) -> Self {
        let mut whole = Self::default();
        for part in parts {
            part.days.iter().for_each(|(day, sales)| whole.add_day(*day, *sales));
            whole.rejected += part.rejected;
        }
        whole
    }

    /// Returns the number of sales.
    pub fn rows(&self) -> u64 {
        self.days.values().map(|day| day.rows).sum()
    }

    /// Returns what they come to.
    pub fn amount_cents(&self) -> i64 {
        self.days.values().map(|day| day.amount_cents).sum()
    }

    fn add_day(&mut self, day: NaiveDate, sales: Day) {
        let sum = self.days.entry(day).or_default();
        sum.rows += sales.rows;
        sum.amount_cents += sales.amount_cents;
    }
}

/// A line for each day, then one for all and one for what was rejected: for people, and for `diff`.
impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (day, sales) in &self.days {
            writeln!(f, "{day} {} {}", sales.rows, sales.amount_cents)?;
        }
        writeln!(f, "total {} {}", self.rows(), self.amount_cents())?;
        write!(f, "rejected {}", self.rejected)
    }
}

//! Reads a file of sales: `customer,amount,day`, with a line of headings.

use std::ops::Range;
use std::path::{Path, PathBuf};

use chrono::NaiveDate;
use csv::{ByteRecord, Reader, ReaderBuilder, Trim};
use rust_decimal::Decimal;
use rust_decimal::prelude::ToPrimitive as _;
use thiserror::Error;

/// A sale.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// Who bought.
    pub customer: String,
    /// For how much, in cents.
    pub amount_cents: i64,
    /// When.
    pub day: NaiveDate,
}

/// A row of the file that is no sale.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rejected {
    /// Its line, counted from 1.
    pub line: u64,
    /// What is wrong with it.
    pub reason: String,
}

/// Why a file cannot be read.
#[derive(Debug, Error)]
pub enum ReadError {
    /// It is not there, or not readable.
    #[error("cannot read {path}")]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: csv::Error,
    },
    /// The program is about to end.
    #[error("the reading was interrupted")]
    Interrupted(#[from] tokio::task::JoinError),
}

/// Counts the rows of a file, good and bad ones.
pub async fn count_rows(path: &Path) -> Result<u64, ReadError> {
    read(path, |mut reader| {
        let (mut record, mut rows) = (ByteRecord::new(), 0);
        while reader.read_byte_record(&mut record)? {
            rows += 1;
        }
        Ok(rows)
    })
    .await
}

/// Reads the rows of a range, counted from 0.
pub async fn read_rows(path: &Path, range: Range<u64>) -> Result<Vec<Result<Row, Rejected>>, ReadError> {
    read(path, move |mut reader| {
        let (mut record, mut rows) = (ByteRecord::new(), Vec::new());
        let mut at = 0;
        while at < range.end && reader.read_byte_record(&mut record)? {
            if at >= range.start {
                rows.push(parse(&record));
            }
            at += 1;
        }
        Ok(rows)
    })
    .await
}

async fn read<T: Send + 'static>(
    path: &Path,
    read: impl FnOnce(Reader<std::fs::File>) -> Result<T, csv::Error> + Send + 'static,
) -> Result<T, ReadError> {
    let path = path.to_owned();
    tokio::task::spawn_blocking(move || {
        // A row with too few fields is a row to reject, not the end of the file.
        let reader = ReaderBuilder::new().flexible(true).trim(Trim::All).from_path(&path);
        reader.and_then(read).map_err(|source| ReadError::File { path, source })
    })
    .await?
}

fn parse(record: &ByteRecord) -> Result<Row, Rejected> {
    let reject = |reason: String| Rejected { line: record.position().map_or(0, csv::Position::line), reason };
    let fields: Result<Vec<&str>, _> = record.iter().map(std::str::from_utf8).collect();
    let fields = fields.map_err(|_| reject("it is no UTF-8".to_owned()))?;
    let [customer, amount, day] = fields[..] else {
        return Err(reject(format!("it has {} fields instead of 3", fields.len())));
    };
    if customer.is_empty() {
        return Err(reject("it has no customer".to_owned()));
    }
    // PostgreSQL's text holds every character but this one.
    if customer.contains('\0') {
        return Err(reject("its customer has a NUL character".to_owned()));
    }
    let amount_cents = cents(amount).ok_or_else(|| reject(format!("`{amount}` is no amount")))?;
    let day = day.parse().map_err(|_| reject(format!("`{day}` is no day")))?;
    Ok(Row { customer: customer.to_owned(), amount_cents, day })
}

/// `12.30` is 1230; a fraction of a cent is no amount.
fn cents(amount: &str) -> Option<i64> {
    let cents = amount.parse::<Decimal>().ok()?.checked_mul(Decimal::ONE_HUNDRED)?;
    if cents.fract().is_zero() { cents.to_i64() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_amount_is_whole_cents() {
        for (text, expected) in [("12.30", 1230), ("12.3", 1230), ("7", 700), ("0.01", 1), ("-5.00", -500)] {
            assert_eq!(cents(text), Some(expected), "{text}");
        }
        for text in ["", "n/a", "1.005", "12,30", "1e400", "99999999999999999999"] {
            assert_eq!(cents(text), None, "{text}");
        }
    }
}

//! The payment provider, simulated: what it answers follows from the token, as with the test cards of real ones.
//!
//! | token | answer |
//! |---|---|
//! | `tok_declined_<reason>_...` | declined |
//! | `tok_unavailable_<n>_...` | the first n calls fail with 503, and nothing is charged |
//! | `tok_lost_answer_<n>_...` | the first n calls time out although the card is charged |
//! | any other | charged |

use std::time::Duration;

use rust_decimal::Decimal;
use sqlx::PgPool;
use thiserror::Error;

use super::Currency;

/// How long the provider thinks.
const LATENCY: Duration = Duration::from_millis(15);

/// A connection to the provider.
#[derive(Debug, Clone)]
pub struct Gateway {
    pool: PgPool,
}

/// The provider did not do its work, or did not say so. The same call with the same key may be made again.
#[derive(Debug, Error)]
pub enum GatewayError {
    /// It is overloaded.
    #[error("the payment provider answers 503 Service Unavailable")]
    Unavailable,
    /// It may have charged the card, or not.
    #[error("the payment provider has not answered in time")]
    TimedOut,
    /// Its own database fails.
    #[error("the payment provider's database fails")]
    Database(#[from] sqlx::Error),
}

/// The bank refuses the card, and will refuse it again.
#[derive(Debug, Error, PartialEq)]
#[error("the card was declined: {reason}")]
pub struct Declined {
    /// The bank's words.
    pub reason: String,
}

/// What a token makes the provider do.
#[derive(Debug, PartialEq)]
enum Behaviour<'t> {
    Charge,
    Decline(&'t str),
    Unavailable { calls: i32 },
    LoseAnswer { calls: i32 },
}

impl<'t> Behaviour<'t> {
    fn of(token: &'t str) -> Self {
        let words = token.strip_prefix("tok_").and_then(|rest| rest.rsplit_once('_')).map_or("", |(words, _)| words);
        let calls = |words: &str| words.parse().unwrap_or(1);
        if let Some(reason) = words.strip_prefix("declined_") {
            Self::Decline(reason)
        } else if let Some(n) = words.strip_prefix("unavailable_") {
            Self::Unavailable { calls: calls(n) }
        } else if let Some(n) = words.strip_prefix("lost_answer_") {
            Self::LoseAnswer { calls: calls(n) }
        } else {
            Self::Charge
        }
    }
}

impl Gateway {
    /// Connects to the provider, which keeps its records in this database.
    pub fn new(pool: PgPool) -> Self {
        Self { pool }
    }

    /// Holds an amount on a card and returns the charge's number. Idempotent: the same key gives the same charge.
    ///
    /// Tells two kinds of failure apart: the call may be made again after the outer one, and is in vain after the inner.
    pub async fn charge(
        &self,
        key: &str,
        token: &str,
        amount: Decimal,
        currency: Currency,
    ) -> Result<Result<i64, Declined>, GatewayError> {
        tokio::time::sleep(LATENCY).await;
        let calls = self.count_call(key).await?;
        match Behaviour::of(token) {
            Behaviour::Decline(reason) => {
                return Ok(Err(Declined { reason: reason.replace('_', " ") }));
            }
            Behaviour::Unavailable { calls: failing } if calls <= failing => {
                return Err(GatewayError::Unavailable);
            }
            Behaviour::LoseAnswer { calls: failing } if calls <= failing => {
                self.record(key, token, amount, currency).await?;
                return Err(GatewayError::TimedOut);
            }
            _ => {}
        }
        self.record(key, token, amount, currency).await.map(Ok)
    }

    async fn count_call(&self, key: &str) -> Result<i32, sqlx::Error> {
        sqlx::query_scalar(
            "insert into provider_call (key, calls) values ($1, 1)
             on conflict (key) do update set calls = provider_call.calls + 1
             returning calls",
        )
        .bind(key)
        .fetch_one(&self.pool)
        .await
    }

    async fn record(&self, key: &str, token: &str, amount: Decimal, currency: Currency) -> Result<i64, GatewayError> {
        sqlx::query(
            "insert into provider_charge (key, token, amount, currency) values ($1, $2, $3, $4)
             on conflict (key) do nothing",
        )
        .bind(key)
        .bind(token)
        .bind(amount)
        .bind(currency.code())
        .execute(&self.pool)
        .await?;
        let find = sqlx::query_scalar("select charge_id from provider_charge where key = $1");
        Ok(find.bind(key).fetch_one(&self.pool).await?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_says_what_the_provider_does() {
        assert_eq!(Behaviour::of("tok_declined_expired_card_0af"), Behaviour::Decline("expired_card"));
        assert_eq!(Behaviour::of("tok_unavailable_2_0af"), Behaviour::Unavailable { calls: 2 });
        assert_eq!(Behaviour::of("tok_lost_answer_1_0af"), Behaviour::LoseAnswer { calls: 1 });
        for token in ["tok_visa_0af", "tok_declined", "", "ключ"] {
            assert_eq!(Behaviour::of(token), Behaviour::Charge);
        }
    }
}

//! What the shop speaks of. Money is decimal, in JSON a text: `"19.90"`.

use std::collections::BTreeMap;
use std::fmt;

use rust_decimal::Decimal;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use sqlx::PgPool;

use super::Gateway;

/// What the services need.
#[derive(Debug, Clone)]
pub struct Shop {
    /// The shop's database.
    pub pool: PgPool,
    /// The payment provider.
    pub gateway: Gateway,
}

impl Shop {
    /// Makes a shop over its database.
    pub fn new(pool: PgPool) -> Self {
        let gateway = Gateway::new(pool.clone());
        Self { pool, gateway }
    }

    /// Makes the shop's tables, or brings them up to date.
    pub async fn migrate(&self) -> Result<(), sqlx::migrate::MigrateError> {
        sqlx::migrate!().run(&self.pool).await
    }
}

/// What a customer ordered.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Order {
    /// The shop's number for it.
    #[schemars(length(min = 1, max = 40))]
    pub order_id: String,
    /// Who ordered.
    pub customer: Customer,
    /// What all prices are in.
    pub currency: Currency,
    /// What was ordered.
    #[schemars(length(min = 1, max = 100))]
    pub lines: Vec<Line>,
    /// As typed; an empty one is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub discount_code: Option<String>,
    /// Stands for the card at the payment provider.
    pub payment_token: String,
}

/// Who ordered.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Customer {
    /// Full name.
    pub name: String,
    /// Where the confirmation goes.
    pub email: String,
    /// ISO 3166 code.
    #[schemars(length(equal = 2))]
    pub country: String,
}

/// One line of an order.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Line {
    /// The article.
    pub sku: String,
    /// Its name, as the customer saw it.
    pub name: String,
    /// How many.
    #[schemars(range(min = 1))]
    pub quantity: u32,
    /// The price of one.
    #[schemars(with = "String", regex(pattern = r"^[0-9]+(\.[0-9]+)?$"))]
    pub unit_price: Decimal,
}

/// The currencies that the shop sells in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "UPPERCASE")]
pub enum Currency {
    /// Swiss franc.
    Chf,
    /// Euro.
    Eur,
    /// Pound sterling.
    Gbp,
    /// Yen, which has no smaller unit.
    Jpy,
    /// US dollar.
    Usd,
}

impl Currency {
    /// Says how many decimal places its amounts have.
    pub fn decimal_places(self) -> u32 {
        if self == Self::Jpy { 0 } else { 2 }
    }

    /// Returns its ISO 4217 code.
    pub fn code(self) -> &'static str {
        match self {
            Self::Chf => "CHF",
            Self::Eur => "EUR",
            Self::Gbp => "GBP",
            Self::Jpy => "JPY",
            Self::Usd => "USD",
        }
    }
}

impl fmt::Display for Currency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.code())
    }
}

/// An order that can be paid and packed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Cart {
    /// The order.
    pub order_id: String,
    /// Whose it is.
    pub customer: Customer,
    /// What the amounts are in.
    pub currency: Currency,
    /// Before the discount.
    pub subtotal: Decimal,
    /// What the code takes off.
    pub discount: Decimal,
    /// What is to be paid.
    pub total: Decimal,
    /// How many of each article.
    pub items: BTreeMap<String, i32>,
    /// The card.
    pub payment_token: String,
}

/// Money that is held on the customer's card.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Payment {
    /// The provider's number for the charge.
    pub charge_id: i64,
    /// How much.
    pub amount: Decimal,
    /// Of what.
    pub currency: Currency,
}

/// Goods that are set aside.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Goods {
    /// For which order.
    pub order_id: String,
    /// How many pieces in all.
    pub pieces: i64,
}

/// The end of an order that went well.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Confirmation {
    /// The order.
    pub order_id: String,
    /// What was paid.
    pub total: Decimal,
    /// In what.
    pub currency: Currency,
}

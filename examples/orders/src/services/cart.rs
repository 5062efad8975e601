//! Checks an order and works out what it costs.

use std::collections::BTreeMap;

use rust_decimal::{Decimal, RoundingStrategy};
use thiserror::Error;

use super::{Cart, Order};

/// Code, per cent off, pieces that the order must have.
const DISCOUNTS: [(&str, u32, u32); 4] =
    [("WELCOME10", 10, 0), ("SUMMER15", 15, 0), ("VIP20", 20, 0), ("BULK5", 5, 100)];
/// More than this of one article is a slip of the keyboard.
const MOST_PIECES: u32 = 10_000;

/// Why an order cannot be taken.
#[derive(Debug, Error, PartialEq)]
pub enum CartError {
    /// Nothing was ordered.
    #[error("order {0} has no lines")]
    Empty(String),
    /// Too few or too many of an article.
    #[error("{quantity} of {sku} cannot be ordered: 1 to {MOST_PIECES} can")]
    Quantity {
        /// The article.
        sku: String,
        /// What was asked for.
        quantity: u32,
    },
    /// A price below zero, or finer than the currency's smallest unit.
    #[error("{price} is no price of {sku}")]
    Price {
        /// The article.
        sku: String,
        /// What was said to be its price.
        price: Decimal,
    },
    /// A code that there is not, or not any more.
    #[error("there is no discount `{0}`")]
    UnknownDiscount(String),
    /// A code for larger orders.
    #[error("discount `{code}` needs {needed} pieces; the order has {pieces}")]
    TooFewPieces {
        /// The code.
        code: &'static str,
        /// From how many pieces on it counts.
        needed: u32,
        /// How many there are.
        pieces: u32,
    },
}

/// Checks an order and adds it up.
pub fn validate(order: &Order) -> Result<Cart, CartError> {
    if order.lines.is_empty() {
        return Err(CartError::Empty(order.order_id.clone()));
    }
    let mut items: BTreeMap<String, i32> = BTreeMap::new();
    let (mut subtotal, mut pieces) = (Decimal::ZERO, 0);
    for line in &order.lines {
        let sku = line.sku.clone();
        if line.quantity == 0 || line.quantity > MOST_PIECES {
            return Err(CartError::Quantity { sku, quantity: line.quantity });
        }
        let price = line.unit_price;
        if price < Decimal::ZERO || price.normalize().scale() > order.currency.decimal_places() {
            return Err(CartError::Price { sku, price });
        }
        subtotal += price * Decimal::from(line.quantity);
        pieces += line.quantity;
        *items.entry(sku).or_default() += line.quantity.cast_signed();
    }
    let percent = discount(order.discount_code.as_deref().unwrap_or_default(), pieces)?;
    let discount = (subtotal * Decimal::new(percent.into(), 2))
        .round_dp_with_strategy(order.currency.decimal_places(), RoundingStrategy::MidpointAwayFromZero);
    Ok(Cart {
        order_id: order.order_id.clone(),
        customer: order.customer.clone(),
        currency: order.currency,
        subtotal,
        discount,
        total: subtotal - discount,
        items,
        payment_token: order.payment_token.clone(),
    })
}

fn discount(code: &str, pieces: u32) -> Result<u32, CartError> {
    if code.is_empty() {
        return Ok(0);
    }
    match DISCOUNTS.into_iter().find(|(known, ..)| *known == code) {
        None => Err(CartError::UnknownDiscount(code.to_owned())),
        Some((code, _, needed)) if pieces < needed => Err(CartError::TooFewPieces { code, needed, pieces }),
        Some((_, percent, _)) => Ok(percent),
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Currency, Customer, Line};
    use super::*;

    fn order(currency: Currency, lines: &[(&str, u32, &str)], code: Option<&str>) -> Order {
        let customer =
            Customer { name: "Zoë".to_owned(), email: "zoe@example.org".to_owned(), country: "NL".to_owned() };
        let line = |&(sku, quantity, price): &(&str, u32, &str)| Line {
            sku: sku.to_owned(),
            name: sku.to_owned(),
            quantity,
            unit_price: price.parse().unwrap(),
        };
        Order {
            order_id: "A-1".to_owned(),
            customer,
            currency,
            lines: lines.iter().map(line).collect(),
            discount_code: code.map(str::to_owned),
            payment_token: "tok_visa_1".to_owned(),
        }
    }

    fn total(currency: Currency, lines: &[(&str, u32, &str)], code: Option<&str>) -> Result<String, CartError> {
        validate(&order(currency, lines, code)).map(|cart| cart.total.to_string())
    }

    #[test]
    fn an_order_is_added_up_to_the_smallest_unit() {
        let lines = [("TEA", 3, "16.85"), ("POT", 1, "69.90")];
        assert_eq!(total(Currency::Eur, &lines, None).unwrap(), "120.45");
        assert_eq!(total(Currency::Eur, &lines, Some("")).unwrap(), "120.45");
        // 15 % are 18.0675 and become 18.07.
        assert_eq!(total(Currency::Eur, &lines, Some("SUMMER15")).unwrap(), "102.38");
        // 10 % of 1,265 yen are 126.5 and become 127.
        assert_eq!(total(Currency::Jpy, &[("TEA", 1, "1265")], Some("WELCOME10")).unwrap(), "1138");
        assert_eq!(total(Currency::Usd, &[("CARD", 100, "0.99")], Some("BULK5")).unwrap(), "94.05");
    }

    #[test]
    fn the_same_article_on_two_lines_is_one_item() {
        let cart = validate(&order(Currency::Eur, &[("TEA", 3, "16.85"), ("TEA", 4, "16.85")], None)).unwrap();
        assert_eq!(cart.items["TEA"], 7);
    }

    #[test]
    fn what_cannot_be_ordered_is_refused_with_the_reason() {
        let refused = |lines: &[_], code| total(Currency::Jpy, lines, code).unwrap_err();
        assert_eq!(refused(&[], None), CartError::Empty("A-1".to_owned()));
        assert_eq!(refused(&[("TEA", 0, "1")], None), CartError::Quantity { sku: "TEA".to_owned(), quantity: 0 });
        assert!(matches!(refused(&[("TEA", 10_001, "1")], None), CartError::Quantity { .. }));
        assert!(matches!(refused(&[("TEA", 1, "-1")], None), CartError::Price { .. }));
        assert!(matches!(refused(&[("TEA", 1, "0.5")], None), CartError::Price { .. }));
        assert_eq!(refused(&[("TEA", 1, "1")], Some("VIP")), CartError::UnknownDiscount("VIP".to_owned()));
        let too_few = CartError::TooFewPieces { code: "BULK5", needed: 100, pieces: 99 };
        assert_eq!(refused(&[("TEA", 99, "1")], Some("BULK5")), too_few);
    }
}

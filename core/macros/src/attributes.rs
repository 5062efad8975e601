//! The options of `#[tasker::step(..)]`.

use proc_macro2::{Ident, Span, TokenStream};
use syn::parse::Parser;
use syn::{LitInt, LitStr, Result};

/// What the attribute says.
#[derive(Default)]
pub(crate) struct Options {
    pub(crate) name: Option<LitStr>,
    pub(crate) definition: Option<Ident>,
    pub(crate) retry: Option<LitInt>,
    pub(crate) timeout_ms: Option<u64>,
    pub(crate) queue: Option<LitStr>,
}

impl Options {
    pub(crate) fn parse(tokens: TokenStream) -> Result<Self> {
        let mut options = Self::default();
        syn::meta::parser(|meta| {
            if meta.path.is_ident("name") {
                options.name = Some(name(meta.value()?.parse()?)?);
            } else if meta.path.is_ident("queue") {
                options.queue = Some(name(meta.value()?.parse()?)?);
            } else if meta.path.is_ident("definition") {
                let text: LitStr = meta.value()?.parse()?;
                options.definition = Some(text.parse()?);
            } else if meta.path.is_ident("retry") {
                let attempts: LitInt = meta.value()?.parse()?;
                if attempts.base10_parse::<u32>()? == 0 {
                    return Err(syn::Error::new(
                        attempts.span(),
                        "`retry` counts all attempts, the first included: at least 1",
                    ));
                }
                options.retry = Some(attempts);
            } else if meta.path.is_ident("timeout") {
                let text: LitStr = meta.value()?.parse()?;
                options.timeout_ms = Some(duration_ms(&text)?);
            } else {
                return Err(
                    meta.error("unknown option; there are `name`, `retry`, `timeout`, `queue` and `definition`")
                );
            }
            Ok(())
        })
        .parse2(tokens)?;
        Ok(options)
    }
}

fn name(text: LitStr) -> Result<LitStr> {
    let value = text.value();
    let fits = value.starts_with(|c: char| c.is_ascii_lowercase())
        && value.len() <= 63
        && value.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_');
    if fits {
        return Ok(text);
    }
    Err(syn::Error::new(
        text.span(),
        "a name has at most 63 lower-case letters, digits and underscores, and starts with a letter",
    ))
}

/// Reads what a definition writes as a duration: whole numbers with `ms`, `s`, `m`, `h` or `d`, largest first.
fn duration_ms(text: &LitStr) -> Result<u64> {
    const UNITS: [(&str, u64); 5] = [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)];
    let wrong = || syn::Error::new(text.span(), "write a duration such as \"500ms\", \"30s\", \"5m\" or \"1h30m\"");
    let value = text.value();
    let (mut rest, mut total, mut units) = (value.as_str(), 0_u64, &UNITS[..]);
    while !rest.is_empty() {
        let digits = rest.len() - rest.trim_start_matches(|c: char| c.is_ascii_digit()).len();
        let (number, after) = rest.split_at(digits);
        let letters = after.len() - after.trim_start_matches(|c: char| c.is_ascii_alphabetic()).len();
        let (unit, after) = after.split_at(letters);
        let at = units.iter().position(|(known, _)| *known == unit).ok_or_else(wrong)?;
        let number: u64 = number.parse().map_err(|_| wrong())?;
        total = number.checked_mul(units[at].1).and_then(|ms| total.checked_add(ms)).ok_or_else(wrong)?;
        units = &units[at + 1..];
        rest = after;
    }
    if total == 0 { Err(wrong()) } else { Ok(total) }
}

/// Makes the type's name out of the function's: `charge_payment` becomes `ChargePayment`.
pub(crate) fn camel_case(name: &str, span: Span) -> Ident {
    let camel: String = name
        .trim_start_matches("r#")
        .split('_')
        .flat_map(|word| {
            let mut letters = word.chars();
            let first = letters.next().map(|first| first.to_ascii_uppercase());
            first.into_iter().chain(letters)
        })
        .collect();
    Ident::new(&camel, span)
}

#[cfg(test)]
mod tests {
    use super::*;
    use quote::quote;

    #[test]
    fn options_are_read_and_wrong_ones_are_told() {
        let options =
            Options::parse(quote!(name = "charge", retry = 5, timeout = "1m30s", queue = "slow", definition = "Pay"))
                .unwrap();
        assert_eq!(options.name.unwrap().value(), "charge");
        assert_eq!(options.timeout_ms, Some(90_000));
        assert_eq!(options.definition.unwrap(), "Pay");
        for (wrong, told) in [
            (quote!(retries = 5), "unknown option"),
            (quote!(retry = 0), "at least 1"),
            (quote!(timeout = "30"), "duration"),
            (quote!(timeout = "5s1m"), "duration"),
            (quote!(name = "Charge"), "lower-case"),
        ] {
            let error = Options::parse(wrong).err().unwrap().to_string();
            assert!(error.contains(told), "{error}");
        }
    }

    #[test]
    fn a_type_is_named_like_its_function() {
        assert_eq!(camel_case("charge_payment", Span::call_site()), "ChargePayment");
        assert_eq!(camel_case("step2_b", Span::call_site()), "Step2B");
    }
}

//! The attribute `#[tasker::step]`. Use it through the crate `tasker`, which documents it.

use proc_macro::TokenStream;

mod attributes;
mod expand;
mod parameter;

/// Makes a step of an `async fn`, which stays callable as it is.
///
/// From `async fn charge_payment(..) -> Result<Payment, StepError>` it makes the type `ChargePayment`, by which other
/// steps name this one (`Dep<ChargePayment>`), and lets `charge_payment` be given to `Workflow::step`, with
/// `charge_payment.retry(5)` and the other settings of `IntoStep`.
///
/// Each parameter is an extractor (`Input<T>`, `Dep<S>`, `State<T>`, `Ctx`) or any type that can be read from JSON. The
/// latter is bound by its name: to an earlier step, else to a field of the input, else by `with`.
///
/// Options, all of them optional: `#[tasker::step(name = "charge", retry = 5, timeout = "30s", queue = "slow",
/// definition = "Charge")]`; `definition` names the type.
#[proc_macro_attribute]
pub fn step(options: TokenStream, item: TokenStream) -> TokenStream {
    expand::step(options.into(), item.into()).unwrap_or_else(|error| error.to_compile_error()).into()
}

//! The type that stands for a step: its name, its result, and what a look at its function tells.

use std::marker::PhantomData;

/// A JSON Schema.
pub type Schema = serde_json::Value;

/// Stands for a step in other steps' signatures (`Dep<ChargePayment>`) and in `after`.
///
/// `#[tasker::step]` writes it. By hand it gives a closure's step a type:
///
/// ```
/// use tasker::prelude::*;
///
/// struct Total;
/// impl StepDef for Total {
///     const NAME: &'static str = "total";
///     type Output = u64;
/// }
/// let workflow = Workflow::new("sum")
///     .step_fn("total", async || 1_u64)
///     .step_fn("print", async |total: Dep<Total>| *total + 1);
/// assert!(workflow.revision().is_ok());
/// ```
pub trait StepDef: 'static {
    /// The step's name, and the handler's.
    const NAME: &'static str;
    /// What it gives.
    type Output;

    /// The parameters of its function, in order.
    #[doc(hidden)]
    fn parameters() -> Vec<Named> {
        Vec::new()
    }

    /// JSON Schema of its result, if the type has one.
    #[doc(hidden)]
    fn result_schema() -> Option<Schema> {
        None
    }

    /// Applies the attribute's options.
    #[doc(hidden)]
    fn configure(step: super::Step) -> super::Step {
        step
    }
}

/// A parameter as the source text names it.
#[derive(Debug, Clone)]
pub struct Named {
    /// Its name; empty for a pattern without one.
    pub name: &'static str,
    /// JSON Schema of its type, if that has one.
    pub schema: Option<Schema>,
}

/// Answers a type's JSON Schema if it has one: the method on the value is found before the one on its reference.
#[doc(hidden)]
#[derive(Debug)]
pub struct SchemaOf<T: ?Sized>(pub PhantomData<T>);

/// For types that implement `JsonSchema`.
#[doc(hidden)]
pub trait HasSchema {
    /// The schema.
    fn schema(&self) -> Option<Schema>;
}

impl<T: schemars::JsonSchema> HasSchema for SchemaOf<T> {
    fn schema(&self) -> Option<Schema> {
        Some(schema::<T>())
    }
}

/// For all others.
#[doc(hidden)]
pub trait NoSchema {
    /// Nothing.
    fn schema(&self) -> Option<Schema>;
}

impl<T: ?Sized> NoSchema for &SchemaOf<T> {
    fn schema(&self) -> Option<Schema> {
        None
    }
}

/// Returns a type's JSON Schema without what only describes the document.
pub(crate) fn schema<T: schemars::JsonSchema>() -> Schema {
    let mut schema = schemars::SchemaGenerator::default().into_root_schema_for::<T>().to_value();
    if let Some(object) = schema.as_object_mut() {
        object.remove("$schema");
    }
    schema
}

/// The schema of a type, for those that have one. Used by what `#[tasker::step]` writes.
#[doc(hidden)]
#[macro_export]
macro_rules! __schema_of {
    ($ty:ty) => {{
        #[allow(unused_imports)]
        use $crate::step::{HasSchema as _, NoSchema as _};
        (&$crate::step::SchemaOf::<$ty>(::core::marker::PhantomData)).schema()
    }};
}

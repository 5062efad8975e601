//! Functions as steps: what they need is read off their parameters' types.

use std::any::TypeId;
use std::collections::BTreeMap;
use std::sync::Arc;

use futures::future::{BoxFuture, FutureExt};
use tasker_model::binding::arguments;
use tasker_model::{Outcome, Param, Payload};
use tasker_worker::StepContext;

use super::{Delivery, FromStep, IntoOutcome, Need, Schema, States};

/// An async function or closure of at most twelve parameters, each of which is [`FromStep`].
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be a step",
    label = "not an async function of extractors",
    note = "a step is an `async fn` or async closure of up to 12 owned parameters (`Input<T>`, `Dep<Step>`, `State<T>`, `Ctx`, or values that can be read from JSON), returning a `Send` future of a result"
)]
pub trait StepFunction<Mark>: Clone + Send + Sync + 'static {
    /// What a call returns.
    type Future;
    /// What the parameters ask for, in order.
    fn needs() -> Vec<Need>;
    /// Takes the arguments out of the delivery and calls the function.
    fn call(&self, delivery: &Delivery<'_>, names: &[String]) -> BoxFuture<'static, Outcome>;
}

macro_rules! functions {
    ($($parameter:ident)*) => {
        impl<F, Fut, R, M, $($parameter,)*> StepFunction<(M, ($($parameter,)*))> for F
        where
            F: Fn($($parameter),*) -> Fut + Clone + Send + Sync + 'static,
            Fut: Future<Output = R> + Send + 'static,
            R: IntoOutcome<M>,
            $($parameter: FromStep,)*
        {
            type Future = Fut;

            fn needs() -> Vec<Need> {
                vec![$($parameter::need()),*]
            }

            #[allow(non_snake_case, unused_mut, unused_variables, reason = "written for every number of parameters")]
            fn call(&self, delivery: &Delivery<'_>, names: &[String]) -> BoxFuture<'static, Outcome> {
                let mut names = names.iter().map(String::as_str);
                $(
                    let $parameter = match $parameter::from_step(&delivery.at(names.next().unwrap_or_default())) {
                        Ok(argument) => argument,
                        Err(error) => return std::future::ready(error.into_outcome()).boxed(),
                    };
                )*
                let future = self($($parameter),*);
                async move { future.await.into_outcome() }.boxed()
            }
        }
    };
}

functions!();
functions!(A);
functions!(A B);
functions!(A B C);
functions!(A B C D);
functions!(A B C D E);
functions!(A B C D E G);
functions!(A B C D E G H);
functions!(A B C D E G H I);
functions!(A B C D E G H I J);
functions!(A B C D E G H I J K);
functions!(A B C D E G H I J K L);
functions!(A B C D E G H I J K L N);

/// A parameter with its name.
#[derive(Debug, Clone)]
pub(crate) struct Parameter {
    pub(crate) name: String,
    pub(crate) need: Need,
    pub(crate) schema: Option<Schema>,
}

type Callable = dyn Fn(&Delivery<'_>, &[String]) -> BoxFuture<'static, Outcome> + Send + Sync;

/// A step's function with its type forgotten.
#[derive(Clone)]
pub(crate) struct Body {
    call: Arc<Callable>,
    pub(crate) parameters: Vec<Parameter>,
    pub(crate) result: Option<Schema>,
    /// Which function it is: two steps may share one, but two functions no name.
    pub(crate) identity: TypeId,
}

impl Body {
    pub(crate) fn new<F: StepFunction<Mark>, Mark>(function: F) -> Self {
        let parameters = F::needs().into_iter().map(|need| Parameter {
            // A result is bound by its step's name where the parameter has no name of its own.
            name: if let Need::Result(step) = need { step.to_owned() } else { String::new() },
            need,
            schema: None,
        });
        Self {
            parameters: parameters.collect(),
            result: None,
            identity: TypeId::of::<F>(),
            call: Arc::new(move |delivery, names| function.call(delivery, names)),
        }
    }

    /// What values are bound to, as a signature writes it.
    pub(crate) fn params(&self) -> Vec<Param> {
        let param = |parameter: &Parameter| {
            let required = match parameter.need {
                Need::Value { optional } => !optional,
                Need::Result(_) => true,
                Need::State(..) | Need::Nothing => return None,
            };
            let name = parameter.name.clone();
            Some(Param { name, required, default: None, schema: parameter.schema.clone() })
        };
        self.parameters.iter().filter_map(param).collect()
    }

    /// Runs the function for one attempt.
    pub(crate) fn run(&self, context: &StepContext, states: &States) -> BoxFuture<'static, Outcome> {
        // A result that nothing is bound to is found by its step's name: see `Delivery::result`.
        let is_value = |param: &Param| {
            let parameter = self.parameters.iter().find(|parameter| parameter.name == param.name);
            parameter.is_some_and(|parameter| matches!(parameter.need, Need::Value { .. }))
        };
        let params: Vec<Param> = self.params().into_iter().filter(is_value).collect();
        let arguments: BTreeMap<String, Payload> = match arguments(context.step(), &params, context.input()) {
            Ok(arguments) => arguments,
            Err(error) => {
                return std::future::ready(crate::StepError::unbound(error).into_outcome()).boxed();
            }
        };
        let names: Vec<String> = self.parameters.iter().map(|parameter| parameter.name.clone()).collect();
        (self.call)(&Delivery::new(context, states, &arguments), &names)
    }
}

impl std::fmt::Debug for Body {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Body").field("parameters", &self.parameters).finish_non_exhaustive()
    }
}

//! Handlers and the register in which a worker finds them.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use futures::future::BoxFuture;
use tasker_model::id::{check_handler_name, check_name};
use tasker_model::{Error, ErrorKind, Outcome, Result};

use crate::{StepContext, Subscriber};

/// Runs one attempt at a step. A panic is a failed attempt.
pub trait Handler: Send + Sync + 'static {
    /// Runs the attempt. It may run on any thread, and many at once.
    fn call(&self, ctx: StepContext) -> BoxFuture<'static, Outcome>;
}

impl<F> Handler for F
where
    F: Fn(StepContext) -> BoxFuture<'static, Outcome> + Send + Sync + 'static,
{
    fn call(&self, ctx: StepContext) -> BoxFuture<'static, Outcome> {
        self(ctx)
    }
}

/// The handlers of a worker, by namespace and name.
#[derive(Clone, Default)]
pub struct Handlers {
    by_name: BTreeMap<(String, String), Arc<dyn Handler>>,
    /// By their names, each with the events that it wants.
    subscribers: BTreeMap<String, (String, Arc<dyn Subscriber>)>,
}

impl Handlers {
    /// Adds one. Fails with `conflict` where the name is taken, `invalid` where it is no name.
    pub fn insert(&mut self, namespace: &str, name: &str, handler: Arc<dyn Handler>) -> Result<()> {
        check_name("namespace", namespace)?;
        check_handler_name(name)?;
        let key = (namespace.to_owned(), name.to_owned());
        if self.by_name.contains_key(&key) {
            return Err(Error::new(
                ErrorKind::Conflict,
                format!("handler `{name}` is there twice in namespace {namespace}; name one of them differently"),
            ));
        }
        self.by_name.insert(key, handler);
        Ok(())
    }

    /// Adds a subscriber to the events that `event` names: `namespace.name`, a name in the namespace `default`, or `*`. `name` is that of
    /// its subscription, which is kept in the database. Fails with `conflict` where the name is taken, `invalid` where it is no name.
    pub fn subscribe(&mut self, event: &str, name: &str, subscriber: Arc<dyn Subscriber>) -> Result<()> {
        check_name("subscription", name)?;
        let event = tasker_engine::subscriptions::event_pattern(event)?;
        if self.subscribers.contains_key(name) {
            let message = format!("subscriber `{name}` is there twice; name one of them differently");
            return Err(Error::new(ErrorKind::Conflict, message));
        }
        self.subscribers.insert(name.to_owned(), (event, subscriber));
        Ok(())
    }

    /// Lists the subscribers: their names, the events that they want, what they do.
    pub(crate) fn subscribers(&self) -> &BTreeMap<String, (String, Arc<dyn Subscriber>)> {
        &self.subscribers
    }

    /// Finds one.
    pub fn get(&self, namespace: &str, name: &str) -> Option<&Arc<dyn Handler>> {
        self.by_name.get(&(namespace.to_owned(), name.to_owned()))
    }

    /// Lists them as (namespace, name).
    pub fn names(&self) -> Vec<(String, String)> {
        self.by_name.keys().cloned().collect()
    }
}

impl fmt::Debug for Handlers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.by_name.keys()).finish()
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;
    use tasker_model::Payload;

    use super::*;

    #[test]
    fn a_name_is_taken_once_in_its_namespace() {
        let handler: Arc<dyn Handler> = Arc::new(|_: StepContext| async { Outcome::success(Payload::null()) }.boxed());
        let mut handlers = Handlers::default();
        handlers.insert("shop", "charge", Arc::clone(&handler)).unwrap();
        handlers.insert("other", "charge", Arc::clone(&handler)).unwrap();
        let error = handlers.insert("shop", "charge", Arc::clone(&handler)).unwrap_err();
        assert_eq!(error.kind, ErrorKind::Conflict);
        assert!(handlers.insert("shop", "no spaces", handler).is_err());
        assert_eq!(handlers.names().len(), 2);
        assert!(handlers.get("shop", "charge").is_some());
    }
}

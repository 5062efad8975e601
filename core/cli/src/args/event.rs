//! The arguments of `tasker event` and `tasker subscription`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

#[derive(Debug, Subcommand)]
pub(crate) enum EventCommand {
    /// List the events that workflows published, newest first
    List(EventListArgs),
    /// Show a published event: what it says, and to whom it was delivered
    Show {
        /// The event: its id, a unique start of it, or `@last`
        event: String,
    },
    /// Deliver an event again, or everything that was given up
    Redeliver(RedeliverArgs),
}

#[derive(Debug, Args)]
pub(crate) struct EventListArgs {
    /// Only those of this name, `name` or `namespace.name`
    #[arg(long, value_name = "NAME")]
    pub(crate) event: Option<String>,
    /// Only those of this task: its id, a unique start of it, its key, or `@last`
    #[arg(long)]
    pub(crate) task: Option<String>,
    /// Only those with a delivery that was given up
    #[arg(long)]
    pub(crate) dead: bool,
    /// How many at most
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub(crate) limit: u32,
}

#[derive(Debug, Args)]
pub(crate) struct RedeliverArgs {
    /// The event: its id, a unique start of it, or `@last`
    #[arg(required_unless_present = "dead", conflicts_with = "dead")]
    pub(crate) event: Option<String>,
    /// Every delivery that was given up
    #[arg(long)]
    pub(crate) dead: bool,
    /// Only to this subscription; one that did not get the event before gets it now
    #[arg(long, value_name = "NAME")]
    pub(crate) subscription: Option<String>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum SubscriptionCommand {
    /// Send events to a webhook or a queue
    Add(SubscriptionArgs),
    /// List the subscriptions
    List,
    /// Remove a subscription, with all that is still to be delivered to it
    Remove(SubscriptionName),
    /// Let the events of a subscription wait
    Pause(SubscriptionName),
    /// Deliver what waits, and go on
    Resume(SubscriptionName),
}

#[derive(Debug, Args)]
pub(crate) struct SubscriptionArgs {
    /// Its name
    pub(crate) name: String,
    /// Which events: `name`, `namespace.name`, or `*` for all
    #[arg(long, value_name = "NAME")]
    pub(crate) event: String,
    /// POST them to this URL, signed
    #[arg(long, value_name = "URL", required_unless_present = "queue", conflicts_with = "queue")]
    pub(crate) webhook: Option<String>,
    /// Sign with the text in this file; else a secret is made, and shown once
    #[arg(long, value_name = "FILE", requires = "webhook")]
    pub(crate) secret_file: Option<PathBuf>,
    /// Put them into this PGMQ queue, with the commit that published them
    #[arg(long, value_name = "NAME")]
    pub(crate) queue: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct SubscriptionName {
    /// Its name
    pub(crate) name: String,
}

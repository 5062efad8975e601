//! `tasker event` and `tasker subscription`.

use serde_json::json;
use tasker_engine::Engine;
use tasker_engine::queries::{PublicationDetail, PublicationFilter, PublicationRow, SubscriptionRow};
use tasker_engine::subscriptions::{Target, event_pattern, new_secret};

use super::Context;
use crate::args::{EventCommand, EventListArgs, RedeliverArgs, SubscriptionArgs, SubscriptionCommand};
use crate::failure::{Outcome, file_error};
use crate::output::{count, or_dash, plain, precise_time, shorten, table, talk, time};

pub(super) async fn events(context: &Context, command: EventCommand) -> Outcome {
    match command {
        EventCommand::List(args) => list(context, args).await,
        EventCommand::Show { event } => {
            let engine = context.config.connect().await?;
            let id = engine.find_publication(&event).await?;
            let detail = engine.publication(id).await?;
            context.output.show(&detail, describe);
            Ok(())
        }
        EventCommand::Redeliver(args) => redeliver(context, args).await,
    }
}

async fn list(context: &Context, args: EventListArgs) -> Outcome {
    let engine = context.config.connect().await?;
    let task = match &args.task {
        Some(text) => Some(engine.find_task(text).await?),
        None => None,
    };
    let filter = PublicationFilter { event: args.event.clone(), task, dead: args.dead, limit: args.limit };
    let rows = engine.publications(&filter).await?;
    if rows.is_empty()
        && let Some(event) = &args.event
    {
        // What is misspelt is told; what has not happened yet is an empty list.
        engine.check_event(event).await?;
    }
    context.output.show(&rows, |rows| {
        table(
            &["event id", "event", "at", "task", "step", "delivered", "pending", "dead"],
            rows.iter().map(row).collect(),
            "no such event",
        )
    });
    Ok(())
}

fn row(event: &PublicationRow) -> Vec<String> {
    vec![
        event.publication_id.to_string(),
        event.event.clone(),
        time(event.at),
        event.task_id.to_string(),
        or_dash(event.step.as_deref()),
        event.delivered.to_string(),
        event.pending.to_string(),
        event.dead.to_string(),
    ]
}

fn describe(detail: &PublicationDetail) -> String {
    let deliveries = detail.deliveries.iter().map(|delivery| {
        vec![
            delivery.subscription.clone(),
            delivery.state.clone(),
            delivery.attempts.to_string(),
            or_dash(delivery.due_at.or(delivery.ended_at).map(time)),
            delivery.last_error.as_deref().map(|error| shorten(error, 80)).unwrap_or_default(),
        ]
    });
    format!(
        "{}   {}   task {}\n\n{}\n\n{}",
        detail.row.event,
        precise_time(detail.row.at),
        detail.row.task_id,
        plain(detail.payload.get()),
        table(
            &["subscription", "state", "attempts", "next or end", "error"],
            deliveries.collect(),
            "no subscription wanted it"
        )
    )
}

async fn redeliver(context: &Context, args: RedeliverArgs) -> Outcome {
    let engine = context.config.connect().await?;
    let id = match &args.event {
        Some(event) => Some(engine.find_publication(event).await?),
        None => None,
    };
    let made = engine.redeliver(id, args.subscription.as_deref()).await?;
    context.output.show(&json!({ "redelivered": made }), |_| {
        format!("{} again", count_of(usize::try_from(made).unwrap_or(usize::MAX)))
    });
    Ok(())
}

/// `1 delivery`, `4 deliveries`.
fn count_of(number: usize) -> String {
    if number == 1 { count(1, "delivery") } else { format!("{number} deliveries") }
}

pub(super) async fn subscriptions(context: &Context, command: SubscriptionCommand) -> Outcome {
    let engine = context.config.connect().await?;
    match command {
        SubscriptionCommand::Add(args) => add(context, &engine, args).await,
        SubscriptionCommand::List => {
            let rows = engine.subscriptions().await?;
            context.output.show(&rows, |rows| subscription_table(rows));
            Ok(())
        }
        SubscriptionCommand::Remove(args) => {
            let rows = engine.subscriptions().await?;
            let waiting = rows.iter().find(|row| row.name == args.name).map_or(0, |row| row.pending + row.dead);
            if waiting > 0 {
                let waiting = count_of(usize::try_from(waiting).unwrap_or(usize::MAX));
                context.confirm(&format!("Remove subscription `{}` and the {waiting} it has not got?", args.name))?;
            }
            engine.unsubscribe(&args.name).await?;
            context.output.show(&json!({ "subscription": args.name, "removed": true }), |_| {
                format!("subscription {} is removed", args.name)
            });
            Ok(())
        }
        SubscriptionCommand::Pause(args) => pause(context, &engine, &args.name, true).await,
        SubscriptionCommand::Resume(args) => pause(context, &engine, &args.name, false).await,
    }
}

fn subscription_table(rows: &[SubscriptionRow]) -> String {
    let rows = rows.iter().map(|row| {
        vec![
            row.name.clone(),
            row.event.clone(),
            row.kind.to_string(),
            or_dash(row.target.as_deref()),
            row.pending.to_string(),
            row.dead.to_string(),
            if row.paused { "paused" } else { "open" }.to_owned(),
        ]
    });
    table(
        &["subscription", "event", "kind", "target", "pending", "dead", "state"],
        rows.collect(),
        "no subscription; add one with: tasker subscription add NAME --event EVENT --webhook URL",
    )
}

async fn add(context: &Context, engine: &Engine, args: SubscriptionArgs) -> Outcome {
    let event = event_pattern(&args.event)?;
    engine.check_event(&event).await?;
    let given = match &args.secret_file {
        Some(path) => {
            let text = std::fs::read_to_string(path).map_err(|error| file_error("reading the secret", path, error))?;
            Some(text.trim().to_owned())
        }
        None => None,
    };
    let is_made = given.is_none() && args.webhook.is_some();
    let secret = given.unwrap_or_else(new_secret);
    let target = match (&args.webhook, &args.queue) {
        (Some(url), _) => Target::Webhook { url, secret: &secret },
        (None, queue) => Target::Queue(queue.as_deref().unwrap_or_default()),
    };
    engine.subscribe(&args.name, &event, target).await?;
    let mut value = json!({ "subscription": args.name, "event": event, "webhook": args.webhook, "queue": args.queue });
    if is_made {
        value["secret"] = secret.clone().into();
    }
    context.output.show(&value, |_| {
        let target = args.webhook.as_ref().or(args.queue.as_ref()).map(String::as_str).unwrap_or_default();
        let added = format!("{event} goes to {target}");
        if is_made { format!("{added}\nsecret: {secret}") } else { added }
    });
    if is_made {
        talk("keep the secret where the webhook checks its signature: it is not shown again");
    }
    Ok(())
}

async fn pause(context: &Context, engine: &Engine, name: &str, paused: bool) -> Outcome {
    engine.pause_subscription(name, paused).await?;
    context.output.show(&json!({ "subscription": name, "paused": paused }), |_| {
        if paused { format!("the events of {name} wait") } else { format!("the events of {name} are delivered") }
    });
    Ok(())
}

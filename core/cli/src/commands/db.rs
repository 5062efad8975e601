//! `tasker db`: the schema.

use serde_json::json;
use tasker_engine::{Engine, Installation, clock};

use super::Context;
use crate::args::{DbCommand, Switch};
use crate::config::without_password;
use crate::failure::Outcome;
use crate::output::talk;

pub(super) async fn run(context: &Context, command: DbCommand) -> Outcome {
    match command {
        DbCommand::Migrate { plan: true } => plan(context).await,
        DbCommand::Migrate { plan: false } => migrate(context).await,
        DbCommand::Status => status(context).await,
        DbCommand::Sql => {
            let sql = Engine::migration_sql(&context.config.schema()?);
            context.output.show(&json!({ "sql": sql }), |_| sql.clone());
            Ok(())
        }
        DbCommand::Reset => reset(context).await,
        DbCommand::Roles => roles(context).await,
        DbCommand::Url => {
            let (url, origin) = context.config.database_url()?;
            let value = json!({ "database_url": url, "origin": origin.to_string() });
            context.output.show(&value, |_| url.clone());
            Ok(())
        }
        DbCommand::TestMode { mode } => test_mode(context, mode == Switch::On).await,
    }
}

async fn migrate(context: &Context) -> Outcome {
    let engine = context.config.connect().await?;
    let before = engine.installation().await?;
    engine.migrate().await?;
    let applied: Vec<_> =
        before.pending.iter().map(|(version, name)| json!({ "version": version, "name": name })).collect();
    let value = json!({
        "schema": engine.schema().as_str(),
        "applied": applied,
        "functions_renewed": !before.functions_current,
    });
    context.output.show(&value, |_| {
        let schema = engine.schema();
        if before.is_current() {
            return format!("schema {schema} was up to date");
        }
        let mut lines: Vec<String> =
            before.pending.iter().map(|(version, name)| format!("applied {version:04} {name}")).collect();
        if !before.functions_current {
            lines.push("renewed the functions".to_owned());
        }
        lines.push(format!("schema {schema} is up to date"));
        lines.join("\n")
    });
    Ok(())
}

async fn plan(context: &Context) -> Outcome {
    let engine = context.config.connect().await?;
    let plan = engine.migration_plan().await?;
    let value: Vec<_> =
        plan.iter().map(|one| json!({ "part": one.part, "sql": one.sql, "locks": one.locks })).collect();
    context.output.show(&json!(value), |_| {
        if plan.is_empty() {
            return format!("schema {} is up to date; nothing would run", engine.schema());
        }
        let mut lines = Vec::new();
        let mut part = "";
        for one in &plan {
            if one.part != part {
                part = &one.part;
                lines.push(format!("-- {part}, in one transaction"));
            }
            lines.extend(one.locks.iter().map(|lock| format!("-- locks: {lock}")));
            lines.push(if one.sql.starts_with("--") { one.sql.clone() } else { format!("{};", one.sql) });
        }
        lines.join("\n")
    });
    Ok(())
}

async fn roles(context: &Context) -> Outcome {
    let engine = context.config.connect().await?;
    let roles = engine.make_roles().await?;
    context.output.show(&json!({ "roles": roles }), |_| {
        let about = ["migrates as the schema's owner", "runs workers", "submits", "reads"];
        let lines = roles.iter().zip(about).map(|(role, does)| format!("{role}: {does}"));
        lines.collect::<Vec<_>>().join("\n")
    });
    talk("none of them may log in: grant them to roles that do, such as: grant tasker_worker to app");
    Ok(())
}

async fn status(context: &Context) -> Outcome {
    let engine = context.config.connect().await?;
    let found = engine.installation().await?;
    let list = |migrations: &[(i64, String)]| -> Vec<_> {
        migrations.iter().map(|(version, name)| json!({ "version": version, "name": name })).collect()
    };
    let value = json!({
        "schema": engine.schema().as_str(),
        "current": found.is_current(),
        "applied": list(&found.applied),
        "pending": list(&found.pending),
        "unknown": found.unknown,
        "functions_current": found.functions_current,
    });
    context.output.show(&value, |_| describe(&engine, &found));
    Ok(())
}

fn describe(engine: &Engine, found: &Installation) -> String {
    let mut lines: Vec<String> = Vec::new();
    lines.extend(found.applied.iter().map(|(version, name)| format!("{version:04} {name}: applied")));
    lines.extend(found.pending.iter().map(|(version, name)| format!("{version:04} {name}: pending")));
    lines.extend(found.unknown.iter().map(|version| format!("{version:04}: unknown to this program, which is older")));
    lines.push(format!("functions: {}", if found.functions_current { "current" } else { "of another version" }));
    let schema = engine.schema();
    lines.push(if found.is_newer {
        format!("schema {schema} is of a newer release, which serves this program")
    } else if found.is_current() {
        format!("schema {schema} is up to date")
    } else if found.unknown.is_empty() {
        format!("schema {schema} is not up to date; run: tasker db migrate")
    } else {
        format!("schema {schema} is newer than this program; upgrade the program")
    });
    lines.join("\n")
}

async fn reset(context: &Context) -> Outcome {
    let (url, _) = context.config.database_url()?;
    let schema = context.config.schema()?;
    context.confirm(&format!("This deletes schema {schema} of {} with every task in it.", without_password(&url)))?;
    let engine = context.config.connect().await?;
    engine.uninstall().await?;
    engine.migrate().await?;
    let value = json!({ "schema": schema.as_str(), "reset": true });
    context.output.show(&value, |_| format!("schema {schema} was deleted and installed anew"));
    Ok(())
}

async fn test_mode(context: &Context, on: bool) -> Outcome {
    let engine = context.config.connect().await?;
    engine.check_installed().await?;
    let mut conn = engine.acquire().await?;
    clock::set_test_mode(&mut conn, engine.schema(), on).await?;
    context.output.show(&json!({ "test_mode": on }), |_| {
        if on { "tests may run in this database".to_owned() } else { "tests may not run in this database".to_owned() }
    });
    if on {
        talk("a test session can shift its own clock; do not do this to a database in production");
    }
    Ok(())
}

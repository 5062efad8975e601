//! Whether a step costs more when there are many finished ones: the server's processor time for each step, at ten thousand finished
//! steps and at a million (`GROWTH=full`: ten million).

use anyhow::{Context, Result};
use sqlx::{AssertSqlSafe, PgConnection};

use crate::bench::Bench;
use crate::database::Database;
use crate::load;
use crate::report::show;
use crate::samples::Samples;
use crate::workflows::DAG7;

/// Drains at each size.
const ROUNDS: usize = 5;
/// Finished tasks that one statement makes.
const CHUNK: i64 = 20_000;

pub(crate) async fn run(bench: &mut Bench) -> Result<()> {
    let mut sizes = vec![10_000_i64, 100_000, 1_000_000];
    if bench.config.is_quick {
        sizes = vec![3_000, 10_000];
    } else if bench.config.is_growth_full {
        sizes.push(10_000_000);
    }
    let tasks = bench.config.size(1_500, 200);
    let database = bench.server.database("growth").await?;
    load::drain(&bench.server, &database, 10).await?;
    let mut rows = Vec::new();
    let mut medians = Vec::new();
    for size in sizes {
        let mut connection = database.connect().await?;
        fill(&mut connection, size).await.with_context(|| format!("making {size} finished steps"))?;
        // Every size starts with the same: statistics that are true, and no full-page image written yet.
        sqlx::query("vacuum analyze").execute(&mut connection).await?;
        sqlx::query("checkpoint").execute(&mut connection).await?;
        let (cost, rate) = measure(bench, &database, tasks).await?;
        rows.push(vec![size.to_string(), show(cost.median()), show(rate.median())]);
        bench.report.samples(format!("growth_{size}_pg_us_per_step"), &cost);
        medians.push(cost.median());
    }
    bench.drop(database).await?;
    let head = ["finished steps", "PostgreSQL us/step", "steps/s"];
    bench.report.table("Cost of a step among finished ones", &head, rows);
    if let [first, .., last] = medians[..] {
        bench.report.figure("growth_pg_cpu_ratio", last / first);
    }
    Ok(())
}

async fn measure(bench: &Bench, database: &Database, tasks: usize) -> Result<(Samples, Samples)> {
    let (mut cost, mut rate) = (Samples::default(), Samples::default());
    for round in 0..=ROUNDS {
        let drained = load::drain(&bench.server, database, tasks).await?;
        if round > 0 {
            cost.push(drained.server_us_per_step);
            rate.push(drained.steps_per_s);
        }
    }
    Ok((cost, rate))
}

/// Adds copies of a finished task, its steps and its history, until there are this many finished steps. Ids are in the order of time and
/// older than every real one, as they would be.
async fn fill(connection: &mut PgConnection, steps: i64) -> Result<()> {
    let there: i64 =
        sqlx::query_scalar("select count(*) from tasker.step where state = 'done'").fetch_one(&mut *connection).await?;
    let mut left = (steps - there).max(0) / i64::try_from(DAG7)?;
    let model = "select task_id from tasker.task where state = 'complete' order by task_id desc limit 1";
    let model: uuid::Uuid = sqlx::query_scalar(model).fetch_one(&mut *connection).await?;
    while left > 0 {
        let number = left.min(CHUNK);
        // Version 7: 48 bits of milliseconds, then what is random; the clock of these goes backwards from an hour ago.
        sqlx::query(
            "create temp table made on commit preserve rows as
             select (lpad(to_hex((extract(epoch from now()) * 1000)::bigint - 3600000 - $1 + n), 12, '0') || '7'
               || substr(md5(random()::text), 1, 3) || '8' || substr(md5(random()::text), 1, 15))::uuid as task_id
             from generate_series(1, $2) as n",
        )
        .bind(left)
        .bind(number)
        .execute(&mut *connection)
        .await?;
        for table in ["task", "step", "event"] {
            copy(connection, table, model).await?;
        }
        sqlx::query("drop table made").execute(&mut *connection).await?;
        left -= number;
    }
    Ok(())
}

/// Copies the model's rows of one table to each id in `made`. The columns are those that the table has.
async fn copy(connection: &mut PgConnection, table: &str, model: uuid::Uuid) -> Result<()> {
    let columns: String = sqlx::query_scalar(
        "select string_agg(quote_ident(attname), ', ' order by attnum) from pg_attribute
         where attrelid = ('tasker.' || $1)::regclass and attnum > 0 and not attisdropped
           and attname not in ('task_id', 'event_id')",
    )
    .bind(table)
    .fetch_one(&mut *connection)
    .await?;
    let order = if table == "task" { "m.task_id" } else { "m.task_id, t.idx" };
    let sql = format!(
        "insert into tasker.{table} (task_id, {columns})
         select m.task_id, t.* from made m cross join (select {columns} from tasker.{table} where task_id = $1) t order by {order}"
    );
    sqlx::query(AssertSqlSafe(sql)).bind(model).execute(connection).await?;
    Ok(())
}

//! The sales' own tables.

use sqlx::{PgConnection, PgPool};

use crate::{Day, Rejected, Row, Summary};

/// Where the sales are kept.
#[derive(Debug, Clone)]
pub struct Sales {
    /// Their database.
    pub pool: PgPool,
}

impl Sales {
    /// Uses this database.
    pub fn new(pool: PgPool) -> Self {
        Self { pool }
    }

    /// Makes the tables, or brings them up to date.
    pub async fn migrate(&self) -> Result<(), sqlx::migrate::MigrateError> {
        sqlx::migrate!().run(&self.pool).await
    }

    /// Writes rows of a file: the sales, and those that are none with their lines.
    pub async fn insert(connection: &mut PgConnection, rows: &[Result<Row, Rejected>]) -> Result<(), sqlx::Error> {
        let sales = || rows.iter().flatten();
        sqlx::query(
            "insert into sale (customer, amount_cents, day) select * from unnest($1::text[], $2::int8[], $3::date[])",
        )
        .bind(sales().map(|row| row.customer.as_str()).collect::<Vec<_>>())
        .bind(sales().map(|row| row.amount_cents).collect::<Vec<_>>())
        .bind(sales().map(|row| row.day).collect::<Vec<_>>())
        .execute(&mut *connection)
        .await?;
        let rejected = || rows.iter().filter_map(|row| row.as_ref().err());
        sqlx::query("insert into rejected_row (line, reason) select * from unnest($1::int8[], $2::text[])")
            .bind(rejected().map(|row| row.line.cast_signed()).collect::<Vec<_>>())
            .bind(rejected().map(|row| row.reason.as_str()).collect::<Vec<_>>())
            .execute(connection)
            .await
            .map(drop)
    }

    /// Writes what an import came to.
    pub async fn report(connection: &mut PgConnection, path: &str, summary: &Summary) -> Result<(), sqlx::Error> {
        sqlx::query("insert into import_report (path, rows, rejected, amount_cents) values ($1, $2, $3, $4)")
            .bind(path)
            .bind(summary.rows().cast_signed())
            .bind(summary.rejected.cast_signed())
            .bind(summary.amount_cents())
            .execute(connection)
            .await
            .map(drop)
    }

    /// Sums up what is in the tables.
    pub async fn summary(&self) -> Result<Summary, sqlx::Error> {
        let days: Vec<(chrono::NaiveDate, i64, i64)> =
            sqlx::query_as("select day, count(*), sum(amount_cents)::int8 from sale group by day")
                .fetch_all(&self.pool)
                .await?;
        let rejected: i64 = sqlx::query_scalar("select count(*) from rejected_row").fetch_one(&self.pool).await?;
        let day = |(day, rows, amount_cents): (_, i64, _)| (day, Day { rows: rows.cast_unsigned(), amount_cents });
        Ok(Summary { days: days.into_iter().map(day).collect(), rejected: rejected.cast_unsigned() })
    }
}

//! Mails to customers.

use sqlx::PgConnection;

use super::Request;

/// Leaves a mail for the mailer, which sends what was committed.
pub async fn send(connection: &mut PgConnection, request: &Request, body: &str) -> Result<(), sqlx::Error> {
    sqlx::query("insert into mail (order_id, customer, body) values ($1, $2, $3)")
        .bind(&request.order_id)
        .bind(&request.customer)
        .bind(body)
        .execute(connection)
        .await
        .map(drop)
}

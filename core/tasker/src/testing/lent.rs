//! The test's own connection, lent to the steps it runs.

use std::sync::Arc;

use sqlx::PgConnection;
use tasker_worker::SharedConnection;
use tokio::sync::Mutex;

/// Holds the caller's connection where steps can reach it, and puts it back at the end: a step runs in a task of its own, which
/// cannot borrow. Meanwhile another connection stands in the caller's place.
pub(super) struct Lent<'c> {
    place: &'c mut PgConnection,
    shared: SharedConnection,
}

impl<'c> Lent<'c> {
    pub(super) fn new(place: &'c mut PgConnection, substitute: PgConnection) -> Self {
        let connection = std::mem::replace(place, substitute);
        Self { place, shared: Arc::new(Mutex::new(connection)) }
    }

    pub(super) fn shared(&self) -> SharedConnection {
        Arc::clone(&self.shared)
    }
}

impl Drop for Lent<'_> {
    fn drop(&mut self) {
        // Only a step that outlived its timeout in the middle of its transaction can still hold the lock: then the connection is
        // lost to the test, and its transaction rolls back as it closes.
        if let Ok(mut connection) = self.shared.try_lock() {
            std::mem::swap(&mut *connection, self.place);
        }
    }
}

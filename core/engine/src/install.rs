//! Installing and upgrading the schema: PGMQ, the tables (`migrations/`), the functions (`core/engine/sql`).
//!
//! Everything happens under one advisory lock, so that any number of processes may migrate at the same moment. Tables are changed by
//! append-only migrations; functions are applied again whenever their text changed. No superuser, no extension and no role is needed.

use std::borrow::Cow;
use std::fmt::Write as _;

use include_dir::{Dir, include_dir};
use sha2::{Digest, Sha256};
use sqlx::migrate::{MigrateError, Migration, MigrationType, Migrator};
use sqlx::postgres::PgPoolOptions;
use sqlx::{AssertSqlSafe, Connection, Executor, PgConnection, SqlSafeStr};
use tasker_model::{Error, ErrorKind, Result};

use crate::release::{Installed, Standing};
use crate::{Engine, Schema, roles, to_error};

static MIGRATIONS: Dir<'_> = include_dir!("$CARGO_MANIFEST_DIR/../../migrations");
static FUNCTIONS: Dir<'_> = include_dir!("$CARGO_MANIFEST_DIR/sql");

/// The oldest PostgreSQL that works.
const OLDEST_SERVER: i32 = 150_000;

/// The event partitions that are kept ready, in weeks.
const PARTITIONS_AHEAD: i32 = 8;

/// What is installed and what this program would install.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Installation {
    /// Migrations that were applied: version and name.
    pub applied: Vec<(i64, String)>,
    /// Migrations that this program has and the database has not.
    pub pending: Vec<(i64, String)>,
    /// Migrations of the database that this program does not know: it is too old for the schema.
    pub unknown: Vec<i64>,
    /// Whether the functions are those of this program.
    pub functions_current: bool,
    /// Whether a newer release installed it that still serves this program.
    pub is_newer: bool,
}

impl Installation {
    /// Says whether nothing is left to be done by this program.
    pub fn is_current(&self) -> bool {
        self.is_newer || self.pending.is_empty() && self.unknown.is_empty() && self.functions_current
    }
}

impl Engine {
    /// Brings the schema up to date, or makes it. Safe to call from many processes at once; quick when nothing is to be done.
    ///
    /// Fails with `conflict` where the schema is newer than this program, `forbidden` where the role may not create it, `invalid` where
    /// something is to be done and only PgBouncer leads to the server: give `direct_database_url`.
    pub async fn migrate(&self) -> Result<()> {
        let mut conn = match self.open_direct().await {
            Ok(conn) => conn,
            Err(error) if error.kind == ErrorKind::Invalid => {
                return if self.installation().await?.is_current() { Ok(()) } else { Err(error) };
            }
            Err(error) => return Err(error),
        };
        let doing = "migrating the database";
        check_server(&mut conn).await?;
        let lock = lock_key(self.schema());
        sqlx::query("select pg_advisory_lock($1)")
            .bind(lock)
            .execute(&mut conn)
            .await
            .map_err(|e| to_error(doing, e))?;
        let result = self.migrate_locked(&mut conn).await;
        // The lock ends with the session; nothing is lost if this fails.
        let _ = conn.close().await;
        result
    }

    async fn migrate_locked(&self, conn: &mut PgConnection) -> Result<()> {
        let doing = "migrating the database";
        // That things exist already is what a second run is for.
        conn.execute("set client_min_messages = warning").await.map_err(|e| to_error(doing, e))?;
        let schema = self.schema();
        let owner = roles::become_owner(schema, conn).await?;
        if let Some(installed) = Installed::read(self, conn).await? {
            match installed.standing() {
                Standing::Ours => {}
                // An old program that starts while a new release rolls out.
                Standing::Serves => return Ok(()),
                Standing::TooNew => return Err(installed.too_new(schema)),
            }
        }
        self.install_pgmq(conn, owner).await?;
        conn.execute(AssertSqlSafe(schema.fill("create schema if not exists {schema}")))
            .await
            .map_err(|e| to_error(doing, e))?;
        let migrator = migrator(schema);
        match migrator.run_direct(None, &mut *conn, false).await {
            Ok(()) => {}
            Err(MigrateError::VersionMissing(version)) => return Err(newer(schema, version)),
            Err(MigrateError::VersionMismatch(version)) => {
                return Err(Error::new(
                    ErrorKind::Conflict,
                    format!(
                        "migration {version} of schema {schema} is not the one of this program; was a migration edited after it was applied?"
                    ),
                ));
            }
            Err(MigrateError::Execute(error) | MigrateError::ExecuteMigration(error, _)) => {
                return Err(to_error(doing, error));
            }
            Err(error) => {
                return Err(Error::new(ErrorKind::Internal, format!("{doing}: {error}")).caused_by(error));
            }
        }
        let (hash, text) = functions(schema);
        let installed: Option<String> = sqlx::query_scalar(AssertSqlSafe(
            schema.fill("select value from {schema}.setting where key = 'functions'"),
        ))
        .fetch_optional(&mut *conn)
        .await
        .map_err(|e| to_error(doing, e))?;
        if installed.as_deref() != Some(hash.as_str()) {
            let mut tx = conn.begin().await.map_err(|e| to_error(doing, e))?;
            let finish = schema.fill(
                "insert into {schema}.queue (queue_id, namespace, name, kind) values (0, '', 'internal', 'engine') on conflict do nothing;
                 select {schema}.build_queue(q.queue_id) from {schema}.queue q;
                 select {schema}.build_dispatch();",
            );
            tx.execute(AssertSqlSafe(text)).await.map_err(|e| to_error("applying the engine's functions", e))?;
            tx.execute(AssertSqlSafe(finish)).await.map_err(|e| to_error("making the queues' functions", e))?;
            sqlx::query(AssertSqlSafe(schema.fill(
                "insert into {schema}.setting (key, value) values ('functions', $1) on conflict (key) do update set value = excluded.value",
            )))
            .bind(&hash)
            .execute(&mut *tx)
            .await
            .map_err(|e| to_error(doing, e))?;
            roles::renew(schema, &mut tx).await?;
            tx.commit().await.map_err(|e| to_error(doing, e))?;
        }
        Installed::write(schema, conn).await?;
        sqlx::query(AssertSqlSafe(schema.fill("select {schema}.make_partitions($1)")))
            .bind(PARTITIONS_AHEAD)
            .execute(conn)
            .await
            .map_err(|e| to_error("making the event partitions", e))
            .map(drop)
    }

    /// Says what is installed. An empty database has everything pending.
    pub async fn installation(&self) -> Result<Installation> {
        let doing = "reading what is installed";
        let schema = self.schema();
        let mut conn = self.acquire().await?;
        let known: Vec<(i64, String)> =
            migrator(schema).iter().map(|m| (m.version, m.description.to_string())).collect();
        let exists: bool = sqlx::query_scalar("select to_regclass($1) is not null")
            .bind(format!("\"{schema}\".migration"))
            .fetch_one(self.on(&mut conn))
            .await
            .map_err(|e| to_error(doing, e))?;
        if !exists {
            return Ok(Installation {
                applied: Vec::new(),
                pending: known,
                unknown: Vec::new(),
                functions_current: false,
                is_newer: false,
            });
        }
        let applied: Vec<(i64, String)> = sqlx::query_as(AssertSqlSafe(
            schema.fill("select version, description from {schema}.migration where success order by 1"),
        ))
        .fetch_all(self.on(&mut conn))
        .await
        .map_err(|e| to_error(doing, e))?;
        let hash: Option<String> = sqlx::query_scalar(AssertSqlSafe(
            schema.fill("select value from {schema}.setting where key = 'functions'"),
        ))
        .fetch_optional(self.on(&mut conn))
        .await
        .map_err(|e| to_error(doing, e))?;
        let installed = Installed::read(self, &mut conn).await?;
        let has = |version: i64| applied.iter().any(|(v, _)| *v == version);
        Ok(Installation {
            pending: known.iter().filter(|(version, _)| !has(*version)).cloned().collect(),
            unknown: applied.iter().map(|(v, _)| *v).filter(|v| !known.iter().any(|(k, _)| k == v)).collect(),
            functions_current: hash == Some(functions(schema).0),
            is_newer: installed.is_some_and(|installed| installed.standing() == Standing::Serves),
            applied,
        })
    }

    /// Fails where the schema is not the one that this program needs; the message says what to do.
    pub async fn check_installed(&self) -> Result<()> {
        let installation = self.installation().await?;
        if installation.is_newer {
            return Ok(());
        }
        if let Some(version) = installation.unknown.first() {
            return Err(newer(self.schema(), *version));
        }
        if installation.is_current() {
            return Ok(());
        }
        Err(Error::new(
            ErrorKind::Unavailable,
            format!(
                "schema {} is not up to date ({} migrations pending); run `tasker db migrate`",
                self.schema(),
                installation.pending.len()
            ),
        ))
    }

    /// Deletes the schema and its queues, whatever they hold.
    pub async fn uninstall(&self) -> Result<()> {
        let doing = "deleting the schema";
        let mut conn = self.open_direct().await?;
        let lock = lock_key(self.schema());
        sqlx::query("select pg_advisory_lock($1)")
            .bind(lock)
            .execute(&mut conn)
            .await
            .map_err(|e| to_error(doing, e))?;
        // Others may keep queues in PGMQ too, under any name.
        let has_queues: bool =
            sqlx::query_scalar("select to_regclass('pgmq.meta') is not null and to_regclass($1) is not null")
                .bind(format!("\"{}\".queue", self.schema()))
                .fetch_one(&mut conn)
                .await
                .map_err(|e| to_error(doing, e))?;
        if has_queues {
            sqlx::query(self.statement(
                "select pgmq.drop_queue(m.queue_name) from pgmq.meta m join {schema}.queue q on m.queue_name ~ ('^{queue_prefix}' || q.queue_id || '_[0-3]$')",
            ))
                .execute(&mut conn)
                .await
                .map_err(|e| to_error(doing, e))?;
        }
        conn.execute(AssertSqlSafe(self.schema().fill("drop schema if exists {schema} cascade")))
            .await
            .map_err(|e| to_error(doing, e))?;
        conn.close().await.map_err(|e| to_error(doing, e))
    }

    /// Renders all SQL that [`Engine::migrate`] would apply to an empty schema, for a database administrator to read.
    pub fn migration_sql(schema: &Schema) -> String {
        let mut text = String::new();
        for migration in migrator(schema).iter() {
            let _ = writeln!(
                text,
                "-- migration {} {}\n{}",
                migration.version,
                migration.description,
                migration.sql.as_str()
            );
        }
        text + "-- functions\n" + &functions(schema).1
    }

    /// Lists all migrations of this program: version, name, text.
    pub(crate) fn migrations(schema: &Schema) -> Vec<(i64, String, String)> {
        let migrator = migrator(schema);
        migrator.iter().map(|m| (m.version, m.description.to_string(), m.sql.as_str().to_owned())).collect()
    }

    /// Uses the server's PGMQ extension where it is installed or may be created, else installs PGMQ's SQL as ordinary objects.
    async fn install_pgmq(&self, conn: &mut PgConnection, owner: Option<String>) -> Result<()> {
        let doing = "installing PGMQ";
        let (extension, available): (bool, bool) = sqlx::query_as(
            "select exists (select from pg_extension where extname = 'pgmq'), exists (select from pg_available_extensions where name = 'pgmq')",
        )
        .fetch_one(&mut *conn)
        .await
        .map_err(|e| to_error(doing, e))?;
        let has_schema: bool = sqlx::query_scalar("select to_regclass('pgmq.meta') is not null")
            .fetch_one(&mut *conn)
            .await
            .map_err(|e| to_error(doing, e))?;
        let mut extension = extension;
        if !extension && !has_schema && available {
            // Where the role may not create it, the embedded SQL does.
            extension = conn.execute("create extension pgmq").await.is_ok();
        }
        if !extension {
            // Its installer wants a pool; through PgBouncer ours would not do.
            let connect = self.direct_options()?.clone().options(owner.map(|owner| ("role", owner)));
            let pool = PgPoolOptions::new().max_connections(1).connect_lazy_with(connect);
            pgmq::PGMQueueExt::new_with_pool(pool.clone())
                .await
                .install_sql_from_embedded()
                .await
                .map_err(|error| Error::new(ErrorKind::Internal, format!("{doing}: {error}")).caused_by(error))?;
            pool.close().await;
        }
        check_pgmq(conn).await
    }
}

/// PGMQ 1.10 gave its queue tables the columns that the engine writes. Asked of the function that makes tables, since there may be no
/// queue yet.
async fn check_pgmq(conn: &mut PgConnection) -> Result<()> {
    let makes: Option<String> = sqlx::query_scalar(
        "select prosrc from pg_proc p join pg_namespace n on n.oid = p.pronamespace where n.nspname = 'pgmq' and p.proname = 'create_non_partitioned'",
    )
    .fetch_optional(conn)
    .await
    .map_err(|e| to_error("checking PGMQ", e))?;
    let makes = makes.unwrap_or_default().to_lowercase();
    let missing: Vec<&str> = ["msg_id", "read_ct", "enqueued_at", "last_read_at", "vt", "message", "headers"]
        .into_iter()
        .filter(|c| !makes.contains(c))
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    Err(Error::new(
        ErrorKind::Conflict,
        format!(
            "PGMQ in this database is older than 1.10: its queues lack {}; as its owner run `alter extension pgmq update`, then try again",
            missing.join(", ")
        ),
    ))
}

async fn check_server(conn: &mut PgConnection) -> Result<()> {
    let version: i32 = sqlx::query_scalar("select current_setting('server_version_num')::int")
        .fetch_one(conn)
        .await
        .map_err(|e| to_error("reading the server's version", e))?;
    if version >= OLDEST_SERVER {
        return Ok(());
    }
    Err(Error::new(
        ErrorKind::Conflict,
        format!("the server is PostgreSQL {}; Tasker needs 15 or newer", version / 10_000),
    ))
}

fn newer(schema: &Schema, version: i64) -> Error {
    Error::new(
        ErrorKind::Conflict,
        format!(
            "schema {schema} has migration {version}, which this program does not know: it is older than the schema; upgrade the program"
        ),
    )
}

/// One lock for all schemas of a database: PGMQ is shared by them.
fn lock_key(_schema: &Schema) -> i64 {
    0x7461_736b_6572_0001
}

fn migrator(schema: &Schema) -> Migrator {
    let mut migrations: Vec<Migration> = MIGRATIONS
        .files()
        .filter_map(|file| {
            let (version, name) = file.path().file_stem()?.to_str()?.split_once('_')?;
            Some(Migration::new(
                version.parse().ok()?,
                Cow::Owned(name.replace('_', " ")),
                MigrationType::Simple,
                AssertSqlSafe(schema.fill(file.contents_utf8()?)).into_sql_str(),
                false,
            ))
        })
        .collect();
    migrations.sort_by_key(|m| m.version);
    let mut migrator = Migrator::with_migrations(migrations);
    migrator.table_name = Cow::Owned(schema.fill("{schema}.migration"));
    migrator.locking = false;
    migrator
}

/// The text of all functions and its hash. SQL-language functions are checked when they are made, so those that others call come first.
fn functions(schema: &Schema) -> (String, String) {
    let mut files: Vec<_> =
        FUNCTIONS.files().filter_map(|f| Some((f.path().file_name()?.to_str()?, f.contents_utf8()?))).collect();
    files.sort_by_key(|(name, _)| (*name != "now.sql", *name));
    let mut text = String::from("set local check_function_bodies = off;\n");
    for (_, sql) in files {
        text.push_str(&schema.fill(sql));
        text.push('\n');
    }
    let mut hash = String::new();
    for byte in Sha256::digest(text.as_bytes()) {
        let _ = write!(hash, "{byte:02x}");
    }
    (hash, text)
}

//! The configuration: defaults, then tasker.toml, then `TASKER_*`, then arguments. The only place that reads the environment.
#![expect(clippy::disallowed_methods, reason = "the one place of this program that reads the environment")]

use std::env;
use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Serialize;
use sqlx::postgres::PgConnectOptions;
use sqlx::{ConnectOptions, Connection};
use tasker_engine::{Engine, Options, Schema, to_error};
use tasker_model::{Error, ErrorKind, Result, nearest};

use crate::args::Global;

/// How long the database may take to answer.
const CONNECT_PATIENCE: Duration = Duration::from_secs(10);

/// The file.
const FILE: &str = "tasker.toml";

/// Every setting: its name, its default, what it is.
const SETTINGS: [(&str, &str, &str); 8] = [
    ("database_url", "", "the database, postgres://..."),
    ("direct_database_url", "", "the server itself, for migrating where database_url is that of a PgBouncer"),
    ("pgbouncer", "auto", "whether PgBouncer in transaction mode is between: auto, true or false"),
    ("schema", "tasker", "the schema that holds Tasker's tables"),
    ("pool_size", "10", "the most connections of one process"),
    ("dev_worker", "", "the command that runs this project's handlers"),
    ("log", "warn", "what is logged, in the syntax of RUST_LOG"),
    ("log_format", "text", "text or json"),
];

/// Variables with our prefix that other parts of Tasker read.
const OTHER_VARIABLES: [&str; 3] = ["pg_bin_dir", "test_database_url", "ci_target"];

/// Where a value comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Origin {
    Default,
    File(PathBuf),
    Variable(String),
    Argument(&'static str),
    /// The database that a running `tasker dev` brought up.
    Dev,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File(path) => write!(f, "{}", path.display()),
            Self::Variable(name) => f.write_str(name),
            Self::Argument(name) => f.write_str(name),
            Self::Dev => f.write_str("tasker dev"),
        }
    }
}

/// One setting with its value.
#[derive(Debug, Clone)]
pub(crate) struct Setting {
    pub(crate) name: &'static str,
    pub(crate) about: &'static str,
    pub(crate) value: String,
    pub(crate) origin: Origin,
}

/// A setting as it is shown: without passwords.
#[derive(Debug, Serialize)]
pub(crate) struct Shown {
    pub(crate) name: &'static str,
    pub(crate) value: String,
    pub(crate) origin: String,
    pub(crate) about: &'static str,
}

/// All settings.
#[derive(Debug, Clone)]
pub(crate) struct Config {
    settings: Vec<Setting>,
    /// The directory of tasker.toml, else of `.tasker`, else the current one.
    pub(crate) project: PathBuf,
}

impl Config {
    /// Reads everything. Fails for an unknown key or a value of the wrong type, naming the file and the nearest key.
    pub(crate) fn load(global: &Global) -> Result<Self> {
        let here = env::current_dir().unwrap_or_else(|_| PathBuf::from("."));
        let file = find_up(&here, FILE);
        let project = file
            .as_deref()
            .and_then(Path::parent)
            .map(Path::to_owned)
            .or_else(|| find_up(&here, ".tasker").and_then(|path| path.parent().map(Path::to_owned)))
            .unwrap_or(here);
        let mut config = Self {
            settings: SETTINGS
                .iter()
                .map(|&(name, value, about)| Setting { name, about, value: value.to_owned(), origin: Origin::Default })
                .collect(),
            project,
        };
        if let Some(file) = file {
            config.read_file(&file)?;
        }
        config.read_environment();
        for (name, argument, value) in
            [("database_url", "--database-url", &global.database_url), ("schema", "--schema", &global.schema)]
        {
            if let Some(value) = value {
                config.set(name, value, Origin::Argument(argument));
            }
        }
        Ok(config)
    }

    fn read_file(&mut self, path: &Path) -> Result<()> {
        let refuse = |message: String| Error::new(ErrorKind::Invalid, message);
        let shown = path.display();
        let text = std::fs::read_to_string(path).map_err(|error| refuse(format!("cannot read {shown}: {error}")))?;
        let values: toml::Table = text.parse().map_err(|error| refuse(format!("{shown} is not TOML: {error}")))?;
        for (key, value) in values {
            let Some((name, ..)) = SETTINGS.iter().find(|(name, ..)| *name == key) else {
                let names = SETTINGS.iter().map(|(name, ..)| *name);
                let hint = match nearest(&key, names.clone()) {
                    Some(near) => format!("did you mean `{near}`?"),
                    None => format!("there are: {}", names.collect::<Vec<_>>().join(", ")),
                };
                let at = line_of(&text, &key);
                return Err(refuse(format!("{shown}:{at}: unknown key `{key}`; {hint}")));
            };
            let value = match value {
                toml::Value::String(text) => text,
                toml::Value::Integer(number) => number.to_string(),
                other => {
                    let at = line_of(&text, &key);
                    return Err(refuse(format!(
                        "{shown}:{at}: `{key}` must be a text or a number, not {}",
                        other.type_str()
                    )));
                }
            };
            self.set(name, &value, Origin::File(path.to_owned()));
        }
        Ok(())
    }

    fn read_environment(&mut self) {
        if let Some(url) = variable("DATABASE_URL") {
            self.set("database_url", &url, Origin::Variable("DATABASE_URL".to_owned()));
        }
        for (name, ..) in SETTINGS {
            let key = format!("TASKER_{}", name.to_uppercase());
            if let Some(value) = variable(&key) {
                self.set(name, &value, Origin::Variable(key));
            }
        }
    }

    fn set(&mut self, name: &str, value: &str, origin: Origin) {
        if let Some(setting) = self.settings.iter_mut().find(|s| s.name == name) {
            value.clone_into(&mut setting.value);
            setting.origin = origin;
        }
    }

    /// Returns the value of a setting; none where it is empty.
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.settings
            .iter()
            .find(|setting| setting.name == name)
            .map(|setting| setting.value.as_str())
            .filter(|value| !value.is_empty())
    }

    /// Returns the schema.
    pub(crate) fn schema(&self) -> Result<Schema> {
        Schema::new(self.get("schema").unwrap_or("tasker"))
    }

    /// Returns where `tasker dev` keeps its database.
    pub(crate) fn data_dir(&self) -> PathBuf {
        self.project.join(".tasker").join("pg")
    }

    /// Returns the database's URL: the configured one, else that of a running `tasker dev`.
    pub(crate) fn database_url(&self) -> Result<(String, Origin)> {
        if let Some(setting) = self.settings.iter().find(|s| s.name == "database_url" && !s.value.is_empty()) {
            return Ok((setting.value.clone(), setting.origin.clone()));
        }
        tasker_postgres::Postgres::running(&self.data_dir()).map(|url| (url, Origin::Dev)).ok_or_else(|| {
            Error::new(
                ErrorKind::Unavailable,
                "no database: set DATABASE_URL, give --database-url, or start one with: tasker dev",
            )
        })
    }

    /// Connects to the database.
    pub(crate) async fn connect(&self) -> Result<Engine> {
        let (url, _) = self.database_url()?;
        self.connect_to(url).await
    }

    /// Connects to the database at `url` with everything else as configured.
    pub(crate) async fn connect_to(&self, url: String) -> Result<Engine> {
        check_reachable(&url).await?;
        let mut options = Options::new(url);
        options.schema = self.schema()?;
        options.pool_size = self.number("pool_size")?;
        options.pgbouncer = self.get("pgbouncer").unwrap_or("auto").parse()?;
        options.direct_database_url = self.get("direct_database_url").map(str::to_owned);
        Engine::connect(&options).await
    }

    /// Returns a setting that is a number of at least 1.
    pub(crate) fn number(&self, name: &str) -> Result<u32> {
        let text = self.get(name).unwrap_or_default();
        text.parse().ok().filter(|number| *number > 0).ok_or_else(|| {
            Error::new(ErrorKind::Invalid, format!("`{name}` must be a whole number of at least 1, not `{text}`"))
        })
    }

    /// Lists all settings to be shown.
    pub(crate) fn shown(&self) -> Vec<Shown> {
        self.settings
            .iter()
            .map(|setting| {
                let (value, origin) = if setting.name == "database_url" {
                    self.database_url().unwrap_or_else(|_| (String::new(), Origin::Default))
                } else {
                    (setting.value.clone(), setting.origin.clone())
                };
                Shown {
                    name: setting.name,
                    value: without_password(&value),
                    origin: origin.to_string(),
                    about: setting.about,
                }
            })
            .collect()
    }
}

/// Makes one connection for the sake of its error: a pool tries again and again, then says only that time ran out.
async fn check_reachable(url: &str) -> Result<()> {
    let shown = without_password(url);
    let refuse = |error: sqlx::Error| match error {
        sqlx::Error::Protocol(_) => {
            let message =
                format!("connecting to {shown}: what answers there is no PostgreSQL; check the address: {error}");
            Error::new(ErrorKind::Unavailable, message).caused_by(error)
        }
        error => to_error(&format!("connecting to {shown}"), error),
    };
    let is_ours = ["postgres://", "postgresql://"].iter().any(|scheme| url.starts_with(scheme));
    let options = url.parse::<PgConnectOptions>().ok().filter(|_| is_ours);
    let options = options.ok_or_else(|| {
        let hint =
            if is_ours { "; characters such as / ? # @ in a password are written as %2F %3F %23 %40" } else { "" };
        Error::new(ErrorKind::Invalid, format!("the database's address is not a postgres:// URL: {shown}{hint}"))
    })?;
    // PgBouncer refuses that startup option; newer servers write floats exactly without it.
    let options = options.extra_float_digits(None);
    let connection = tokio::time::timeout(CONNECT_PATIENCE, options.connect())
        .await
        .map_err(|_| {
            let message = format!(
                "connecting to {shown}: no answer within {CONNECT_PATIENCE:?}; check that the server is up and its address is right"
            );
            Error::new(ErrorKind::Unavailable, message)
        })?
        .map_err(refuse)?;
    // It served its purpose.
    let _ = connection.close().await;
    Ok(())
}

/// Warns of variables that look like a setting and are none.
pub(crate) fn unknown_variables() -> Vec<String> {
    let names = || SETTINGS.iter().map(|(name, ..)| *name).chain(OTHER_VARIABLES);
    env::vars_os()
        .filter_map(|(name, _)| {
            let key = name.to_str()?.strip_prefix("TASKER_")?.to_lowercase();
            if names().any(|known| known == key) {
                return None;
            }
            let near = nearest(&key, names())?.to_uppercase();
            Some(format!("warning: TASKER_{} is no setting; did you mean TASKER_{near}?", key.to_uppercase()))
        })
        .collect()
}

/// Says whether `NO_COLOR` asks for no colours.
pub(crate) fn no_color() -> bool {
    variable("NO_COLOR").is_some() || is_dumb()
}

/// Says whether the terminal can only be written to line by line.
pub(crate) fn is_dumb() -> bool {
    variable("TERM").as_deref() == Some("dumb")
}

/// Returns who runs this program.
pub(crate) fn user() -> Option<String> {
    variable("USER").or_else(|| variable("LOGNAME"))
}

fn variable(name: &str) -> Option<String> {
    env::var(name).ok().filter(|value| !value.is_empty())
}

fn find_up(from: &Path, name: &str) -> Option<PathBuf> {
    from.ancestors().map(|directory| directory.join(name)).find(|path| path.exists())
}

fn line_of(text: &str, key: &str) -> usize {
    text.lines()
        .position(|line| {
            let line = line.trim_start();
            line.trim_start_matches(['"', '\'', '[']).starts_with(key)
        })
        .map_or(1, |at| at + 1)
}

/// Hides the password of a URL, also of one that is not written as it should be: a password that holds `/` or `?` ends no host.
pub(crate) fn without_password(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else {
        return url.to_owned();
    };
    let is_query = |start: usize| rest[..start].contains('@') || !rest.contains('@');
    let query = rest.match_indices('?').map(|(at, _)| at).find(|at| is_query(*at));
    let (place, query) = query.map_or((rest, None), |at| (&rest[..at], Some(&rest[at + 1..])));
    let place = match place.rfind('@') {
        None => place.to_owned(),
        Some(at) => {
            let user = place[..at].split(':').next().unwrap_or_default();
            let secret = if place[..at].contains(':') { ":***" } else { "" };
            format!("{user}{secret}{}", &place[at..])
        }
    };
    let Some(query) = query else {
        return format!("{scheme}://{place}");
    };
    let shown = query.split('&').map(|pair| match pair.split_once('=') {
        Some((name, _)) if name.eq_ignore_ascii_case("password") => format!("{name}=***"),
        _ => pair.to_owned(),
    });
    format!("{scheme}://{place}?{}", shown.collect::<Vec<_>>().join("&"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_is_not_shown() {
        for (url, shown) in [
            ("postgres://u:p@h:1/d", "postgres://u:***@h:1/d"),
            ("postgres://u@h/d", "postgres://u@h/d"),
            ("postgres://h/d", "postgres://h/d"),
            ("postgres://u:p/a?b@h/d", "postgres://u:***@h/d"),
            (
                "postgres://h/d?user=u&password=secret&sslmode=require",
                "postgres://h/d?user=u&password=***&sslmode=require",
            ),
            ("postgres://u:p@h/d?PASSWORD=x", "postgres://u:***@h/d?PASSWORD=***"),
            ("postgres://u:a@b@h/d?x=@", "postgres://u:***@h/d?x=@"),
            ("", ""),
        ] {
            assert_eq!(without_password(url), shown);
        }
    }
}

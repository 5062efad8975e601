//! The command line: every command with its arguments.

use std::path::PathBuf;

use clap::{ArgAction, Args, Parser, Subcommand, ValueEnum};
use clap_complete::ArgValueCompleter;

use crate::complete;

mod event;
pub(crate) use event::{EventCommand, EventListArgs, RedeliverArgs, SubscriptionArgs, SubscriptionCommand};

/// Runs workflows over the code that you have.
#[derive(Debug, Parser)]
#[command(
    name = "tasker",
    version,
    propagate_version = true,
    disable_help_subcommand = true,
    after_help = "Exit codes: 0 ok, 1 failed, 2 usage, 3 needs a decision, 4 not found, 5 no connection, 6 the task failed, 7 timeout.\nData goes to stdout, talk to stderr."
)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// What every command takes.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Everywhere")]
pub(crate) struct Global {
    /// The database, `postgres://...`; else `TASKER_DATABASE_URL`, `DATABASE_URL`, tasker.toml, a running `tasker dev`
    #[arg(long, global = true, value_name = "URL", hide_default_value = true)]
    pub(crate) database_url: Option<String>,
    /// The schema that holds Tasker's tables
    #[arg(long, global = true, value_name = "NAME")]
    pub(crate) schema: Option<String>,
    /// How data is written to stdout
    #[arg(short, long, global = true, value_enum, default_value = "table")]
    pub(crate) output: Format,
    /// Never ask; what needs an answer fails with exit code 3
    #[arg(long, global = true)]
    pub(crate) no_input: bool,
    /// Answer yes to every confirmation
    #[arg(short, long, global = true)]
    pub(crate) yes: bool,
}

/// How data is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// For people.
    Table,
    /// For programs: stable names, RFC 3339 times.
    Json,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Bring up a database and the worker of this project, in one command
    Dev(DevArgs),
    /// Make a task of a workflow (the same as `task run`)
    Run(Box<RunArgs>),
    /// Send a signal to a task (the same as `task signal`)
    Signal(SignalArgs),
    /// Undo what a task did (the same as `task compensate`)
    Compensate(VerbArgs),
    /// Make, follow and cancel tasks
    #[command(subcommand)]
    Task(TaskCommand),
    /// Check, register and show workflows
    #[command(subcommand)]
    Workflow(WorkflowCommand),
    /// Show what workflows published, and deliver it again
    #[command(subcommand)]
    Event(EventCommand),
    /// Send published events to webhooks and queues
    #[command(subcommand)]
    Subscription(SubscriptionCommand),
    /// Show the queues
    #[command(subcommand)]
    Queue(QueueCommand),
    /// Show the workers
    #[command(subcommand)]
    Worker(WorkerCommand),
    /// Install and look after the schema
    #[command(subcommand)]
    Db(DbCommand),
    /// Check everything that Tasker needs; exit code 1 if something is wrong
    Doctor(DoctorArgs),
    /// Show the configuration
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Write a completion script for a shell
    Completions {
        /// The shell
        #[arg(value_enum)]
        shell: clap_complete::Shell,
    },
    /// Show the version
    Version,
}

#[derive(Debug, Args)]
pub(crate) struct DevArgs {
    /// Start no worker
    #[arg(long)]
    pub(crate) no_worker: bool,
    /// The port of the development PostgreSQL; else that of the last time, or a free one
    #[arg(long, value_name = "PORT")]
    pub(crate) port: Option<u16>,
    /// Where the development PostgreSQL keeps its data; `.tasker/pg` beside tasker.toml by default
    #[arg(long, value_name = "DIR")]
    pub(crate) data_dir: Option<PathBuf>,
    /// Write the database's URL to this file once everything is up
    #[arg(long, value_name = "FILE")]
    pub(crate) ready_file: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct RunArgs {
    /// The workflow, `name` or `namespace.name`
    #[arg(add = ArgValueCompleter::new(complete::workflows))]
    pub(crate) workflow: String,
    /// The input: a file, `@file`, `-` for stdin, or JSON that begins with `{`
    #[arg(short, long, value_name = "FILE|-|JSON")]
    pub(crate) input: Option<String>,
    /// Set one field of the input, `a.b=value`; a value that is JSON is taken as such, all else as text
    #[arg(long, value_name = "FIELD=VALUE")]
    pub(crate) set: Vec<String>,
    /// The idempotency key: the same key with the same input is the same task
    #[arg(long)]
    pub(crate) key: Option<String>,
    /// A tag to find the task by, `name=value`
    #[arg(long, value_name = "NAME=VALUE")]
    pub(crate) tag: Vec<String>,
    /// The priority of steps that name none
    #[arg(long, value_enum)]
    pub(crate) priority: Option<PriorityName>,
    /// How long to wait before the first steps, such as `10m`
    #[arg(long, value_name = "DURATION", allow_hyphen_values = true)]
    pub(crate) delay: Option<String>,
    /// How long the task may take, such as `2h`; it fails then
    #[arg(long, value_name = "DURATION", allow_hyphen_values = true)]
    pub(crate) deadline: Option<String>,
    /// An id that is carried through to every step
    #[arg(long, value_name = "ID")]
    pub(crate) correlation_id: Option<String>,
    /// Leave this step out; what depends on it gets null
    #[arg(long, value_name = "STEP")]
    pub(crate) skip: Vec<String>,
    /// Check everything and make no task
    #[arg(long, conflicts_with_all = ["wait", "watch"])]
    pub(crate) dry_run: bool,
    /// Wait for the end and show the output
    #[arg(long, conflicts_with = "watch", group = "following")]
    pub(crate) wait: bool,
    /// Follow the task to its end
    #[arg(long, group = "following")]
    pub(crate) watch: bool,
    /// How long to wait or watch, such as `30s`; exit code 7 then
    #[arg(long, value_name = "DURATION", requires = "following")]
    pub(crate) timeout: Option<String>,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
pub(crate) enum PriorityName {
    Low,
    Normal,
    High,
    Critical,
}

#[derive(Debug, Subcommand)]
pub(crate) enum TaskCommand {
    /// Make a task of a workflow
    Run(Box<RunArgs>),
    /// List tasks, newest first
    List(ListArgs),
    /// Show a task with its steps
    Show(TaskName),
    /// Follow a task: a live tree on a terminal, a JSON line for each event in a pipe
    Watch(FollowArgs),
    /// Wait for the end of a task and show its output
    Wait(FollowArgs),
    /// Cancel a task
    Cancel(VerbArgs),
    /// Send a signal to a task: the step that waits for it goes on, with the payload as its result
    Signal(SignalArgs),
    /// Undo what a task did: one that runs is cancelled, one that is complete is opened again; both end as cancelled
    Compensate(VerbArgs),
    /// Show everything that happened to a task
    Events(TaskName),
}

#[derive(Debug, Args)]
pub(crate) struct ListArgs {
    /// Only tasks in this state
    #[arg(long, value_enum)]
    pub(crate) state: Option<StateName>,
    /// Only tasks of this workflow, `name` or `namespace.name`
    #[arg(long, value_name = "NAME")]
    pub(crate) workflow: Option<String>,
    /// Only tasks in this namespace
    #[arg(long, value_name = "NAME")]
    pub(crate) namespace: Option<String>,
    /// Only the task with this key
    #[arg(long)]
    pub(crate) key: Option<String>,
    /// Only tasks with this tag, `name=value`
    #[arg(long, value_name = "NAME=VALUE")]
    pub(crate) tag: Vec<String>,
    /// Only tasks submitted since then: a duration such as `2h`, or a time such as `2026-01-31T12:00:00Z`
    #[arg(long, value_name = "WHEN")]
    pub(crate) since: Option<String>,
    /// Only tasks before this one in the list: the last of the page before
    #[arg(long, value_name = "TASK")]
    pub(crate) before: Option<String>,
    /// How many at most
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub(crate) limit: u32,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
pub(crate) enum StateName {
    Running,
    Complete,
    Failed,
    Cancelled,
}

#[derive(Debug, Args)]
pub(crate) struct TaskName {
    /// The task: its id, a unique start of it, its key, or `@last`
    #[arg(add = ArgValueCompleter::new(complete::tasks))]
    pub(crate) task: String,
}

#[derive(Debug, Args)]
pub(crate) struct FollowArgs {
    /// The task: its id, a unique start of it, its key, or `@last`
    #[arg(add = ArgValueCompleter::new(complete::tasks))]
    pub(crate) task: String,
    /// How long, such as `30s`; exit code 7 then
    #[arg(long, value_name = "DURATION")]
    pub(crate) timeout: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct SignalArgs {
    /// The task: its id, a unique start of it, its key, or `@last`
    #[arg(add = ArgValueCompleter::new(complete::tasks))]
    pub(crate) task: String,
    /// The signal's name, as the workflow's `wait` says it
    pub(crate) name: String,
    /// The payload: JSON, `@file`, or `-` for stdin; null unless given
    #[arg(long, value_name = "JSON")]
    pub(crate) payload: Option<String>,
    /// Who; $USER by default
    #[arg(long)]
    pub(crate) actor: Option<String>,
}

// What a verb on one task takes: which, why and who. A doc comment here would be the help of every such command.
#[derive(Debug, Args)]
pub(crate) struct VerbArgs {
    /// The task: its id, a unique start of it, its key, or `@last`
    #[arg(add = ArgValueCompleter::new(complete::tasks))]
    pub(crate) task: String,
    /// Why; kept in the task's history
    #[arg(long)]
    pub(crate) reason: Option<String>,
    /// Who; $USER by default
    #[arg(long)]
    pub(crate) actor: Option<String>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum WorkflowCommand {
    /// List the registered workflows
    List,
    /// Show a registered workflow with its steps and revisions
    Show(WorkflowName),
    /// Report everything that is wrong with workflow files; exit code 1 if anything is
    Lint {
        /// The YAML files
        #[arg(required = true)]
        files: Vec<PathBuf>,
        /// The signatures of the handlers, as their `describe` prints them
        #[arg(long, value_name = "FILE")]
        handlers: Option<PathBuf>,
    },
    /// Draw a workflow's graph
    Graph {
        /// A YAML file, or the name of a registered workflow
        #[arg(add = ArgValueCompleter::new(complete::workflows))]
        workflow: String,
        /// How to draw it
        #[arg(long, value_enum, default_value = "terminal")]
        format: GraphFormat,
    },
    /// Write a registered workflow as YAML
    Export(WorkflowName),
    /// Make a registered revision the one that new tasks use
    Activate {
        /// The workflow, `name` or `namespace.name`
        #[arg(add = ArgValueCompleter::new(complete::workflows))]
        workflow: String,
        /// A content hash, the start of one, or a version
        revision: String,
    },
    /// Register a workflow from a YAML file
    Register {
        /// The YAML file
        file: PathBuf,
    },
}

#[derive(Debug, Args)]
pub(crate) struct WorkflowName {
    /// The workflow, `name` or `namespace.name`
    #[arg(add = ArgValueCompleter::new(complete::workflows))]
    pub(crate) workflow: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum GraphFormat {
    Terminal,
    Mermaid,
    Dot,
}

#[derive(Debug, Subcommand)]
pub(crate) enum QueueCommand {
    /// List the queues and how full they are
    List,
}

#[derive(Debug, Subcommand)]
pub(crate) enum WorkerCommand {
    /// List the workers
    List {
        /// Those that stopped, too
        #[arg(long)]
        all: bool,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum DbCommand {
    /// Install the schema, or bring it up to date
    Migrate {
        /// Write the statements that would run and the locks that they take, and change nothing
        #[arg(long)]
        plan: bool,
    },
    /// Show what is installed
    Status,
    /// Write the SQL that `migrate` would apply to an empty schema
    Sql,
    /// Delete the schema with everything in it, and install it anew
    Reset,
    /// Make the optional roles (owner, worker, submit, read) and grant them what they need
    Roles,
    /// Show the database's URL, password included
    Url,
    /// Allow tests to run in this database, or no longer
    TestMode {
        /// Whether tests may
        #[arg(value_enum, action = ArgAction::Set)]
        mode: Switch,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Switch {
    On,
    Off,
}

#[derive(Debug, Args)]
pub(crate) struct DoctorArgs {
    /// Say nothing unless something is wrong
    #[arg(long)]
    pub(crate) quiet: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum ConfigCommand {
    /// Show every setting
    Show {
        /// Where each value comes from
        #[arg(long)]
        origin: bool,
    },
}

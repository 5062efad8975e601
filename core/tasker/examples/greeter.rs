//! The smallest program with a worker: `DATABASE_URL=postgres://... cargo run --example greeter -- work`.

use std::process::ExitCode;

use tasker::prelude::*;

/// Takes `name` from the task's input.
#[tasker::step]
async fn greet(name: String) -> String {
    format!("hello {name}")
}

/// Takes the result of the step `greet`.
#[tasker::step(retry = 5, timeout = "10s")]
async fn shout(greet: String, ctx: Ctx) -> String {
    ctx.progress(50, "clearing the throat");
    greet.to_uppercase()
}

#[tokio::main]
async fn main() -> ExitCode {
    let greeting = Workflow::new("greeting").step(greet).step(shout);
    // Without connecting: `describe` needs no database.
    match Tasker::builder().env().and_then(tasker::Builder::connect_lazy) {
        Ok(tasker) => tasker::run(tasker.workflow(greeting)).await,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::from(2)
        }
    }
}

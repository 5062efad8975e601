//! The import with a real worker, on small files: what is in the tables is what a plain loop over the file finds.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use example_import::{Sales, SalesFile, Summary, count_rows, generate, import_sales, read_rows};
use tasker::{Ended, StepRow, TaskState, Tasker};
use tasker_testkit::TestDatabase;

const PATIENCE: Duration = Duration::from_mins(1);

struct TestImport {
    sales: Sales,
    tasker: Tasker,
    /// Deleted at the end of the test.
    _database: TestDatabase,
}

/// A file that is gone at the end of the test.
struct TestFile(PathBuf);

impl TestFile {
    fn new(content: impl AsRef<[u8]>) -> Self {
        let path = std::env::temp_dir().join(format!("sales-{}.csv", uuid::Uuid::new_v4()));
        std::fs::write(&path, content).unwrap();
        Self(path)
    }

    fn generated(rows: u64) -> Self {
        let file = Self::new("");
        generate(&file.0, rows).unwrap();
        file
    }
}

impl Drop for TestFile {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

async fn world() -> TestImport {
    let database = tasker_testkit::database("import", async |url| {
        let tasker = Tasker::connect(url).await.unwrap();
        tasker.migrate().await.unwrap();
        Sales::new(tasker.pool().clone()).migrate().await.unwrap();
        tasker.pool().close().await;
    })
    .await;
    let tasker = Tasker::connect(database.url()).await.unwrap();
    let sales = Sales::new(tasker.pool().clone());
    let tasker = tasker.workflow(import_sales()).with_state(sales.clone());
    TestImport { sales, tasker, _database: database }
}

impl TestImport {
    async fn import(&self, path: &Path) -> (Ended, Vec<StepRow>) {
        let worker = self.tasker.start().await.unwrap();
        let file = SalesFile { path: path.to_owned(), pace_ms: 0 };
        let task = self.tasker.submit("sales.import", file).await.unwrap();
        let ended = task.wait_for(PATIENCE).await.unwrap();
        worker.drain(Duration::from_secs(5)).await;
        (ended, task.steps().await.unwrap())
    }

    async fn execute(&self, sql: &'static str) {
        sqlx::raw_sql(sql).execute(&self.sales.pool).await.unwrap();
    }

    async fn report(&self) -> (i64, i64, i64) {
        let report = sqlx::query_as("select rows, rejected, amount_cents from import_report");
        report.fetch_one(&self.sales.pool).await.unwrap()
    }
}

/// The same as [`Summary`] prints, worked out from the text of the file.
fn plain_loop(path: &Path) -> String {
    let text = std::fs::read_to_string(path).unwrap();
    let mut days = std::collections::BTreeMap::<&str, (u64, i64)>::new();
    let mut rejected = 0;
    for line in text.lines().skip(1) {
        let fields: Vec<&str> = line.split(',').collect();
        if fields.len() != 3 || fields[1] == "n/a" || fields[2] == "2026-02-30" {
            rejected += 1;
            continue;
        }
        let (rows, cents) = days.entry(fields[2]).or_default();
        *rows += 1;
        *cents += fields[1].replace('.', "").parse::<i64>().unwrap();
    }
    let (mut lines, mut total) = (String::new(), (0, 0));
    for (day, (rows, cents)) in days {
        writeln!(lines, "{day} {rows} {cents}").unwrap();
        total = (total.0 + rows, total.1 + cents);
    }
    format!("{lines}total {} {}\nrejected {rejected}", total.0, total.1)
}

#[tokio::test(flavor = "multi_thread")]
async fn every_row_is_there_once_and_the_result_says_so() {
    let (world, file) = (world().await, TestFile::generated(6_000));
    let (ended, steps) = world.import(&file.0).await;
    let summary: Summary = ended.result().unwrap();
    assert_eq!(summary.to_string(), plain_loop(&file.0));
    assert_eq!(world.sales.summary().await.unwrap(), summary);
    assert_eq!(summary.rows() + summary.rejected, 6_000);
    let rows = (summary.rows().cast_signed(), summary.rejected.cast_signed());
    assert_eq!(world.report().await, (rows.0, rows.1, summary.amount_cents()));
    // 2,500 at a time.
    assert_eq!(steps.iter().filter(|step| step.name.starts_with("import[")).count(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_that_are_no_sales_are_counted_and_kept_with_their_lines() {
    let world = world().await;
    let mut content = b"customer,amount,day\nC-1,10.00,2026-01-01\nC-2,n/a,2026-01-01\nC-3,1.00\n".to_vec();
    content
        .extend(b"\"Bo, Zo\xc3\xab\",2.50,2026-01-02\n,1.00,2026-01-01\nC-4,1.00,2026-02-30\nC-5,1.005,2026-01-01\n");
    content.extend(b"C-\xff,1.00,2026-01-01\nC-6,1.00,2026-01-01,more\n\n\"C\n7\",3.00,2026-01-02\nC-8,x,2026-01-01\n");
    let file = TestFile::new(content);
    let (ended, _) = world.import(&file.0).await;
    let summary: Summary = ended.result().unwrap();
    assert_eq!(summary.to_string(), "2026-01-01 1 1000\n2026-01-02 2 550\ntotal 3 1550\nrejected 8");
    assert_eq!(world.sales.summary().await.unwrap(), summary);
    let rejected: Vec<(i64, String)> = sqlx::query_as("select line, reason from rejected_row order by line")
        .fetch_all(&world.sales.pool)
        .await
        .unwrap();
    let reasons = [
        (3, "`n/a` is no amount"),
        (4, "it has 2 fields instead of 3"),
        (6, "it has no customer"),
        (7, "`2026-02-30` is no day"),
        (8, "`1.005` is no amount"),
        (9, "it is no UTF-8"),
        (10, "it has 4 fields instead of 3"),
        (14, "`x` is no amount"),
    ];
    assert_eq!(rejected, reasons.map(|(line, reason)| (line, reason.to_owned())));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_without_rows_is_an_import_of_nothing() {
    let world = world().await;
    for content in ["", "customer,amount,day\n"] {
        let file = TestFile::new(content);
        let (ended, steps) = world.import(&file.0).await;
        assert_eq!(ended.result::<Summary>().unwrap(), Summary::default());
        assert_eq!(steps.len(), 3);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slice_that_fails_is_tried_again_and_no_other() {
    let (world, file) = (world().await, TestFile::generated(2_000));
    // A sequence does not go back when its transaction does: the fourth insert fails, once.
    world
        .execute(
            "create sequence inserts;
             create function fail_once() returns trigger language plpgsql as $$
             begin
                 if nextval('inserts') = 4 then raise exception 'the disk is full'; end if;
                 return null;
             end $$;
             create trigger fail_once after insert on sale for each statement execute function fail_once();",
        )
        .await;
    let (ended, steps) = world.import(&file.0).await;
    let summary: Summary = ended.result().unwrap();
    assert_eq!(summary.to_string(), plain_loop(&file.0));
    assert_eq!(world.sales.summary().await.unwrap(), summary);
    assert_eq!(steps.iter().find(|step| step.name == "import[0]").unwrap().attempt, 2);
    let inserts: i64 = sqlx::query_scalar("select last_value from inserts").fetch_one(&world.sales.pool).await.unwrap();
    // Eight slices, one of them twice: three were not written again.
    assert_eq!(inserts, 9);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_is_not_there_fails_the_import() {
    let world = world().await;
    let (ended, _) = world.import(Path::new("/nowhere.csv")).await;
    assert_eq!(ended.status(), TaskState::Failed);
    let message: String = ended.error().unwrap().at(&["message"]).unwrap().to().unwrap();
    assert!(message.starts_with("cannot read /nowhere.csv"), "{message}");
}

#[tokio::test]
async fn a_range_of_a_file_is_its_rows_and_the_file_is_the_same_each_time() {
    let (file, again) = (TestFile::generated(100), TestFile::generated(100));
    assert_eq!(std::fs::read(&file.0).unwrap(), std::fs::read(&again.0).unwrap());
    assert_eq!(count_rows(&file.0).await.unwrap(), 100);
    let all = read_rows(&file.0, 0..100).await.unwrap();
    assert_eq!(read_rows(&file.0, 90..200).await.unwrap(), all[90..]);
    assert_eq!([read_rows(&file.0, 0..40).await.unwrap(), read_rows(&file.0, 40..100).await.unwrap()].concat(), all);
}

#[test]
fn the_readmes_snippet_is_the_workflows() {
    let readme = include_str!("../README.md");
    let snippet = readme.split("```rust\n").nth(1).unwrap().split("```").next().unwrap();
    let known: Vec<&str> = include_str!("../src/workflow.rs").lines().map(str::trim).collect();
    for line in snippet.lines() {
        assert!(known.contains(&line), "{line}");
    }
}

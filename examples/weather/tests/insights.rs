//! The workflow's insights against an answer worked out another way: one plain loop over the file, in whole tenths.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use example_weather::{DataSet, Peak, Report, Years, weather_insights};
use rust_decimal::Decimal;
use tasker::{StepState, TaskState, Tasker};
use tasker_testkit::TestDatabase;

const PATIENCE: Duration = Duration::from_mins(1);

fn path() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("data/seattle-weather.csv")
}

async fn tasker() -> (TestDatabase, Tasker) {
    let database = tasker_testkit::database("weather", async |url| {
        let tasker = Tasker::connect(url).await.unwrap();
        tasker.migrate().await.unwrap();
        tasker.pool().close().await;
    })
    .await;
    let tasker = Tasker::connect(database.url()).await.unwrap();
    (database, tasker.workflow(weather_insights()).with_state(DataSet::new(path())))
}

#[derive(Default)]
struct Sums {
    days: i64,
    high: i64,
    low: i64,
    rain: i64,
    wind: i64,
}

/// `12.8` is 128.
fn tenths(text: &str) -> i64 {
    let (whole, fraction) = text.split_once('.').unwrap();
    assert_eq!(fraction.len(), 1, "{text}");
    format!("{whole}{fraction}").parse().unwrap()
}

/// A mean of tenths, to two places.
fn mean(sum: i64, days: i64) -> Decimal {
    (Decimal::new(sum, 1) / Decimal::from(days)).round_dp(2)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_insights_are_those_of_a_plain_loop_over_the_file() {
    let text = std::fs::read_to_string(path()).unwrap();
    let (mut months, mut years) = (BTreeMap::<String, Sums>::new(), BTreeMap::<String, Sums>::new());
    let mut kinds = BTreeMap::<String, u32>::new();
    let (mut dry, mut wet, mut longest_dry, mut longest_wet) = (0_u32, 0_u32, 0, 0);
    for line in text.lines().skip(1) {
        let [date, rain, high, low, wind, kind] = line.split(',').collect::<Vec<_>>()[..] else { panic!("{line}") };
        for sums in [months.entry(date[..7].to_owned()).or_default(), years.entry(date[..4].to_owned()).or_default()] {
            sums.days += 1;
            sums.high += tenths(high);
            sums.low += tenths(low);
            sums.rain += tenths(rain);
            sums.wind += tenths(wind);
        }
        *kinds.entry(kind.to_owned()).or_default() += 1;
        (dry, wet) = if tenths(rain) == 0 { (dry + 1, 0) } else { (0, wet + 1) };
        (longest_dry, longest_wet) = (longest_dry.max(dry), longest_wet.max(wet));
    }
    let best = |value: &dyn Fn(&Sums) -> Decimal| {
        let mut sorted: Vec<_> = months.iter().map(|(month, sums)| (value(sums), month.clone())).collect();
        sorted.sort_by(|a, b| b.0.cmp(&a.0).then(a.1.cmp(&b.1)));
        let (value, month) = sorted.swap_remove(0);
        Peak { month, value }
    };

    let (_database, tasker) = tasker().await;
    let worker = tasker.start().await.unwrap();
    let task = tasker.submit("analytics.weather_insights", Years { first: 2012, last: 2015 }).await.unwrap();
    let ended = task.wait_for(PATIENCE).await.unwrap();
    let insights: Report = ended.result().unwrap();
    let steps = task.steps().await.unwrap();
    worker.drain(Duration::from_secs(5)).await;

    assert_eq!(insights.days, 1461);
    assert_eq!(insights.kinds, kinds);
    let by_year = |value: &dyn Fn(&Sums) -> Decimal| -> BTreeMap<String, Decimal> {
        years.iter().map(|(year, sums)| (year.clone(), value(sums))).collect()
    };
    assert_eq!(insights.mean_high, by_year(&|sums| mean(sums.high, sums.days)));
    assert_eq!(insights.precipitation, by_year(&|sums| Decimal::new(sums.rain, 1)));
    assert_eq!(insights.warmest, best(&|sums| mean(sums.high, sums.days)));
    let coldest = best(&|sums| -mean(sums.low, sums.days));
    assert_eq!(insights.coldest, Peak { value: -coldest.value, ..coldest });
    assert_eq!(insights.wettest, best(&|sums| Decimal::new(sums.rain, 1)));
    assert_eq!(insights.windiest, best(&|sums| mean(sums.wind, sums.days)));
    assert_eq!((insights.dry_spell.days, insights.wet_spell.days), (longest_dry, longest_wet));
    assert!(insights.summary.contains("of 1461 days"), "{}", insights.summary);

    assert_eq!(steps.len(), 8);
    for step in steps {
        assert_eq!(step.state, StepState::Done, "{}", step.name);
        let bytes = step.result.unwrap().get().len();
        assert!(bytes < 50_000, "{} gives {bytes} bytes", step.name);
    }
}

#[test]
fn the_three_questions_are_asked_side_by_side() {
    let revision = weather_insights().revision().unwrap();
    let parents = |name: &str| {
        let step = revision.step_by_name(name).unwrap();
        step.parents.iter().map(|at| &*revision.steps[usize::try_from(*at).unwrap()].name).collect::<Vec<_>>()
    };
    for question in ["temperature", "precipitation", "sky"] {
        assert!(parents(&format!("extract_{question}")).is_empty());
        assert_eq!(parents(&format!("transform_{question}")), [format!("extract_{question}")]);
    }
    assert_eq!(parents("aggregate"), ["transform_precipitation", "transform_sky", "transform_temperature"]);
    assert_eq!(parents("insights"), ["aggregate"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn years_without_observations_and_a_missing_file_are_two_kinds_of_failure() {
    let (_database, tasker) = tasker().await;
    let worker = tasker.start().await.unwrap();
    let task = tasker.submit("analytics.weather_insights", Years { first: 1900, last: 1901 }).await.unwrap();
    let ended = task.wait_for(PATIENCE).await.unwrap();
    assert_eq!(ended.status(), TaskState::Failed);
    let code: String = ended.error().unwrap().at(&["code"]).unwrap().to().unwrap();
    assert_eq!(code, "NO_OBSERVATIONS");
    worker.drain(Duration::from_secs(5)).await;

    let nowhere = tasker.clone().with_state(DataSet::new("/nowhere.csv"));
    let worker = nowhere.start().await.unwrap();
    let task = nowhere.submit("analytics.weather_insights", Years { first: 2012, last: 2012 }).await.unwrap();
    let ended = task.wait_for(PATIENCE).await.unwrap();
    worker.drain(Duration::from_secs(5)).await;
    let message: String = ended.error().unwrap().at(&["message"]).unwrap().to().unwrap();
    assert!(message.starts_with("cannot read /nowhere.csv"), "{message}");
}

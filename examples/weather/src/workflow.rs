//! The workflow: eight steps, whose edges are in their signatures.

use rust_decimal::Decimal;
use tasker::prelude::*;

use crate::observations::{ByMonth, DataSet, Sky, Temperature, Years};
use crate::statistics::{self, Climate, Rainfall, Report, Skies, Warmth};

/// The observations of the days, by month.
type Days<T> = ByMonth<Vec<T>>;

#[tasker::step]
async fn extract_temperature(Input(years): Input<Years>, data: State<DataSet>) -> Result<Days<Temperature>, StepError> {
    Ok(data.temperatures(years).await?)
}

#[tasker::step]
async fn extract_precipitation(Input(years): Input<Years>, data: State<DataSet>) -> Result<Days<Decimal>, StepError> {
    Ok(data.precipitation(years).await?)
}

#[tasker::step]
async fn extract_sky(Input(years): Input<Years>, data: State<DataSet>) -> Result<Days<Sky>, StepError> {
    Ok(data.skies(years).await?)
}

#[tasker::step]
async fn transform_temperature(days: Dep<ExtractTemperature>) -> ByMonth<Warmth> {
    statistics::warmth(&days)
}

#[tasker::step]
async fn transform_precipitation(days: Dep<ExtractPrecipitation>) -> Rainfall {
    statistics::rainfall(&days)
}

#[tasker::step]
async fn transform_sky(days: Dep<ExtractSky>) -> ByMonth<Skies> {
    statistics::skies(&days)
}

#[tasker::step]
async fn aggregate(
    warmth: Dep<TransformTemperature>,
    rainfall: Dep<TransformPrecipitation>,
    skies: Dep<TransformSky>,
) -> Climate {
    statistics::climate(&warmth, &rainfall, &skies)
}

#[tasker::step]
async fn insights(climate: Dep<Aggregate>) -> Result<Report, StepError> {
    statistics::insights(&climate).permanent("NO_OBSERVATIONS")
}

/// Reads the observations of some years and tells what stands out in them.
pub fn weather_insights() -> Workflow {
    Workflow::new("weather_insights")
        .namespace("analytics")
        .input::<Years>()
        .step(extract_temperature)
        .step(extract_precipitation)
        .step(extract_sky)
        .step(transform_temperature)
        .step(transform_precipitation)
        .step(transform_sky)
        .step(aggregate)
        .step(insights)
}

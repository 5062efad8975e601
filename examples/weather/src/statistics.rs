//! What the observations say: by month, by year, and in a sentence.

use std::collections::BTreeMap;

use rust_decimal::Decimal;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::observations::{ByMonth, Sky, Temperature};

/// A month's temperatures.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Warmth {
    days: u32,
    sum_of_highs: Decimal,
    sum_of_lows: Decimal,
}

/// A month's rain and snow.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Rain {
    days: u32,
    wet_days: u32,
    millimetres: Decimal,
}

/// A month's wind and skies.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Skies {
    days: u32,
    sum_of_winds: Decimal,
    kinds: BTreeMap<String, u32>,
}

/// The rain of all months, with what does not end at the end of a month.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Rainfall {
    pub(crate) months: ByMonth<Rain>,
    dry_spell: Spell,
    wet_spell: Spell,
}

/// Days of the same kind in a row.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Spell {
    /// How many.
    pub days: u32,
    /// The month in which they ended.
    pub until: String,
}

/// All about one month.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Month {
    warmth: Warmth,
    rain: Rain,
    skies: Skies,
}

/// All months.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Climate {
    months: ByMonth<Month>,
    dry_spell: Spell,
    wet_spell: Spell,
}

/// The month that stands out, and its value.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Peak {
    /// The month, `2012-01`.
    pub month: String,
    /// Its value, to two places.
    pub value: Decimal,
}

/// What there is to tell.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// How many days were observed.
    pub days: u32,
    /// Mean of the days' highs by year, degrees Celsius.
    pub mean_high: BTreeMap<String, Decimal>,
    /// Rain and snow by year, in millimetres.
    pub precipitation: BTreeMap<String, Decimal>,
    /// How many days there were of each kind.
    pub kinds: BTreeMap<String, u32>,
    /// The month with the highest mean high.
    pub warmest: Peak,
    /// The month with the lowest mean low.
    pub coldest: Peak,
    /// The month with the most rain and snow.
    pub wettest: Peak,
    /// The month with the strongest mean wind.
    pub windiest: Peak,
    /// The longest time without any rain.
    pub dry_spell: Spell,
    /// The longest time with rain on every day.
    pub wet_spell: Spell,
    /// The same for people.
    pub summary: String,
}

/// There are no days in the years that were asked for.
#[derive(Debug, Error)]
#[error("there are no observations in these years")]
pub(crate) struct NoObservations;

pub(crate) fn warmth(months: &ByMonth<Vec<Temperature>>) -> ByMonth<Warmth> {
    each(months, |days| Warmth {
        days: count(days),
        sum_of_highs: days.iter().map(|day| day.0).sum(),
        sum_of_lows: days.iter().map(|day| day.1).sum(),
    })
}

pub(crate) fn rainfall(months: &ByMonth<Vec<Decimal>>) -> Rainfall {
    Rainfall {
        months: each(months, |days| Rain {
            days: count(days),
            wet_days: days.iter().map(|rain| u32::from(!rain.is_zero())).sum(),
            millimetres: days.iter().sum(),
        }),
        dry_spell: longest(months, Decimal::is_zero),
        wet_spell: longest(months, |rain| !rain.is_zero()),
    }
}

pub(crate) fn skies(months: &ByMonth<Vec<Sky>>) -> ByMonth<Skies> {
    each(months, |days| {
        let mut kinds = BTreeMap::new();
        for Sky(_, kind) in days {
            *kinds.entry(kind.clone()).or_default() += 1;
        }
        Skies { days: count(days), sum_of_winds: days.iter().map(|day| day.0).sum(), kinds }
    })
}

/// Brings together what is known of each month. A month that one of the three lacks is left out.
pub(crate) fn climate(warmth: &ByMonth<Warmth>, rainfall: &Rainfall, skies: &ByMonth<Skies>) -> Climate {
    let month = |(name, warmth): (&String, &Warmth)| {
        let (rain, skies) = (rainfall.months.get(name)?, skies.get(name)?);
        Some((name.clone(), Month { warmth: warmth.clone(), rain: rain.clone(), skies: skies.clone() }))
    };
    Climate {
        months: warmth.iter().filter_map(month).collect(),
        dry_spell: rainfall.dry_spell.clone(),
        wet_spell: rainfall.wet_spell.clone(),
    }
}

pub(crate) fn insights(climate: &Climate) -> Result<Report, NoObservations> {
    let mut highs: BTreeMap<String, (Decimal, u32)> = BTreeMap::new();
    let mut precipitation: BTreeMap<String, Decimal> = BTreeMap::new();
    let mut kinds: BTreeMap<String, u32> = BTreeMap::new();
    for (name, month) in &climate.months {
        let year = name.split('-').next().unwrap_or_default();
        let (sum, days) = highs.entry(year.to_owned()).or_default();
        *sum += month.warmth.sum_of_highs;
        *days += month.warmth.days;
        *precipitation.entry(year.to_owned()).or_default() += month.rain.millimetres;
        for (kind, days) in &month.skies.kinds {
            *kinds.entry(kind.clone()).or_default() += days;
        }
    }
    let days: u32 = highs.values().map(|(_, days)| days).sum();
    let wet_days: u32 = climate.months.values().map(|month| month.rain.wet_days).sum();
    let warmest = peak(climate, |month| mean(month.warmth.sum_of_highs, month.warmth.days))?;
    let coldest = peak(climate, |month| -mean(month.warmth.sum_of_lows, month.warmth.days))?;
    let wettest = peak(climate, |month| month.rain.millimetres)?;
    let windiest = peak(climate, |month| mean(month.skies.sum_of_winds, month.skies.days))?;
    let dry = &climate.dry_spell;
    let summary = format!(
        "It rained or snowed on {wet_days} of {days} days. {} was the warmest month ({} °C by day), {} the wettest ({} mm). \
         The longest dry spell lasted {} days, into {}.",
        warmest.month, warmest.value, wettest.month, wettest.value, dry.days, dry.until
    );
    Ok(Report {
        days,
        mean_high: highs.into_iter().map(|(year, (sum, days))| (year, mean(sum, days))).collect(),
        precipitation,
        kinds,
        warmest,
        coldest: Peak { value: -coldest.value, ..coldest },
        wettest,
        windiest,
        dry_spell: climate.dry_spell.clone(),
        wet_spell: climate.wet_spell.clone(),
        summary,
    })
}

fn each<D, S>(months: &ByMonth<Vec<D>>, summarise: impl Fn(&[D]) -> S) -> ByMonth<S> {
    months.iter().map(|(name, days)| (name.clone(), summarise(days))).collect()
}

fn count<D>(days: &[D]) -> u32 {
    u32::try_from(days.len()).unwrap_or(u32::MAX)
}

fn mean(sum: Decimal, days: u32) -> Decimal {
    sum.checked_div(days.into()).unwrap_or_default().round_dp(2)
}

fn longest(months: &ByMonth<Vec<Decimal>>, is_part: impl Fn(&Decimal) -> bool) -> Spell {
    let (mut longest, mut days) = (Spell::default(), 0);
    for (month, rain) in months.iter().flat_map(|(month, days)| days.iter().map(move |rain| (month, rain))) {
        days = if is_part(rain) { days + 1 } else { 0 };
        if days > longest.days {
            longest = Spell { days, until: month.clone() };
        }
    }
    longest
}

/// Finds the month with the highest value; the first of several.
fn peak(climate: &Climate, value: impl Fn(&Month) -> Decimal) -> Result<Peak, NoObservations> {
    let mut peak: Option<Peak> = None;
    for (name, month) in &climate.months {
        let value = value(month);
        if peak.as_ref().is_none_or(|peak| value > peak.value) {
            peak = Some(Peak { month: name.clone(), value });
        }
    }
    peak.ok_or(NoObservations)
}

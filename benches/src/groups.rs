//! The benchmarks: one module each.

pub(crate) mod chain1000;
pub(crate) mod closed64;
pub(crate) mod delayed100k;
pub(crate) mod drain;
pub(crate) mod growth;
pub(crate) mod idle;
pub(crate) mod latency;
pub(crate) mod processes;
pub(crate) mod profile;
pub(crate) mod rescue;
pub(crate) mod submit;
pub(crate) mod submit_in_tx;
pub(crate) mod wide1000;

use anyhow::{Result, bail};

use crate::bench::Bench;

/// A benchmark and the figures it gives; either name chooses it.
#[derive(Debug)]
pub(crate) struct Group {
    pub(crate) name: &'static str,
    keys: &'static [&'static str],
}

/// All of them, in the order of running.
const GROUPS: [Group; 13] = [
    Group {
        name: "latency",
        keys: &[
            "dag7_p50_ms",
            "dag7_p99_ms",
            "commit_floor_ms",
            "dag7_minus_floor_ms",
            "dag7_nofsync_p50_ms",
            "chain5_p50_ms",
        ],
    },
    Group { name: "closed64", keys: &["closed64_steps_per_s", "closed64_cpu_ms_per_step"] },
    Group { name: "drain", keys: &["drain_steps_per_s", "drain_pg_us_per_step", "drain_over_prototype"] },
    Group { name: "wide1000", keys: &["wide1000_steps_per_s"] },
    Group { name: "chain1000", keys: &["chain1000_steps_per_s"] },
    Group { name: "submit", keys: &["submit_per_s"] },
    Group { name: "submit_in_tx", keys: &["submit_in_tx_per_s"] },
    Group { name: "processes", keys: &[] },
    Group { name: "profile", keys: &[] },
    Group { name: "delayed100k", keys: &["delayed100k_claim_ratio"] },
    Group { name: "rescue", keys: &["rescue_p50_ms", "rescue_p99_ms", "rescue_lost", "rescue_applied_twice"] },
    Group { name: "growth", keys: &["growth_pg_cpu_ratio"] },
    Group { name: "idle", keys: &["idle_tx_per_s", "idle_cpu_pct", "idle_rss_mb"] },
];

/// Answers the groups of these names or figures; all where none is named.
pub(crate) fn chosen(only: &[String]) -> Result<Vec<&'static Group>> {
    let is_meant = |group: &Group, name: &str| group.name == name || group.keys.contains(&name);
    if let Some(unknown) = only.iter().find(|name| !GROUPS.iter().any(|group| is_meant(group, name))) {
        let names = GROUPS.map(|group| group.name).join(", ");
        bail!("there is no benchmark `{unknown}`; there are {names}, and their figures' names");
    }
    Ok(GROUPS.iter().filter(|group| only.is_empty() || only.iter().any(|name| is_meant(group, name))).collect())
}

/// Runs one.
pub(crate) async fn run(group: &Group, bench: &mut Bench) -> Result<()> {
    match group.name {
        "latency" => latency::run(bench).await,
        "closed64" => closed64::run(bench).await,
        "drain" => drain::run(bench).await,
        "wide1000" => wide1000::run(bench).await,
        "chain1000" => chain1000::run(bench).await,
        "submit" => submit::run(bench).await,
        "submit_in_tx" => submit_in_tx::run(bench).await,
        "processes" => processes::run(bench).await,
        "profile" => profile::run(bench).await,
        "delayed100k" => delayed100k::run(bench).await,
        "rescue" => rescue::run(bench).await,
        "growth" => growth::run(bench).await,
        "idle" => idle::run(bench).await,
        other => bail!("group `{other}` has no module"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_are_chosen_by_their_names_and_by_their_figures() {
        let names = |only: &[&str]| {
            let only: Vec<String> = only.iter().map(|&name| name.to_owned()).collect();
            chosen(&only).map(|groups| groups.iter().map(|group| group.name).collect::<Vec<_>>())
        };
        assert_eq!(names(&["idle", "dag7_p50_ms"]).unwrap(), ["latency", "idle"]);
        assert_eq!(names(&[]).unwrap().len(), GROUPS.len());
        assert!(names(&["dag8"]).unwrap_err().to_string().contains("latency"));
    }
}

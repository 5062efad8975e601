//! Processor time, in seconds, and memory of processes, from /proc.

use std::fs;

use anyhow::{Context, Result};

/// What /proc counts in: 100 a second on every Linux of today, whatever the kernel's own tick is.
const TICKS_PER_SECOND: f64 = 100.0;

/// Fields of `/proc/PID/stat`, counted from the state, which follows the name.
struct Stat {
    parent: u32,
    /// Of the process itself, in user and kernel.
    own: u64,
    /// Of its children that ended.
    ended: u64,
}

fn stat(pid: &str) -> Option<Stat> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name stands in parentheses and may have spaces and parentheses of its own.
    let fields: Vec<&str> = text.rsplit_once(')')?.1.split_whitespace().collect();
    let number = |at: usize| fields.get(at)?.parse::<u64>().ok();
    Some(Stat {
        parent: fields.get(1)?.parse().ok()?,
        own: number(11)? + number(12)?,
        ended: number(13)? + number(14)?,
    })
}

fn seconds(ticks: u64) -> f64 {
    ticks as f64 / TICKS_PER_SECOND
}

/// The processor time of one process so far.
pub(crate) fn of_process(pid: u32) -> Result<f64> {
    stat(&pid.to_string()).map(|stat| seconds(stat.own)).with_context(|| format!("process {pid} has ended"))
}

/// The processor time of a server so far: its first process, all that descend from it directly, and those of them that ended.
pub(crate) fn of_server(postmaster: u32) -> Result<f64> {
    let mut ticks = 0;
    // Children first: one that ends meanwhile is then counted once more at most, never left out of both.
    for entry in fs::read_dir("/proc")?.flatten() {
        let name = entry.file_name();
        if let Some(stat) = name.to_str().filter(|name| name.starts_with(|c: char| c.is_ascii_digit())).and_then(stat)
            && stat.parent == postmaster
        {
            ticks += stat.own;
        }
    }
    let first = stat(&postmaster.to_string()).context("PostgreSQL has ended")?;
    Ok(seconds(ticks + first.own + first.ended))
}

/// The processor time of this process so far.
pub(crate) fn of_this_process() -> Result<f64> {
    of_process(std::process::id())
}

/// The resident memory of a process in MB (10^6 bytes).
pub(crate) fn resident_mb(pid: u32) -> Result<f64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("the process has ended")?;
    let kib: f64 = line.trim().trim_end_matches("kB").trim().parse()?;
    Ok(kib * 1024.0 / 1e6)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_has_memory_and_its_processor_time_grows() {
        let before = of_this_process().unwrap();
        let begun = std::time::Instant::now();
        while begun.elapsed().as_millis() < 60 {
            std::hint::spin_loop();
        }
        assert!(of_this_process().unwrap() > before);
        assert!(resident_mb(std::process::id()).unwrap() > 1.0);
    }

    #[test]
    fn the_time_of_children_is_kept_when_they_end() {
        let before = of_server(std::process::id()).unwrap();
        let status =
            std::process::Command::new("sh").args(["-c", "i=0; while [ $i -lt 300000 ]; do i=$((i+1)); done"]).status();
        assert!(status.unwrap().success());
        assert!(of_server(std::process::id()).unwrap() > before);
    }
}

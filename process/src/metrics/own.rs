//! What the process itself uses, as Prometheus' own client libraries name it, and which build it is.

use std::fs;

use super::{Collect, Collecting, Metric, Options, Page};

/// Clock ticks per second in `/proc`: the same on every Linux that Rust runs on.
const TICKS: f64 = 100.0;
/// Bytes of a page, where the kernel says no other: only the fallback of `VmRSS`.
const KIB: u64 = 1024;

static CPU: Metric = Metric::counter("process_cpu_seconds_total", &[], "User and system CPU time spent, in seconds.");
static RSS: Metric = Metric::gauge("process_resident_memory_bytes", &[], "Resident memory, in bytes.");
static FDS: Metric = Metric::gauge("process_open_fds", &[], "Open file descriptors.");
static MAX_FDS: Metric = Metric::gauge("process_max_fds", &[], "Most file descriptors that may be open.");
static THREADS: Metric = Metric::gauge("process_threads", &[], "Threads of the operating system.");
static START: Metric = Metric::gauge("process_start_time_seconds", &[], "Start of the process, in seconds since 1970.");
static BUILD: Metric = Metric::gauge(
    "modelring_build_info",
    &["version", "process"],
    "Always 1; the labels say which build and which process this is.",
);

/// What [`Own`] shows.
pub static METRICS: &[&Metric] = &[&BUILD, &CPU, &RSS, &FDS, &MAX_FDS, &THREADS, &START];

/// Shows what this process uses.
#[derive(Debug)]
pub struct Own {
    /// `proxy`, `agent`, `control`, ...
    process: &'static str,
    options: Options,
}

// === impl Own ===

impl Own {
    /// Of the process of this name.
    #[must_use]
    pub fn new(process: &'static str, options: Options) -> Self {
        Self { process, options }
    }

    fn show(&self, page: &mut Page) {
        self.options.show_info(page);
        page.series(&BUILD).value(&[env!("CARGO_PKG_VERSION"), self.process], 1_u64);
        if let Some(stat) = fs::read_to_string("/proc/self/stat").ok().as_deref().and_then(Stat::read) {
            page.value(&CPU, stat.cpu);
            page.value(&THREADS, stat.threads);
            if let Some(boot) = fs::read_to_string("/proc/stat").ok().as_deref().and_then(boot_time) {
                page.value(&START, boot + stat.start);
            }
        }
        if let Some(bytes) = fs::read_to_string("/proc/self/status").ok().as_deref().and_then(resident) {
            page.value(&RSS, bytes);
        }
        if let Ok(open) = fs::read_dir("/proc/self/fd") {
            // One of them is this look.
            page.value(&FDS, open.count().saturating_sub(1));
        }
        if let Some(most) = fs::read_to_string("/proc/self/limits").ok().as_deref().and_then(max_fds) {
            page.value(&MAX_FDS, most);
        }
    }
}

impl Collect for Own {
    fn collect<'a>(&'a self, page: &'a mut Page) -> Collecting<'a> {
        self.show(page);
        Box::pin(std::future::ready(()))
    }
}

/// What `/proc/self/stat` says, in seconds (`proc_pid_stat(5)`).
struct Stat {
    cpu: f64,
    threads: u64,
    /// After the boot of the machine.
    start: f64,
}

// === impl Stat ===

impl Stat {
    fn read(text: &str) -> Option<Self> {
        // The name, in brackets, may hold anything: the rest begins with the third field.
        let fields: Vec<&str> = text.rsplit(')').next()?.split_whitespace().collect();
        let number = |field: usize| fields.get(field - 3)?.parse::<u64>().ok();
        Some(Self {
            cpu: (number(14)? + number(15)?) as f64 / TICKS,
            threads: number(20)?,
            start: number(22)? as f64 / TICKS,
        })
    }
}

fn boot_time(stat: &str) -> Option<f64> {
    stat.lines().find_map(|line| line.strip_prefix("btime "))?.trim().parse().ok()
}

fn resident(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.trim().trim_end_matches("kB").trim().parse::<u64>().ok().map(|kib| kib * KIB)
}

fn max_fds(limits: &str) -> Option<u64> {
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    line.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_process_uses_is_shown() {
        let mut page = Page::default();
        Own::new("test", Options::default()).show(&mut page);
        let text = page.into_text();
        let value = |name: &str| {
            let line = text.lines().find(|line| line.starts_with(&format!("{name} "))).expect(name);
            line.rsplit(' ').next().and_then(|value| value.parse::<f64>().ok()).expect(name)
        };
        assert!(value("process_resident_memory_bytes") > 1e5);
        assert!(value("process_open_fds") >= 3.0);
        assert!(value("process_max_fds") >= value("process_open_fds"));
        assert!(value("process_threads") >= 1.0);
        assert!(value("process_cpu_seconds_total") >= 0.0);
        assert!(value("process_start_time_seconds") > 1.5e9);
        assert!(text.contains("modelring_build_info{version=\"") && text.contains(",process=\"test\"} 1"), "{text}");
    }

    #[test]
    fn a_name_with_brackets_and_blanks_is_no_trouble() {
        let rest = (4..=24).map(|field| field.to_string()).collect::<Vec<_>>().join(" ");
        let stat = Stat::read(&format!("7 (a) b) c) S {rest}")).expect("it is well-formed");
        assert_eq!((stat.cpu, stat.threads, stat.start), (0.29, 20, 0.22));
    }
}

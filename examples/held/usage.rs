//! What this process uses, where the system tells (Linux).

/// At one moment.
pub(crate) struct Usage {
    /// Bytes of memory.
    pub(crate) resident: usize,
    /// Seconds of processor time since the process began.
    pub(crate) processor: f64,
    /// Open sockets.
    pub(crate) sockets: usize,
}

impl Usage {
    pub(crate) fn now() -> Option<Self> {
        let status = std::fs::read_to_string("/proc/self/status").ok()?;
        let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
        let kilobytes: usize = resident.split_whitespace().next()?.parse().ok()?;
        let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
        // Behind the name, which may hold anything: fields 14 and 15 are user and system time in hundredths of a second.
        let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
        let ticks = |index: usize| fields.get(index)?.parse::<f64>().ok();
        let descriptors = std::fs::read_dir("/proc/self/fd").ok()?.flatten();
        let targets = descriptors.filter_map(|descriptor| std::fs::read_link(descriptor.path()).ok());
        Some(Self {
            resident: kilobytes * 1024,
            processor: (ticks(11)? + ticks(12)?) / 100.0,
            sockets: targets
                .filter(|target| target.to_string_lossy().starts_with("socket:"))
                .count(),
        })
    }
}

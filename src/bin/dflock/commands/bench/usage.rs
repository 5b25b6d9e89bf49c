//! Memory, processor time and sockets of this process, where the system reports them (Linux).

/// The usage at one moment. A value that the system does not report is zero.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Usage {
    /// Bytes of memory.
    pub(super) memory: usize,
    /// Seconds of processor time since the process began.
    pub(super) processor: f64,
    /// Open sockets.
    pub(super) sockets: usize,
}

impl Usage {
    pub(super) fn now() -> Self {
        let read = |name: &str| std::fs::read_to_string(format!("/proc/self/{name}")).unwrap_or_default();
        Self {
            memory: memory(&read("status")).unwrap_or_default(),
            processor: processor(&read("stat")).unwrap_or_default(),
            sockets: sockets().unwrap_or_default(),
        }
    }

    /// Returns the increase since an earlier moment.
    pub(super) fn since(self, earlier: Self) -> Self {
        Self {
            memory: self.memory.saturating_sub(earlier.memory),
            processor: (self.processor - earlier.processor).max(0.0),
            sockets: self.sockets.saturating_sub(earlier.sockets),
        }
    }
}

fn memory(status: &str) -> Option<usize> {
    let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kibibytes: usize = resident.split_whitespace().next()?.parse().ok()?;
    Some(kibibytes * 1024)
}

/// Returns the sum of fields 14 and 15, user and system time, in seconds. The file has hundredths of a second. Fields
/// are counted from the end of the name, which may contain any character.
fn processor(stat: &str) -> Option<f64> {
    let (_, behind) = stat.rsplit_once(')')?;
    let fields: Vec<&str> = behind.split_whitespace().collect();
    let ticks = |index: usize| fields.get(index)?.parse::<f64>().ok();
    Some((ticks(11)? + ticks(12)?) / 100.0)
}

fn sockets() -> Option<usize> {
    let descriptors = std::fs::read_dir("/proc/self/fd").ok()?.flatten();
    let targets = descriptors.filter_map(|descriptor| std::fs::read_link(descriptor.path()).ok());
    let sockets = targets.filter(|target| target.to_string_lossy().starts_with("socket:"));
    Some(sockets.count())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_values_of_the_system_are_parsed() {
        assert_eq!(memory("Name:\tdflock\nVmRSS:\t    2048 kB\n"), Some(2 << 20));
        assert_eq!(memory("Name:\tdflock\n"), None);
        let stat = "7 (a ) name) S 1 2 3 4 5 6 7 8 9 10 250 50 0 0";
        assert_eq!(processor(stat), Some(3.0));
        assert_eq!(processor(""), None);
    }
}

//! Runs a program under callgrind and reads its profile.

use std::collections::HashSet;
use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The cost of a program, or of one of its operations.
#[derive(Clone, Copy)]
pub(crate) struct Cost {
    pub(crate) instructions: f64,
    /// The number of allocations and reallocations of memory.
    pub(crate) allocations: f64,
}

/// Runs the program with this name for this many operations under callgrind, and returns the cost of the whole run.
pub(crate) fn count(program: &str, operations: usize) -> Result<Cost, Box<dyn Error>> {
    let profile = folder()?.join(format!("{}.{operations}", program.replace(' ', "_")));
    let ran = Command::new("valgrind")
        .args(["--quiet", "--tool=callgrind"])
        .arg(format!("--callgrind-out-file={}", profile.display()))
        .arg(std::env::current_exe()?)
        .args(["--run", program, "--count", &operations.to_string()])
        .output()
        .map_err(|error| format!("valgrind cannot be run ({error}): install it, as with apt-get install valgrind"))?;
    if !ran.status.success() {
        return Err(format!("{program}: {}", String::from_utf8_lossy(&ran.stderr)).into());
    }
    Ok(Cost {
        instructions: instructions(&profile)?,
        allocations: allocations(&profile)?,
    })
}

/// Returns the folder for the profiles, which is below `target`. Creates the folder if it is missing.
fn folder() -> Result<PathBuf, Box<dyn Error>> {
    let executable = std::env::current_exe()?;
    let target = executable
        .ancestors()
        .nth(3)
        .ok_or("the benchmark is not below target")?;
    let folder = target.join("instructions");
    fs::create_dir_all(&folder)?;
    Ok(folder)
}

/// Returns the number of instructions, which is at the end of the profile.
fn instructions(profile: &Path) -> Result<f64, Box<dyn Error>> {
    let text = fs::read_to_string(profile)?;
    let mut sums = text
        .lines()
        .filter_map(|line| line.strip_prefix("totals: ").or(line.strip_prefix("summary: ")));
    let sum = sums.next_back().ok_or("the profile has no sum")?;
    Ok(sum.trim().parse()?)
}

/// Returns how often the program called the allocator. In a profile, the first line of a function has the function's
/// number and name, as in `cfn=(7) malloc`. Later lines have only the number, as in `cfn=(7)`. After each line `cfn=`,
/// a line `calls=` has the number of calls of that function.
fn allocations(profile: &Path) -> Result<f64, Box<dyn Error>> {
    let text = fs::read_to_string(profile)?;
    let mut allocators = HashSet::new();
    for line in text.lines() {
        let named = line.strip_prefix("fn=").or_else(|| line.strip_prefix("cfn="));
        if let Some((number, name)) = named.and_then(|named| named.split_once(' ')) {
            if matches!(
                name,
                "malloc" | "calloc" | "realloc" | "posix_memalign" | "aligned_alloc"
            ) {
                allocators.insert(number);
            }
        }
    }
    if allocators.is_empty() {
        return Err("the profile names no allocator".into());
    }
    let mut calls = 0.0;
    let mut is_allocator = false;
    for line in text.lines() {
        if let Some(called) = line.strip_prefix("cfn=") {
            is_allocator = allocators.contains(called.split(' ').next().unwrap_or(called));
        } else if let Some(count) = line.strip_prefix("calls=").filter(|_| is_allocator) {
            calls += count.split(' ').next().unwrap_or(count).parse::<f64>()?;
        }
    }
    Ok(calls)
}

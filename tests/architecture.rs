//! Who may use what: the layers of `docs/architecture.md`, checked over the source text so that
//! this test links nothing.

#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

use std::{
    fs,
    path::{Path, PathBuf},
};

/// A layer, and the crates and modules that its files must not name.
struct Rule {
    place: &'static str,
    must_not_use: &'static [&'static str],
    no_async: bool,
}

const IO: &[&str] = &["tokio", "sqlx", "reqwest", "kube", "matrix_sdk", "axum", "std::fs", "std::net"];

const RULES: &[Rule] = &[
    Rule {
        place: "src/domain",
        must_not_use: &["kube", "k8s_openapi", "sqlx", "matrix_sdk", "axum", "reqwest", "tokio"],
        no_async: true,
    },
    Rule {
        place: "src/crd",
        must_not_use: &["kube::Client", "kube::client", "tokio", "sqlx", "matrix_sdk"],
        no_async: true,
    },
    Rule {
        place: "src/kube_util",
        must_not_use: &["crate::crd", "crate::operator", "crate::domain"],
        no_async: false,
    },
    Rule {
        place: "src/homeserver",
        must_not_use: &["kube", "k8s_openapi", "sqlx", "matrix_sdk"],
        no_async: false,
    },
    Rule {
        place: "src/coverage",
        must_not_use: &["kube", "k8s_openapi", "sqlx", "matrix_sdk", "axum"],
        no_async: false,
    },
    Rule { place: "src/coverage/planner", must_not_use: &["tokio"], no_async: true },
    Rule { place: "src/trail", must_not_use: IO, no_async: true },
    Rule {
        place: "src/store",
        must_not_use: &["kube", "k8s_openapi", "matrix_sdk", "axum"],
        no_async: false,
    },
    Rule {
        place: "src/operator",
        must_not_use: &["matrix_sdk", "axum", "crate::store", "sqlx"],
        no_async: false,
    },
    Rule {
        place: "src/operator/validate",
        must_not_use: &["kube::Client", "kube::Api", "crate::homeserver::Connect", "tokio"],
        no_async: true,
    },
    Rule {
        place: "src/operator/build",
        must_not_use: &["kube::Client", "kube::Api", "crate::homeserver", "tokio"],
        no_async: true,
    },
    Rule {
        place: "src/worker",
        must_not_use: &["kube", "k8s_openapi", "axum", "crate::operator", "crate::crd", "sqlx"],
        no_async: false,
    },
    Rule {
        place: "src/console",
        must_not_use: &[
            "kube",
            "k8s_openapi",
            "matrix_sdk",
            "crate::operator",
            "crate::crd",
            "crate::worker",
            "sqlx",
        ],
        no_async: false,
    },
    Rule { place: "src/console/intake", must_not_use: IO, no_async: true },
];

/// Crates and modules that only one place may use.
const ONLY_IN: &[(&str, &[&str])] = &[
    ("sqlx", &["src/store/pg"]),
    ("matrix_sdk", &["src/worker"]),
    ("matrix_sdk_crypto", &["src/worker"]),
    ("object_store", &["src/worker/media"]),
    ("crate::cli", &["src/cli", "src/main.rs"]),
];

fn rust_files(place: &Path, found: &mut Vec<PathBuf>) {
    if place.is_dir() {
        for entry in fs::read_dir(place).unwrap() {
            rust_files(&entry.unwrap().path(), found);
        }
    } else if place.extension().is_some_and(|extension| extension == "rs") {
        found.push(place.to_owned());
    }
}

fn sources() -> Vec<(String, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut files = Vec::new();
    rust_files(&root.join("src"), &mut files);
    files
        .into_iter()
        .map(|file| {
            let name = file.strip_prefix(root).unwrap().to_string_lossy().into_owned();
            (name, code_of(&fs::read_to_string(&file).unwrap()))
        })
        .collect()
}

/// The text without comments and without the tests at its end.
fn code_of(text: &str) -> String {
    let without_tests = text.split("#[cfg(test)]\nmod tests").next().unwrap();
    without_tests.lines().map(code_of_line).collect::<Vec<_>>().join("\n")
}

/// A line without its comment and without what stands in string literals.
fn code_of_line(line: &str) -> String {
    line.split("//").next().unwrap().split('"').step_by(2).collect::<Vec<_>>().join("\"\"")
}

fn is_below(file: &str, place: &str) -> bool {
    file.strip_prefix(place).is_some_and(|rest| rest.is_empty() || rest.starts_with('/') || rest == ".rs")
}

/// Whether the code names `path` as a path (`use kube::..`, `kube::Api`), not as part of a word.
fn uses(code: &str, path: &str) -> bool {
    code.match_indices(path).any(|(at, _)| {
        let before = code[..at].chars().next_back();
        let after = code[at + path.len()..].chars().next();
        let starts =
            !before.is_some_and(|c| c.is_alphanumeric() || c == '_' || c == ':' || c == '"' || c == '.');
        let ends = if path.contains("::") {
            !after.is_some_and(|c| c.is_alphanumeric() || c == '_')
        } else {
            code[at + path.len()..].starts_with("::") || (after == Some(';') && code[..at].ends_with("use "))
        };
        starts && ends
    })
}

#[test]
fn layers_use_only_what_they_may() {
    let mut wrong = Vec::new();
    for (file, code) in sources() {
        for rule in RULES.iter().filter(|rule| is_below(&file, rule.place)) {
            for path in rule.must_not_use.iter().filter(|path| uses(&code, path)) {
                wrong.push(format!("{file} uses {path}, which {} must not", rule.place));
            }
            if rule.no_async && code.contains("async fn") {
                wrong.push(format!("{file} has an async fn, which {} must not", rule.place));
            }
        }
        for (path, places) in ONLY_IN {
            let allowed = places.iter().any(|place| is_below(&file, place) || file == *place);
            if !allowed && uses(&code, path) {
                wrong.push(format!("{file} uses {path}, which only {places:?} may"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn only_one_place_patches() {
    for (file, code) in sources() {
        if !is_below(&file, "src/kube_util") {
            assert!(
                !code.contains(".patch(") && !code.contains(".patch_status("),
                "{file} patches; kube_util::apply does that"
            );
        }
    }
}

#[test]
fn no_file_is_over_400_lines() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut files = Vec::new();
    rust_files(&root.join("src"), &mut files);
    for file in files {
        let text = fs::read_to_string(&file).unwrap();
        let lines = text.lines().filter(|line| !line.trim().is_empty()).count();
        assert!(lines <= 400, "{} has {lines} lines; split it along a real seam", file.display());
    }
}

#[test]
fn the_check_itself_finds_what_it_looks_for() {
    assert!(uses("use kube::Client;", "kube"));
    assert!(uses("let api: kube::Api<Pod>;", "kube"));
    assert!(!uses("use crate::kube_util::apply;", "kube"));
    assert!(!uses("use my_kube::x;", "kube"));
    assert!(uses("use crate::crd::AdminBot;", "crate::crd"));
    assert!(!uses("use crate::crdx;", "crate::crd"));
    assert!(is_below("src/operator/validate.rs", "src/operator/validate"));
    assert!(!is_below("src/operatorx/a.rs", "src/operator"));
}

//! Generated files are what the program generates.

use std::{fs, path::Path, process::Command};

fn printed(arguments: &[&str]) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_ems-bots")).arg("crds").args(arguments).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn committed_definitions_are_up_to_date() {
    let mut all = String::new();
    for (kind, file) in [("AdminBot", "crds/adminbots.yaml"), ("AuditBot", "crds/auditbots.yaml")] {
        let committed =
            fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(file)).unwrap_or_default();
        assert!(committed == printed(&["--kind", kind]), "{file} is not up to date: run `make generate`");
        all.push_str(&committed);
    }
    assert_eq!(printed(&[]), all);
}

#[test]
fn the_kind_may_be_written_in_lower_case() {
    assert_eq!(printed(&["--kind", "auditbot"]), printed(&["--kind", "AuditBot"]));
}

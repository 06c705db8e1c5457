//! `ems-bots crds`: the definitions of the custom resources.

use std::{io::Write, process::ExitCode};

use clap::ValueEnum;

use crate::crd;

/// Which definitions to print.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Print the definition of this kind only.
    #[arg(long, value_enum, ignore_case = true)]
    kind: Option<Kind>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Kind {
    #[value(name = "AdminBot")]
    AdminBot,
    #[value(name = "AuditBot")]
    AuditBot,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Self::AdminBot => "AdminBot",
            Self::AuditBot => "AuditBot",
        }
    }
}

/// Prints the definitions as YAML documents.
pub fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let text = documents(args.kind)?;
    std::io::stdout().lock().write_all(text.as_bytes())?;
    Ok(ExitCode::SUCCESS)
}

fn documents(kind: Option<Kind>) -> anyhow::Result<String> {
    let mut text = String::new();
    for definition in crd::all() {
        if kind.is_none_or(|kind| kind.name() == definition.spec.names.kind) {
            text.push_str("---\n");
            text.push_str(&crd::to_yaml(&definition)?);
        }
    }
    Ok(text)
}

//! `docs/operations.md` names what the program can say, `docs/trail.md` what it can record, and
//! nothing else.
//!
//! What people look up has a form of its own in the source: types and reasons of conditions and
//! Events are string literals that consist of one `CamelCase` word, metrics begin with `ems_bots_`,
//! annotations with the API group.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

use ems_bots::{
    coverage::planner::StepKind,
    domain::record::Category,
    homeserver::synapse::{ACCOUNT_DETAILS, ACCOUNT_LISTED},
    worker::vocabulary,
};

/// Words in the source that look like reasons and are none.
const NO_REASONS: [&str; 18] = [
    // Of S3.
    "AuthorizationHeaderMalformed",
    "ExpiredToken",
    "IllegalLocationConstraintException",
    "InvalidBucketName",
    "InvalidRequest",
    "InvalidToken",
    // Part of debug output.
    "Operator",
    // Of Kubernetes: what pods wait for, values of conditions, a type of Secrets.
    "CrashLoopBackOff",
    "CreateContainerConfigError",
    "CreateContainerError",
    "ErrImageNeverPull",
    "ErrImagePull",
    "False",
    "ImagePullBackOff",
    "InvalidImageName",
    "Opaque",
    "PodScheduled",
    "RunContainerError",
];

/// The action of every Event, and reasons of errors that never become a condition: the worker ends
/// when another one writes its trail, only the init container makes roles, and the worker has
/// opened its trail before it asks for a session.
const NEVER_SHOWN: [&str; 4] = ["LostSequencer", "MayNotCreateRoles", "Reconcile", "WaitingForDatabase"];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn guide() -> String {
    fs::read_to_string(root().join("docs/operations.md")).unwrap()
}

fn rust_files(place: &Path, found: &mut Vec<PathBuf>) {
    if place.is_dir() {
        for entry in fs::read_dir(place).unwrap() {
            rust_files(&entry.unwrap().path(), found);
        }
    } else if place.extension().is_some_and(|extension| extension == "rs") {
        found.push(place.to_owned());
    }
}

/// Every string literal below these places, without those of tests.
fn literals(places: &[&str]) -> BTreeSet<String> {
    let mut files = Vec::new();
    for place in places {
        rust_files(&root().join(place), &mut files);
    }
    let is_test = |file: &PathBuf| {
        let name = file.file_name().unwrap_or_default();
        let folder = file.parent().and_then(Path::file_name).unwrap_or_default();
        folder == "tests" || ["tests.rs", "properties.rs", "fixtures.rs"].iter().any(|test| name == *test)
    };
    files.retain(|file| !is_test(file));
    assert!(!files.is_empty(), "{places:?} has no files");
    let mut found = BTreeSet::new();
    for file in files {
        let text = fs::read_to_string(&file).unwrap();
        let code = text.split("#[cfg(test)]\nmod tests").next().unwrap_or_default();
        found.extend(literals_of(code));
    }
    found
}

/// The string literals of a source text that has no raw ones.
fn literals_of(code: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut rest = code;
    while let Some(at) = rest.find(['"', '/']) {
        let (before, here) = rest.split_at(at);
        if let Some(comment) = here.strip_prefix("//") {
            rest = comment.split_once('\n').map_or("", |(_, next)| next);
        } else if before.ends_with('\'') || here.starts_with('/') {
            // A quotation mark as a character, or a slash that begins no comment.
            rest = &here[1..];
        } else {
            let mut literal = String::new();
            let mut escaped = false;
            let end = here[1..].find(|c: char| {
                let closes = c == '"' && !escaped;
                escaped = c == '\\' && !escaped;
                if !closes {
                    literal.push(c);
                }
                closes
            });
            rest = end.map_or("", |end| &here[end + 2..]);
            found.push(literal);
        }
    }
    found
}

/// A word such as `SecretMissing`. Shorter ones are protocols and the like.
fn is_camel_case(word: &str) -> bool {
    word.len() > 4
        && word.starts_with(|c: char| c.is_ascii_uppercase())
        && word.chars().all(|c| c.is_ascii_alphabetic())
        && word.chars().any(|c| c.is_ascii_lowercase())
}

/// What stands first in the rows of all tables.
fn keys_of_tables(guide: &str) -> BTreeSet<&str> {
    guide.lines().filter_map(|line| line.strip_prefix("| `")?.split('`').next()).collect()
}

fn compare(said: &BTreeSet<String>, written: &BTreeSet<&str>) {
    let missing: Vec<_> = said.iter().filter(|word| !written.contains(word.as_str())).collect();
    assert!(missing.is_empty(), "docs/operations.md has no row that begins with {missing:?}");
    let gone: Vec<_> = written.iter().filter(|word| !said.contains(**word)).collect();
    assert!(gone.is_empty(), "docs/operations.md has {gone:?}, which the program never says");
}

#[test]
fn every_condition_and_reason_is_explained() {
    let mut said = literals(&["src/operator", "src/worker"]);
    // What is built for Kubernetes has values of Kubernetes.
    let built = literals(&["src/operator/build"]);
    let is_none = |word: &str| NO_REASONS.contains(&word) || NEVER_SHOWN.contains(&word);
    said.retain(|word| is_camel_case(word) && !is_none(word) && !built.contains(word));
    let guide = guide();
    let mut written = keys_of_tables(&guide);
    // Values of the specification are explained in tables of their own.
    said.retain(|word| !["CatchUp", "Skip"].contains(&word.as_str()));
    written.retain(|word| is_camel_case(word) && !["Deactivate", "LeaveRooms", "Retain"].contains(word));
    assert!(said.contains("BackupPhraseMissing") && said.contains("Covered"), "{said:?}");
    compare(&said, &written);
}

#[test]
fn every_metric_is_listed() {
    let mut said = literals(&["src/console/metrics.rs", "src/operator/metrics.rs", "src/worker/metrics"]);
    said.retain(|word| word.starts_with("ems_bots_"));
    let guide = guide();
    let mut written = keys_of_tables(&guide);
    written.retain(|word| word.starts_with("ems_bots_"));
    assert!(said.len() > 20, "{said:?}");
    compare(&said, &written);
}

#[test]
fn every_annotation_is_listed() {
    let mut said = literals(&["src/crd/annotations.rs", "src/operator/labels.rs"]);
    said.retain(|word| word.starts_with("ems.element.io/"));
    let guide = guide();
    let mut written = keys_of_tables(&guide);
    written.retain(|word| word.starts_with("ems.element.io/"));
    assert!(said.contains("ems.element.io/repair-encryption"), "{said:?}");
    compare(&said, &written);
}

#[test]
fn every_reason_of_a_room_is_explained() {
    let mut said = literals(&["src/coverage/planner/reasons.rs"]);
    said.retain(|word| word.chars().all(|c| c.is_ascii_lowercase() || c == '_'));
    let guide = guide();
    let rooms = guide.split("\n## ").find(|section| section.starts_with("Rooms\n")).unwrap();
    assert!(said.contains("power_levels_missing"), "{said:?}");
    compare(&said, &keys_of_tables(rooms));
}

/// The rows of the tables of a text, without their first row and without marks of code.
fn rows(text: &str) -> Vec<Vec<String>> {
    let cells = |line: &str| -> Option<Vec<String>> {
        let line = line.strip_prefix("| ")?.strip_suffix(" |")?;
        Some(line.split(" | ").map(|cell| cell.replace('`', "").trim().to_owned()).collect())
    };
    let mut rows: Vec<Vec<String>> = Vec::new();
    for line in text.lines() {
        if line.starts_with("|---") {
            rows.pop();
        } else {
            rows.extend(cells(line));
        }
    }
    rows
}

/// The document about the trail, by the titles of its sections.
fn section_of_trail(title: &str) -> String {
    let text = fs::read_to_string(root().join("docs/trail.md")).unwrap();
    let found = text.split("\n## ").find(|section| section.starts_with(&format!("{title}\n")));
    found.unwrap_or_else(|| panic!("docs/trail.md has no section {title}")).to_owned()
}

fn same(listed: &BTreeSet<Vec<String>>, made: &BTreeSet<Vec<String>>, what: &str) {
    let missing: Vec<_> = made.difference(listed).collect();
    assert!(missing.is_empty(), "docs/trail.md lacks {what} {missing:#?}");
    let gone: Vec<_> = listed.difference(made).collect();
    assert!(gone.is_empty(), "docs/trail.md has {what} that are never made: {gone:#?}");
}

#[test]
fn every_kind_of_record_is_explained() {
    let is_category = |name: &str| Category::parse(name).is_some();
    let text = fs::read_to_string(root().join("docs/trail.md")).unwrap();
    let all = rows(&text);
    let listed: Vec<Vec<String>> = all
        .iter()
        .filter(|row| row.len() == 4 && is_category(&row[1]) && !row[2].contains(' '))
        .map(|row| row[..3].to_vec())
        .collect();
    let made: BTreeSet<Vec<String>> = vocabulary::all()
        .into_iter()
        .map(|(source, verb)| vec![source, verb.category.as_str().to_owned(), verb.action.to_owned()])
        .collect();
    assert!(made.len() > 80, "{made:?}");
    same(&listed.iter().cloned().collect(), &made, "rows");
    assert_eq!(listed.len(), made.len(), "docs/trail.md has a row twice");
    for row in all.iter().filter(|row| row.len() == 4) {
        assert!(!row[3].is_empty(), "{row:?} explains nothing");
    }
}

#[test]
fn categories_relations_and_acts_are_explained() {
    let first = |title: &str, columns: usize| -> BTreeSet<Vec<String>> {
        rows(&section_of_trail(title)).into_iter().map(|row| row[..columns].to_vec()).collect()
    };
    let categories = Category::ALL.iter().map(|category| vec![category.as_str().to_owned()]).collect();
    same(&first("The five categories", 1), &categories, "categories");
    let relations = vocabulary::RELATIONS
        .iter()
        .map(|(kind, role)| vec![(*kind).to_owned(), (*role).to_owned()])
        .collect();
    same(&first("Relations", 2), &relations, "relations");
    let acts = StepKind::ALL.iter().map(|kind| vec![kind.as_str().to_owned()]).collect();
    same(&first("Acts in rooms", 1), &acts, "acts");
}

#[test]
fn every_fact_of_an_account_is_listed() {
    let section = section_of_trail("Accounts and the homeserver");
    let all = rows(&section).into_iter();
    let listed = all.filter(|row| row[3] == "list" || row[3] == "account").collect();
    let shown = ACCOUNT_LISTED
        .map(|name| (name, "list"))
        .into_iter()
        .chain(ACCOUNT_DETAILS.map(|name| (name, "account")));
    let shown: BTreeMap<&str, &str> = shown.collect();
    let facts = vocabulary::ACCOUNT_FACTS.iter();
    let made = facts.map(|fact| {
        let place = shown.get(fact.name).copied().unwrap_or_default();
        [fact.name, fact.on.action, fact.off.action, place].map(str::to_owned).to_vec()
    });
    same(&listed, &made.collect(), "facts of an account");
    assert_eq!(shown.len(), vocabulary::ACCOUNT_FACTS.len(), "one that is asked for has no row");
    for aside in vocabulary::ACCOUNT_FACTS_ASIDE {
        assert!(section.contains(&format!("`{aside}`")), "{aside}");
    }
}

/// Dotted words such as `message.sent` in what makes records.
#[test]
fn every_action_is_in_the_vocabulary() {
    let mut said = literals(&["src/console", "src/coverage", "src/domain", "src/store", "src/worker"]);
    said.retain(|word| is_action(word) && !NO_ACTIONS.contains(&word.as_str()));
    let known: BTreeSet<String> =
        vocabulary::all().into_iter().map(|(_, verb)| verb.action.to_owned()).collect();
    let unknown: Vec<_> = said.difference(&known).collect();
    assert!(unknown.is_empty(), "src/worker/vocabulary.rs lacks {unknown:?}");
    let of_inbox = literals(&["src/store"]);
    let unused = vocabulary::INBOX.iter().find(|row| !of_inbox.contains(row.verb.action));
    assert!(unused.is_none(), "{unused:?}");
}

/// Words in the source that look like actions and are none.
const NO_ACTIONS: [&str; 4] = ["ems.element.io", "keys.export", "session.json", "session.json.new"];

/// Types of events and fields of the specification have a form of their own.
fn is_action(word: &str) -> bool {
    let others = ["m.", "im.", "io.", "org.", "uk.", "spec."];
    word.contains('.')
        && !others.iter().any(|start| word.starts_with(start))
        && word.split('.').all(|part| {
            part.starts_with(|c: char| c.is_ascii_lowercase())
                && part.chars().all(|c| c.is_ascii_lowercase() || c == '_')
        })
}

#[test]
fn literals_are_found_whatever_stands_around_them() {
    let code = [
        "let a = \"One\"; // \"no\"",
        "match c { '\"' => 1 / 2, _ => f(\"T\\\"wo\", \"Three\") }",
        "/// \"no\"",
    ];
    assert_eq!(literals_of(&code.join("\n")), ["One", "T\\\"wo", "Three"]);
    assert!(is_camel_case("SecretMissing") && is_camel_case("Behind"));
    assert!(!is_camel_case("TCP") && !is_camel_case("two words") && !is_camel_case("lower"));
}

/// Links of the documents to files of this repository lead somewhere.
#[test]
fn links_resolve() {
    let mut documents: Vec<_> = ["README.md", "CHANGELOG.md", "charts/ems-bots/README.md"]
        .iter()
        .map(|file| root().join(file))
        .collect();
    for folder in ["docs", "docs/adr"] {
        let entries = fs::read_dir(root().join(folder)).unwrap().map(|entry| entry.unwrap().path());
        documents.extend(entries.filter(|path| path.extension().is_some_and(|extension| extension == "md")));
    }
    let mut broken = Vec::new();
    for document in documents {
        let text = fs::read_to_string(&document).unwrap();
        let targets = text.split("](").skip(1).filter_map(|rest| rest.split(')').next());
        for target in targets.filter(|target| !target.contains("://")) {
            let (file, anchor) = target.split_once('#').unwrap_or((target, ""));
            let path = if file.is_empty() { document.clone() } else { document.parent().unwrap().join(file) };
            if !path.exists() || (!anchor.is_empty() && !anchors(&path).contains(anchor)) {
                broken.push(format!("{} links to {target}", document.display()));
            }
        }
    }
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}

/// The names under which a document's headings can be linked to.
fn anchors(document: &Path) -> BTreeSet<String> {
    let text = fs::read_to_string(document).unwrap_or_default();
    let headings = text.lines().filter(|line| line.starts_with('#'));
    let kept = |c: &char| c.is_alphanumeric() || ['-', '_', ' '].contains(c);
    let anchor = |line: &str| line.trim_start_matches('#').trim().to_lowercase();
    headings.map(|line| anchor(line).chars().filter(kept).collect::<String>().replace(' ', "-")).collect()
}

//! The shape of the whole, held by what cargo says of the manifests and by the sources themselves:
//! which crate may stand on which, what must be nowhere below them, what the pure core never
//! mentions. No network.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap()
}

fn cargo(arguments: &[&str]) -> String {
    let run = Command::new(env!("CARGO"))
        .current_dir(root())
        .args(arguments)
        .args(["--offline", "--locked"])
        .output()
        .unwrap();
    assert!(run.status.success(), "cargo {arguments:?}: {}", String::from_utf8_lossy(&run.stderr));
    String::from_utf8(run.stdout).unwrap()
}

/// The workspace's packages by name.
fn packages() -> BTreeMap<String, Value> {
    let text = cargo(&["metadata", "--no-deps", "--format-version", "1"]);
    let metadata: Value = serde_json::from_str(&text).unwrap();
    let packages = metadata["packages"].as_array().unwrap();
    packages.iter().map(|p| (p["name"].as_str().unwrap().to_owned(), p.clone())).collect()
}

/// What a manifest names, for any target, of these kinds: `normal`, `build`, `dev`.
fn named(package: &Value, kinds: &[&str]) -> BTreeSet<String> {
    let dependencies = package["dependencies"].as_array().unwrap();
    dependencies
        .iter()
        .filter(|d| kinds.contains(&d["kind"].as_str().unwrap_or("normal")))
        .map(|d| d["name"].as_str().unwrap().to_owned())
        .collect()
}

/// Every crate that is linked into a package's library and binaries, as `name version`.
fn linked(package: &str) -> BTreeSet<String> {
    let text =
        cargo(&["tree", "-p", package, "-e", "normal,build", "--prefix", "none", "-f", "{p}"]);
    text.lines()
        .filter_map(|line| {
            let mut words = line.split(' ');
            Some(format!("{} {}", words.next()?, words.next()?.strip_prefix('v')?))
        })
        .collect()
}

fn contains(linked: &BTreeSet<String>, name: &str) -> bool {
    linked.iter().any(|one| one.split(' ').next() == Some(name))
}

const PRODUCT: [&str; 5] =
    ["belay-proto", "belay-tunnel", "belay-relay", "belay-agent", "belay-client"];

#[test]
fn dependencies_point_one_way() {
    let packages = packages();
    let may: BTreeMap<&str, &[&str]> = BTreeMap::from([
        ("belay-proto", [].as_slice()),
        ("belay-tunnel", &["belay-proto"]),
        ("belay-relay", &["belay-tunnel", "belay-proto"]),
        ("belay-agent", &["belay-tunnel", "belay-proto"]),
        ("belay-client", &["belay-tunnel", "belay-proto"]),
    ]);
    for (name, package) in &packages {
        if name == "belay-tests" {
            continue; // stands above all of them
        }
        let allowed =
            may.get(name.as_str()).unwrap_or_else(|| panic!("{name} is new: place it here"));
        for below in named(package, &["normal", "build", "dev"]) {
            let ours = below.starts_with("belay");
            assert!(!ours || allowed.contains(&below.as_str()), "{name} names {below}");
        }
    }
    assert!(PRODUCT.iter().all(|name| packages.contains_key(*name)));
}

#[test]
fn the_core_names_nothing_but_codecs() {
    let packages = packages();
    let allowed = ["base64", "bytes", "minicbor", "serde", "sha2", "thiserror", "uuid", "zeroize"];
    let names = named(&packages["belay-proto"], &["normal", "build"]);
    let new: Vec<_> = names.iter().filter(|name| !allowed.contains(&name.as_str())).collect();
    assert!(new.is_empty(), "{new:?}: does the core need it, and is it pure?");
    let linked = linked("belay-proto");
    for runtime in [
        "tokio",
        "mio",
        "socket2",
        "quinn",
        "quinn-proto",
        "rustls",
        "russh",
        "aws-lc-rs",
        "rand",
        "sqlx",
        "nix",
        "rustix",
        "chrono",
        "time",
        "jiff",
    ] {
        assert!(!contains(&linked, runtime), "{runtime} is linked into the core");
    }
}

#[test]
fn one_tls_stack_and_one_of_each_engine() {
    let all: BTreeSet<String> = PRODUCT.iter().flat_map(|package| linked(package)).collect();
    for name in ["ring", "openssl", "openssl-sys", "native-tls", "boring", "mbedtls", "schannel"] {
        assert!(!contains(&all, name), "{name}: the one provider is rustls with aws-lc-rs");
    }
    for name in ["rustls", "aws-lc-rs", "aws-lc-sys", "quinn", "quinn-proto", "tokio", "russh"] {
        let versions: Vec<_> =
            all.iter().filter(|one| one.split(' ').next() == Some(name)).collect();
        assert_eq!(versions.len(), 1, "{name}: {versions:?}");
    }
}

/// The relay cannot read a session even by mistake: it links nothing that speaks SSH. And each
/// part links only what its work is.
#[test]
fn no_part_links_another_parts_work() {
    let relay = linked("belay-relay");
    for name in ["russh", "russh-sftp", "portable-pty"] {
        assert!(!contains(&relay, name), "the relay links {name}");
    }
    for package in ["belay-agent", "belay-client", "belay-tunnel"] {
        let linked = linked(package);
        for name in ["sqlx", "libsqlite3-sys", "axum"] {
            assert!(!contains(&linked, name), "{package} links {name}");
        }
    }
    assert!(!contains(&linked("belay-client"), "portable-pty"), "the client links portable-pty");
    assert!(!contains(&linked("belay-client"), "russh-sftp"), "the client links russh-sftp");
}

/// What is built for the tests is what people build: were a dependency's features different,
/// cargo would make all that stands on it twice, and test what nobody runs.
#[test]
fn tests_add_no_features() {
    let features = |edges| -> BTreeMap<String, String> {
        let arguments = ["tree", "--workspace", "-e", edges, "--prefix", "none", "-f", "{p}|{f}"];
        let text = cargo(&arguments);
        let pairs = text.lines().filter_map(|line| line.trim_end_matches(" (*)").split_once('|'));
        pairs.map(|(package, features)| (package.to_owned(), features.to_owned())).collect()
    };
    let tested = features("normal,build,dev");
    for (package, shipped) in features("normal,build") {
        assert_eq!(
            Some(&shipped),
            tested.get(&package),
            "{package}: name the feature in the root manifest, or among [dependencies]"
        );
    }
}

#[test]
fn every_crate_inherits_the_lints() {
    for (name, package) in packages() {
        let path = package["manifest_path"].as_str().unwrap();
        let manifest = std::fs::read_to_string(path).unwrap();
        let section = manifest.split("\n[lints]\n").nth(1);
        assert!(
            section.is_some_and(|after| after.trim_start().starts_with("workspace = true")),
            "{name} does not inherit the workspace's lints"
        );
    }
    let workspace = std::fs::read_to_string(root().join("Cargo.toml")).unwrap();
    for lint in ["unsafe_code", "unwrap_used", "expect_used", "indexing_slicing"] {
        assert!(workspace.contains(&format!("\n{lint} = ")), "{lint} is no lint of the workspace");
    }
}

/// All Rust sources of the project, as paths below its root.
fn sources() -> Vec<PathBuf> {
    fn walk(folder: &Path, found: &mut Vec<PathBuf>) {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_str().unwrap();
            if path.is_dir() && name != "target" && !name.starts_with('.') {
                walk(&path, found);
            } else if path.extension().is_some_and(|e| e == "rs") {
                found.push(path.strip_prefix(root()).unwrap().to_owned());
            }
        }
    }
    let mut found = Vec::new();
    walk(root(), &mut found);
    assert!(found.len() > 100, "only {} sources found", found.len());
    found.sort();
    found
}

fn text(source: &Path) -> String {
    std::fs::read_to_string(root().join(source)).unwrap()
}

#[test]
fn no_file_has_grown_past_600_lines() {
    let long: Vec<_> = sources()
        .into_iter()
        .map(|source| (text(&source).lines().count(), source))
        .filter(|(lines, _)| *lines > 600)
        .collect();
    assert!(long.is_empty(), "split them: {long:?}");
}

#[test]
fn every_file_of_the_product_says_what_it_is_for() {
    let mute: Vec<_> = sources()
        .into_iter()
        .filter(|source| source.components().nth(1).is_some_and(|part| part.as_os_str() == "src"))
        // A test module's name says it.
        .filter(|source| !source.to_str().unwrap().ends_with("tests.rs"))
        .filter(|source| !text(source).contains("//!"))
        .collect();
    assert!(mute.is_empty(), "no `//!` at the head of {mute:?}");
}

/// The core's lints forbid calls; this forbids even the words, in case a lint is switched off.
#[test]
fn the_core_mentions_no_clock_no_chance_and_no_io() {
    let words = [
        "SystemTime",
        "Instant",
        "now_v7",
        "new_v4",
        "rand::",
        "getrandom",
        "thread_rng",
        "std::fs",
        "std::net",
        "std::io",
        "std::env",
        "std::process",
        "std::thread",
        "tokio",
        "HashMap",
        "HashSet",
        "println!",
    ];
    for source in sources().iter().filter(|source| source.starts_with("proto/src")) {
        for (number, line) in text(source).lines().enumerate() {
            let code = line.split("//").next().unwrap();
            for word in words {
                assert!(!code.contains(word), "{}:{}: {word}", source.display(), number + 1);
            }
        }
    }
    let lints = std::fs::read_to_string(root().join("proto/clippy.toml")).unwrap();
    for word in ["SystemTime", "Instant", "now_v7", "HashMap"] {
        assert!(lints.contains(word), "proto/clippy.toml no longer forbids {word}");
    }
}

/// Unsafe code is where it cannot be avoided, and nowhere else.
#[test]
fn unsafe_code_is_admitted_in_these_files_only() {
    let admitted: BTreeSet<PathBuf> = sources()
        .into_iter()
        .filter(|source| !source.ends_with("architecture.rs"))
        .filter(|source| {
            let text = text(source);
            let mut attributes = text.split("allow(").skip(1);
            attributes.any(|after| after.split(')').next().unwrap().contains("unsafe_code"))
        })
        .collect();
    let known = UNSAFE.map(PathBuf::from).into();
    assert_eq!(admitted, known);
}

/// Each with the reason that stands in it.
const UNSAFE: [&str; 5] = [
    "device-agent/src/supervisor/utmp.rs", // utmp(5) is reached through libc only
    "device-agent/src/worker/clock.rs",    // answers one symbol of the C library
    "device-agent/src/worker/sys.rs",      // descriptors and signal dispositions
    "proto/tests/all/heap.rs",             // an allocator that counts
    "tests/src/lab/tun.rs",                // an ioctl makes a TUN device
];

fn document(path: &str) -> String {
    std::fs::read_to_string(root().join(path)).unwrap_or_else(|e| panic!("{path}: {e}"))
}

/// The settings' table is the configuration's, the refusals' table is the protocol's.
#[test]
fn the_documents_name_every_setting_and_every_refusal() {
    let (operations, settings) = (document("docs/operations.md"), document("relay/src/config.rs"));
    let (_, settings) = settings.split_once("\nsettings! {\n").unwrap();
    let (settings, _) = settings.split_once("\n}\n").unwrap();
    let mut named = 0;
    for line in settings.lines().map(str::trim).filter(|line| !line.starts_with("///")) {
        let (key, rest) = line.split_once(": ").unwrap();
        let (default, range) = rest.split_once(" in (").unwrap();
        let (least, most) = range.trim_end_matches("),").split_once("..=").unwrap();
        let [default, least, most] = [default, least, most].map(|n| n.replace('_', ""));
        let row = operations.lines().find(|row| row.starts_with(&format!("| `{key}` |")));
        let row = row.unwrap_or_else(|| panic!("docs/operations.md has no row for {key}"));
        let row = row.replace(',', "");
        assert!(
            row.starts_with(&format!("| `{key}` | {default} | {least} – {most} |")),
            "docs/operations.md is not right about {key}"
        );
        named += 1;
    }
    assert!(named > 10, "only {named} settings found");

    let protocol = document("docs/protocol.md");
    for code in belay_proto::refusal::Code::ALL {
        let row = format!("| {} | {} |", code.number(), code.token());
        assert!(protocol.contains(&row), "docs/protocol.md has no row {row}");
    }
}

/// A link in a document to a file of the project leads there.
#[test]
fn no_document_links_to_nowhere() {
    let mut documents = vec!["README.md".to_owned(), "ARCHITECTURE.md".to_owned()];
    for entry in std::fs::read_dir(root().join("docs")).unwrap() {
        documents.push(format!("docs/{}", entry.unwrap().file_name().to_str().unwrap()));
    }
    for path in documents.iter().filter(|path| path.ends_with(".md")) {
        let folder = root().join(path).parent().unwrap().to_owned();
        for after in document(path).split("](").skip(1) {
            let target = after.split([')', '#']).next().unwrap();
            let here = target.is_empty() || target.contains("://");
            assert!(here || folder.join(target).exists(), "{path} links to {target}");
        }
    }
}

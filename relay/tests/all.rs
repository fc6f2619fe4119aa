//! The relay from outside, HTTPS and QUIC: real TLS, real files, port 0.

#[path = "all/attach.rs"]
mod attach;
#[path = "all/audit.rs"]
mod audit;
#[path = "all/break_glass.rs"]
mod break_glass;
#[path = "all/crash.rs"]
mod crash;
#[path = "all/disk.rs"]
mod disk;
#[path = "all/enrolment.rs"]
mod enrolment;
#[path = "all/evidence.rs"]
mod evidence;
#[path = "all/exports.rs"]
mod exports;
#[path = "all/init.rs"]
mod init;
#[path = "all/join.rs"]
mod join;
#[path = "all/kill.rs"]
mod kill;
#[path = "all/limits.rs"]
mod limits;
#[path = "all/lines.rs"]
mod lines;
#[path = "all/listing.rs"]
mod listing;
#[path = "all/login.rs"]
mod login;
#[path = "all/manage.rs"]
mod manage;
#[path = "all/pruning.rs"]
mod pruning;
#[path = "all/recordings.rs"]
mod recordings;
#[path = "all/retention.rs"]
mod retention;
#[path = "all/routes.rs"]
mod routes;
#[path = "all/sessions.rs"]
mod sessions;
#[path = "all/speed.rs"]
mod speed;
#[path = "all/stream.rs"]
mod stream;
#[path = "all/support.rs"]
mod support;
#[path = "all/twins.rs"]
mod twins;
#[path = "all/upgrade.rs"]
mod upgrade;
#[path = "all/watch.rs"]
mod watch;
#[path = "all/witness.rs"]
mod witness;

//! The relay's HTTPS side from outside: real TLS, real files, port 0.

#[path = "all/crash.rs"]
mod crash;
#[path = "all/disk.rs"]
mod disk;
#[path = "all/enrolment.rs"]
mod enrolment;
#[path = "all/init.rs"]
mod init;
#[path = "all/limits.rs"]
mod limits;
#[path = "all/login.rs"]
mod login;
#[path = "all/manage.rs"]
mod manage;
#[path = "all/routes.rs"]
mod routes;
#[path = "all/speed.rs"]
mod speed;
#[path = "all/support.rs"]
mod support;
